"""Segmentation: the mask of an image, and the probabilities of the classes at every pixel."""

from __future__ import annotations

import numpy as np
import onnx
from convline.metrics.segmentation import VOID, confusions, mean_overlap
from torch import nn

from pipeline.export.graph import export_network
from pipeline.export.image_inputs import golden_inputs as golden_inputs
from pipeline.export.image_inputs import measured_fields as measured_fields
from pipeline.export.image_inputs import random_inputs as random_inputs
from pipeline.export.tasks.classification import document_fields as document_fields
from pipeline.export.tasks.classification import parity_limit as parity_limit

OUTPUT_NAMES = ("masks", "probabilities")
answers = None  # the outputs are


def export(net: nn.Module, x: np.ndarray) -> onnx.ModelProto:
    """Return the checked graph: images to masks (N, H, W) and probabilities (N, K, H, W)."""
    return export_network(net, x, output_names=OUTPUT_NAMES)


def difference(first: list[np.ndarray], second: list[np.ndarray]) -> float:
    """Return the largest difference of probabilities for the same inputs.

    A mask follows from them. Where two classes are equally probable rounding decides it.
    """
    return float(np.abs(first[1] - second[1]).max(initial=0))


def count_correct(outputs: list[np.ndarray], y: np.ndarray) -> float:
    """Return the mean intersection over union of the masks, times their number."""
    masks = outputs[0]
    classes = 1 + int(max(masks.max(), y[y != VOID].max(initial=0)))
    return len(y) * mean_overlap(confusions(masks, y, classes))
