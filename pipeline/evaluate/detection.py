"""Mean average precision of an entry's test split, and what it is worth."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
from convline.metrics.detection import (
    ALL,
    HALF,
    ClassFinds,
    Finds,
    finds_by_class,
    mean_curve,
    precision_curve,
)

from pipeline.evaluate.bootstrap import proportion_interval


def measure_detection(
    finds: Finds, torch_finds: Finds, y: np.ndarray, labels: Sequence[str]
) -> dict[str, Any]:
    """Return mean average precision of the finds, and what it is worth.

    `value` is at an intersection over union of .5, `map` the mean over .5, .55, ... .95; `torch`
    the value of the same network in PyTorch; `class_map50` that of each class, None without a true
    box; `boxes` the number of true boxes; `baseline` the value of a detector that answers the mean
    box of the most frequent class for every image.
    """
    matched = finds_by_class(finds, y, len(labels))
    low, high = proportion_interval(partial(drawn_precision, matched), len(y))
    curves = [precision_curve(found) for found in matched]
    baseline, label = mean_box(y)
    return {
        "name": "map50",
        "value": float(mean_curve(matched).mean()),
        "low": low,
        "high": high,
        "n": len(y),
        "torch": half_precision(torch_finds, y, len(labels)),
        "map": float(mean_curve(matched, ALL).mean()),
        "class_map50": [None if curve is None else float(curve.mean()) for curve in curves],
        "boxes": int((y[..., 4] >= 0).sum()),
        "baseline": {
            "name": f"always answering the mean box of {labels[label]!r}, the most frequent class",
            "value": half_precision(baseline, y, len(labels)),
        },
    }


def half_precision(finds: Finds, y: np.ndarray, classes: int) -> float:
    """Return mean average precision at an overlap of .5."""
    return float(mean_curve(finds_by_class(finds, y, classes, HALF)).mean())


def drawn_precision(matched: list[ClassFinds], rows: np.ndarray) -> float:
    """Return mean average precision at an overlap of .5 of the images `rows`, drawn from all."""
    return float(mean_curve(matched, rows=rows).mean())


def mean_box(y: np.ndarray) -> tuple[Finds, int]:
    """Return one find an image, the mean box of the most frequent class of y, and that class."""
    truth = y[y[..., 4] >= 0]
    label = int(np.bincount(truth[:, 4].astype(np.int64)).argmax())
    box = truth[truth[:, 4] == label, :4].mean(0)
    n = len(y)
    boxes, labels = np.broadcast_to(box, (n, 1, 4)), np.full((n, 1), label)
    return (boxes, labels, np.ones((n, 1)), np.ones(n, np.int64)), label
