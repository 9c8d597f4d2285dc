"""JSON files and folders that stages write."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

from convline.model_file.strict_json import to_json

from pipeline.core.errors import StageError


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


def read_json(path: Path, made_by: str) -> Any:
    """Return the content of a file; where it is missing, StageError names its stage."""
    if not path.exists():
        raise StageError(f"{path}: not made yet; run `dvc repro {made_by}`")
    return json.loads(path.read_text(encoding="utf-8"))
