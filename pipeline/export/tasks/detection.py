"""Detection: boxes, labels and scores of finds, and their number."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import torch
from convline.images.detector import compare_finds
from convline.metrics.detection import SHOWN, average_precision
from onnx import TensorProto, helper
from onnxscript import opset20
from torch import nn

import models.boxes  # noqa: F401, registers the operator convline::nms_mask
from pipeline.data.dataset import Data
from pipeline.export.graph import export_network
from pipeline.export.image_inputs import golden_inputs as golden_inputs
from pipeline.export.image_inputs import random_inputs as random_inputs

OUTPUT_NAMES = ("boxes", "labels", "scores", "count")
answers = None  # the outputs are


op: Any = opset20  # whose types know no Python numbers, which it takes


def nms_mask(boxes: Any, scores: Any, overlap: float, least: float) -> Any:
    """Return the nodes of convline::nms_mask: which boxes of each row are kept, bool (M, R).

    NonMaxSuppression lists the boxes that are kept, (kept, 3) of row, class (one, 0) and place.
    """
    every = op.Constant(value_int=np.iinfo(np.int64).max)
    kept = op.NonMaxSuppression(boxes, op.Unsqueeze(scores, [1]), every, overlap, least)
    places = op.Gather(kept, op.Constant(value_ints=[0, 2]), axis=1)
    false, true = (helper.make_tensor("", TensorProto.BOOL, [1], [value]) for value in (0, 1))
    mask = op.ConstantOfShape(op.Shape(scores), value=false)
    return op.ScatterND(mask, places, op.ConstantOfShape(op.Shape(places, end=1), value=true))


def export(net: nn.Module, x: np.ndarray) -> onnx.ModelProto:
    """Return the checked graph: images (N, H, W, C) to boxes, labels, scores and count."""
    translations = {torch.ops.convline.nms_mask.default: nms_mask}
    return export_network(net, x, output_names=OUTPUT_NAMES, translations=translations)


def parity_limit(outputs: list[np.ndarray], relative: float) -> float:
    """Return `relative` as it is: scores are at most 1, and boxes count as shares of the image."""
    return relative


def difference(first: list[np.ndarray], second: list[np.ndarray]) -> float:
    """Return the largest difference of scores, and of boxes as a share of the longer side.

    Of finds that are shown; 1 where one of them is in one of the two alone. No box ends beyond the
    longer side, so that the largest end stands for it.
    """
    longer_side = max(int(finds[0].max(initial=1)) for finds in (first, second))
    return compare_finds(tuple(first), tuple(second), longer_side, SHOWN).difference


def document_fields(about: dict[str, Any]) -> dict[str, Any]:
    """Return the labels."""
    return {"labels": about["labels"]}


def measured_fields(net: Any, source: Data) -> dict[str, Any]:
    """Return how many finds an image has at most, and the least score of those that are shown."""
    return {"detection": {"most": net.net.most, "min_score": SHOWN}}


def count_correct(outputs: list[np.ndarray], y: np.ndarray) -> float:
    """Return mean average precision at an overlap of .5, times the number of images."""
    classes = int(y[..., 4].max(initial=0)) + 1
    return average_precision(outputs, y, classes)[0] * len(y)
