"""Network architectures, one file each, found by name. Imports torch and nothing of ours.

`build("lenet5", ...)` imports models/lenet5.py and calls its `Model`. A file is an architecture
when its last line binds `Model`. The first two paragraphs of its docstring say what it is and cite
the paper. The keywords of `Model` that the data do not give have defaults: the paper's options, so
that a recipe needs `arch` and `data` alone. Two constants may follow: `PAPER` (its authors and the
year, for tables) and `REFERENCE`, networks whose parameter count is known:

    REFERENCE = {
        "fcNN 784-10": {                 # the name that tables print
            "options": {...},            # keywords of `Model` without a default, and others
            "input": (1, 28, 28),        # one sample: an image (C, H, W) or a series (T, D)
            "trainable": 7_850,          # parameters that training changes
            "fixed": 0,                  # other numbers: moving statistics, fixed codes
            "source": "784 * 10 + 10", # how the counts were obtained
        },
    }

A third constant, `TASK`, says what the network is for where its keywords do not: "detection",
"segmentation" or "captioning". With a function `start_weights(state)`, `needs:` may name
the trained network of another architecture, of which it gives the weights to begin with.

    python -m models            a table of all architectures
    python -m models lenet5     the options of one, and its layers with shapes and parameter counts
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
    """Return the architectures, sorted: the files of this folder that bind `Model`. Does not import
    torch.
    """
    files = Path(__file__).parent.glob("*.py")
    return sorted(
        file.stem
        for file in files
        if re.search(r"^Model = \w+", file.read_text(encoding="utf-8"), re.M)
    )


def build(arch: str, **options: Any) -> nn.Module:
    """Return `Model(**options)` of models/<arch>.py, with fresh weights from torch's global random
    generator.
    """
    network: nn.Module = _file(arch).Model(**options)
    return network


def takes(arch: str) -> dict[str, inspect.Parameter]:
    """Return the keywords of `Model` in models/<arch>.py, with their types and defaults."""
    return dict(inspect.signature(_file(arch).Model).parameters)


def references(arch: str) -> dict[str, dict[str, Any]]:
    """Return the `REFERENCE` of models/<arch>.py; the module docstring describes it."""
    networks: dict[str, dict[str, Any]] = getattr(_file(arch), "REFERENCE", {})
    return networks


def paper(arch: str) -> str:
    """Return who published the architecture, as a table prints it: "LeCun et al. 1998"."""
    return str(getattr(_file(arch), "PAPER", ""))


def description(arch: str) -> str:
    """Return the first two paragraphs of the docstring: what the network is, and its paper."""
    return "\n\n".join(inspect.cleandoc(_file(arch).__doc__ or "").split("\n\n")[:2])


def published(arch: str, state: dict[str, Any] | None, options: dict[str, Any]) -> dict[str, Any]:
    """Return published weights under the network's own keys.

    `state`: a state dict as it was published; None takes the weights that torchvision publishes.
    """
    file = _file(arch)
    if state is None and not hasattr(file, "torchvision_weights"):
        cure = "name a file, or use arch: zoo"
        raise ValueError(f"models/{arch}.py loads no weights of torchvision by itself; {cure}")
    published: dict[str, Any] = file.torchvision_weights(**options) if state is None else state
    return dict(file.weights_from(published)) if hasattr(file, "weights_from") else published


def start_weights(arch: str, state: dict[str, Any]) -> dict[str, Any] | None:
    """Return the weights that an architecture begins with, under its own keys, from those of
    another one; None if it takes none.
    """
    file = _file(arch)
    return dict(file.start_weights(state)) if hasattr(file, "start_weights") else None


def start_cure(arch: str) -> str:
    """Return the cure where the network in `needs:` is of another number of classes."""
    return str(getattr(_file(arch), "START_CURE", "add `head: {kind: best}`"))


def _file(arch: str) -> ModuleType:
    if arch not in names():
        raise ValueError(f"models: unknown architecture {arch!r}; models/ has {', '.join(names())}")
    return import_module(f"models.{arch}")
