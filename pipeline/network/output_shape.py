"""What every architecture for images is told of its data, and the check of what it gives back."""

from __future__ import annotations

from collections.abc import Container
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pipeline.core.errors import StageError
from pipeline.data.dataset import Data
from pipeline.network.modules import channels_first


def image_options(about: dict[str, Any], keywords: Container[str]) -> dict[str, Any]:
    """Return those of an image architecture's keywords that come from its data.

    about: results/<entry>/data.json; keywords: those that its constructor takes.
    """
    options = {
        "in_channels": 1 if about["input"]["colour"] == "grey" else 3,
        "size": tuple(about["input"]["size"]),
        "classes": len(about.get("labels", [])),
    }
    return {key: value for key, value in options.items() if key in keywords}


def statistics(data: Data) -> tuple[Tensor, Tensor]:
    """Return copies of the data's mean and scale."""
    return torch.from_numpy(np.array(data.mean)), torch.from_numpy(np.array(data.scale))


def example_image(data: Data) -> Tensor:
    """Return one image uint8 (1, C, H, W)."""
    return channels_first(torch.from_numpy(np.array(data.example())))


def require_shape(output: Any, expected: tuple[int, ...], what: str, x: Tensor, arch: str) -> None:
    """Raise StageError where `output` for one input x is no tensor of shape (1, *expected)."""
    if isinstance(output, Tensor) and output.shape == (1, *expected):
        return
    got = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
    needed = f"expected {what} of shape {(1, *expected)} for one input {tuple(x.shape)}"
    raise StageError(f"models/{arch}.py: {needed}, got {got}; change what forward returns")
