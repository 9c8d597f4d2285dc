"""Segmentation: mean intersection over union of the masks."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
from convline.metrics.segmentation import confusions, mean_overlap

from pipeline.check.differences import require_shapes, row_differences
from pipeline.check.metric_loss import MetricLoss, drawn_loss
from pipeline.check.predictions import Model, Outputs
from pipeline.check.predictions import answers as answers
from pipeline.check.predictions import record as record
from pipeline.data.dataset import Data
from pipeline.evaluate.metrics import compare_with_constant
from pipeline.evaluate.segmentation import measure_segmentation

BEYOND = "{count} pixels have another class than torch's: two classes are equally probable there"


def compare(
    model: Model, outputs: Outputs, expected: Outputs, count: int, close: float
) -> dict[str, Any]:
    """Return the differences of masks and probabilities; in `beyond` the pixels of another class.

    A pixel of another class differs by half the margin between torch's probabilities of the two
    classes: probabilities that each differ by less can not exchange them.
    """
    require_shapes(outputs, expected, count)
    masks, probabilities = outputs
    torch_masks, torch_probabilities = (one[:count] for one in expected)
    other, torch_class = masks[:, None].astype(np.int64), torch_masks[:, None].astype(np.int64)
    margins = np.take_along_axis(torch_probabilities, torch_class, 1)
    margins = (margins - np.take_along_axis(torch_probabilities, other, 1))[:, 0] / 2
    both = [probabilities, margins], [torch_probabilities, np.zeros_like(margins)]
    facts, _ = row_differences(*both, count)
    same = masks == torch_masks
    agreement = float(same.mean()) if count else 1.0
    return facts | {"beyond": int((~same).sum()), "top1_agreement": agreement}


def measure(
    found: Outputs, torch: Outputs, source: Data
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Return mean IoU and its worth, and {"masks", "y"}, uint8 (N, H, W)."""
    y = np.asarray(source.y["test"])
    metric = measure_segmentation(found[0], torch[0], y, source.about["labels"])
    return metric, {"masks": found[0], "y": y}


def compare_with_baseline(metric: dict[str, Any], source: Data) -> dict[str, Any]:
    """Return how mean IoU compares with that of a mask of the largest class."""
    return compare_with_constant(metric)


def lose(fp32: Outputs, found: Outputs, source: Data) -> MetricLoss:
    """Return the mean IoU that the variant loses, and the share of pixels of the same class."""
    y, classes = np.asarray(source.y["test"]), len(source.about["labels"])
    fp32_counts, counts = (confusions(one[0], y, classes) for one in (fp32, found))
    agreement = float((fp32[0] == found[0]).mean())
    overlaps = partial(mean_overlap, fp32_counts), partial(mean_overlap, counts)
    return drawn_loss(*overlaps, len(y), agreement)
