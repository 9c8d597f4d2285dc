"""What the tasks about images have in common in stage export."""

from __future__ import annotations

from typing import Any

import numpy as np
from torch import nn

from pipeline.data.dataset import Data


def random_inputs(source: Data, seed: int, count: int) -> np.ndarray:
    """Return images of uniform noise, uint8 (count, H, W, C)."""
    shape = count, *source.served("test").shape[1:]
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def golden_inputs(about: dict[str, Any], x: np.ndarray) -> dict[str, np.ndarray]:
    """Return the images alone."""
    return {"input": x}


def measured_fields(net: nn.Module, source: Data) -> dict[str, Any]:
    """Return no fields: the document of an image network follows from its data."""
    return {}
