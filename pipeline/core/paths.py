"""Paths of the line's files, and of a user's below DATA_ROOT (data) or TORCH_HOME (weights)."""

from __future__ import annotations

import os
from pathlib import Path

from pipeline.core.errors import StageError

RESULTS = Path("results")
OUT = Path("out")


def located(path: str, variable: str = "DATA_ROOT") -> Path:
    """Return the path if it exists, else the path below the folder that `variable` names."""
    direct, root = Path(path).expanduser(), os.environ.get(variable)
    return Path(root).expanduser() / path if root and not direct.exists() else direct


def named_root(variable: str) -> str:
    """Return the name of the variable, as errors give it: with a word where it is not set."""
    return variable if os.environ.get(variable) else f"{variable}, which is not set"


def weights_path(file: str) -> Path | None:
    """Return the file of published weights, here or below TORCH_HOME; None for `imagenet`."""
    if file == "imagenet":
        return None
    path = located(file, "TORCH_HOME")
    if not path.is_file():
        cure = "put the state dict there, or leave it out"
        where = f"not here nor below {named_root('TORCH_HOME')}"
        raise StageError(f"weights: {file} is {where}; {cure}")
    return path
