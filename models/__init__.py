"""The networks of the notes: one file per architecture, found by its name. Imports torch and nothing of ours.

`build("lenet5", ...)` imports models/lenet5.py and calls its `Model`. A file is an architecture when its last line
binds `Model`; it states two more things, `PAPER` (who published it) and `REFERENCE`, networks whose parameter count
is known:

    REFERENCE = {
        "fcNN 784-10": {                 # the name that tables print
            "options": {...},            # every keyword of `Model`
            "input": (1, 28, 28),        # one sample: (C, H, W) of an image, (T, D) of a series
            "trainable": 7_850,          # parameters that training changes
            "fixed": 0,                  # further numbers of the state: moving statistics, fixed codes
            "source": "FEATURES.md A01", # where the counts come from
        },
    }

    python -m models            a table of all architectures
    python -m models lenet5     the layers of one, with shapes and parameter counts
"""

from __future__ import annotations

import inspect
import re
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from types import ModuleType

    from torch import nn


def names() -> list[str]:
    """Return the architectures, sorted: the files of this folder that bind `Model`. Does not import torch."""
    files = Path(__file__).parent.glob("*.py")
    return sorted(
        file.stem
        for file in files
        if re.search(r"^Model = \w+", file.read_text(encoding="utf-8"), re.M)
    )


def build(arch: str, **options: Any) -> nn.Module:
    """Return `Model(**options)` of models/<arch>.py, with fresh weights from torch's global random generator."""
    return _file(arch).Model(**options)


def takes(arch: str) -> set[str]:
    """Return the keywords of `Model` in models/<arch>.py."""
    return {*inspect.signature(_file(arch).Model).parameters}


def references(arch: str) -> dict[str, dict[str, Any]]:
    """Return the `REFERENCE` of models/<arch>.py, as the docstring above describes it."""
    return _file(arch).REFERENCE


def paper(arch: str) -> str:
    """Return who published the architecture, as a table prints it: "LeCun et al. 1998"."""
    return _file(arch).PAPER


def published(arch: str, state: dict[str, Any] | None, options: dict[str, Any]) -> dict[str, Any]:
    """Return published weights under the network's own keys: `state` as somebody stored it; None: torchvision's own."""
    file = _file(arch)
    if state is None and not hasattr(file, "torchvision_weights"):
        raise ValueError(
            f"models/{arch}.py loads no weights of torchvision by itself; name a file, or use arch: zoo"
        )
    state = file.torchvision_weights(**options) if state is None else state
    return file.weights_from(state) if hasattr(file, "weights_from") else state


def _file(arch: str) -> ModuleType:
    if arch not in names():
        raise ValueError(f"models: unknown architecture {arch!r}; models/ has {', '.join(names())}")
    return import_module(f"models.{arch}")
