"""Classification: probabilities of the labels of an image."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from torch import nn

from pipeline.export.graph import difference as difference
from pipeline.export.graph import export_network
from pipeline.export.image_inputs import golden_inputs as golden_inputs
from pipeline.export.image_inputs import measured_fields as measured_fields
from pipeline.export.image_inputs import random_inputs as random_inputs

OUTPUT_NAMES = ("probabilities",)
answers = None  # the outputs are


def export(net: nn.Module, x: np.ndarray) -> onnx.ModelProto:
    """Return the checked graph: images (N, H, W, C) to probabilities (N, K)."""
    return export_network(net, x, output_names=OUTPUT_NAMES)


def parity_limit(outputs: list[np.ndarray], relative: float) -> float:
    """Return `relative` as it is: probabilities are at most 1."""
    return relative


def document_fields(about: dict[str, Any]) -> dict[str, Any]:
    """Return the labels."""
    return {"labels": about["labels"]}


def count_correct(outputs: list[np.ndarray], y: np.ndarray) -> float:
    """Return how many images have their label as the most probable one."""
    return int((outputs[0].argmax(1) == y).sum())
