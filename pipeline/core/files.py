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
    """Return the folder, emptied: DVC links outputs to its cache, so writing over an old file would damage that."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def write_json(path: Path, content: Any) -> None:
    """Write readable, repeatable JSON, whole or not at all; a number that is not finite is null."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(
        f"{path.name}.{os.getpid()}.part"
    )  # two stages may write the log of seconds at once
    part.write_text(to_json(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    part.replace(path)


def read_json(path: Path, made_by: str) -> Any:
    """Return the file's content, or say which stage makes it."""
    if not path.exists():
        raise StageError(f"{path}: not made yet; run `dvc repro {made_by}`")
    return json.loads(path.read_text(encoding="utf-8"))
