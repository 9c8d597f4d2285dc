"""Classification: accuracy, of which the images that are right on both sides make the interval."""

from __future__ import annotations

from typing import Any

import numpy as np

from pipeline.check.differences import row_differences
from pipeline.check.metric_loss import MetricLoss, counted_loss
from pipeline.check.predictions import Model, Outputs
from pipeline.check.predictions import answers as answers
from pipeline.check.predictions import record as record
from pipeline.data.dataset import Data
from pipeline.evaluate import metrics

BEYOND = "{count} rows differ from torch by more than {atol:g}: a feature on the edge of a split"


def compare(
    model: Model, outputs: Outputs, expected: Outputs, count: int, close: float
) -> dict[str, Any]:
    """Return the differences of probabilities, the share of equal top classes, and in `beyond` the
    rows that differ by more than `close`.
    """
    facts, worst = row_differences(outputs, expected, count)
    same = outputs[0].argmax(1) == expected[0][:count].argmax(1)
    beyond = int((worst > close).sum())
    return facts | {"beyond": beyond, "top1_agreement": float(same.mean()) if count else 1.0}


def measure(
    found: Outputs, torch: Outputs, source: Data
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Return the accuracy of probabilities, and {"probabilities", "y"}."""
    y = np.asarray(source.y["test"])
    return metrics.measure_classification(found[0], torch[0], y), {
        "probabilities": found[0],
        "y": y,
    }


def compare_with_baseline(metric: dict[str, Any], source: Data) -> dict[str, Any]:
    """Return how the accuracy compares with that of the largest class."""
    return metrics.compare_with_largest_class(metric, source.about["labels"])


def lose(fp32: Outputs, found: Outputs, source: Data) -> MetricLoss:
    """Return the accuracy that the variant loses, and the share of images of the same label."""
    y, predicted, expected = np.asarray(source.y["test"]), found[0].argmax(1), fp32[0].argmax(1)
    return counted_loss(expected == y, predicted == y, predicted == expected)
