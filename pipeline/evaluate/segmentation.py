"""Mean intersection over union of an entry's test split, and what it is worth."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
from convline.metrics.segmentation import (
    class_overlaps,
    confusions,
    mean_overlap,
    pixel_accuracies,
)

from pipeline.evaluate.bootstrap import proportion_interval


def measure_segmentation(
    masks: np.ndarray, torch_masks: np.ndarray, y: np.ndarray, labels: Sequence[str]
) -> dict[str, Any]:
    """Return the mean intersection over union of masks uint8 (N, H, W), and what it is worth.

    `torch` is the value of the same network in PyTorch; `pixel_accuracy` the share of pixels that
    are right, `class_accuracy` the mean of this share over classes; `class_iou` the value of each
    class, None where it does not occur; `baseline` the value of a mask of the largest class alone.
    """
    classes = len(labels)
    counts = confusions(masks, y, classes)
    confusion = counts.sum(0)
    low, high = proportion_interval(partial(mean_overlap, counts), len(y))
    pixel_accuracy, class_accuracy = pixel_accuracies(confusion)
    true = confusion.sum(1)
    largest = int(true.argmax())
    alone = np.zeros_like(confusion)
    alone[:, largest] = true
    return {
        "name": "mean_iou",
        "value": mean_overlap(counts),
        "low": low,
        "high": high,
        "n": len(y),
        "torch": mean_overlap(confusions(torch_masks, y, classes)),
        "pixel_accuracy": pixel_accuracy,
        "class_accuracy": class_accuracy,
        "class_iou": [None if np.isnan(one) else float(one) for one in class_overlaps(confusion)],
        "baseline": {
            "name": f"always answering {labels[largest]!r}, the largest class",
            "value": mean_overlap(alone[None]),
        },
    }
