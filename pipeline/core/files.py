"""JSON files and folders that stages write."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

from convline.model_file.strict_json import to_json

from pipeline.core.errors import StageError
from pipeline.core.paths import RESULTS

RESULT_DIGITS = 6  # significant, of a number in results/: the last bits of a sum differ by machine


def fresh(folder: Path) -> Path:
    """Empty the folder, or create it, and return it.

    DVC links outputs to its cache, so that writing over an old file would damage the cache.
    """
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def write_json(path: Path, content: Any) -> None:
    """Write indented JSON atomically; numbers that are not finite become null."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.part")
    part.write_text(to_json(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    os.replace(part, path)


def write_result(entry: str, file: str, content: Any) -> None:
    """Write results/<entry>/<file>.json, its floats to RESULT_DIGITS."""
    write_json(RESULTS / entry / f"{file}.json", round_floats(content, RESULT_DIGITS))


def round_floats(content: Any, digits: int) -> Any:
    """Return JSON content whose floats have so many significant digits."""
    if isinstance(content, dict):
        return {key: round_floats(value, digits) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [round_floats(value, digits) for value in content]
    return float(f"{content:.{digits}g}") if isinstance(content, float) else content


def read_json(path: Path, made_by: str) -> Any:
    """Return the content of a file; where it is missing, StageError names its stage."""
    if not path.exists():
        raise StageError(f"{path}: not made yet; run `dvc repro {made_by}`")
    return json.loads(path.read_text(encoding="utf-8"))
