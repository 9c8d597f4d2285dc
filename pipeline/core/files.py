"""JSON files and folders that stages write."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt
from convline.model_file.strict_json import to_json

from pipeline.core.errors import StageError
from pipeline.core.paths import RESULTS

HEADER = 4096  # bytes, more than those before the values of a .npy
RESULT_DIGITS = 6  # significant, of a number in results/: the last bits of a sum differ by machine


def fresh(folder: Path) -> Path:
    """Empty the folder, or create it, and return it.

    DVC links outputs to its cache, so that writing over an old file would damage the cache.
    """
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def reserve(file: IO[bytes], size: int, start: int | None = None) -> None:
    """Take so many bytes of the disk for a file, from `start` on, or from where it is written.

    A full disk is an OSError with its errno here. numpy's own has none, and in a file that is
    mapped to memory it is a SIGBUS.
    """
    if size:
        os.posix_fallocate(file.fileno(), file.tell() if start is None else start, size)


def save_array(path: Path, array: np.ndarray) -> None:
    """Write a .npy; OSError has its errno where the disk is full."""
    with path.open("wb") as file:
        reserve(file, array.nbytes + HEADER)
        np.save(file, array)
        file.truncate()


def map_array(path: Path, kind: npt.DTypeLike, shape: tuple[int, ...]) -> np.ndarray:
    """Return a new .npy of zeros that is mapped to memory, whose place on the disk is taken."""
    array = np.lib.format.open_memmap(path, "w+", kind, shape)
    with path.open("r+b") as file:
        reserve(file, path.stat().st_size, 0)
    return array


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
