"""How far arrays are from the expected ones, the largest and mean difference and the worst row."""

from __future__ import annotations

from typing import Any

import numpy as np

from pipeline.check.predictions import Model, Outputs
from pipeline.core.errors import StageError


def require_shapes(outputs: list[np.ndarray], expected: list[np.ndarray], count: int) -> None:
    """Raise StageError unless the outputs have the expected shapes, for `count` rows."""
    for got, torch_output in zip(outputs, expected, strict=True):
        if got.shape != (shape := (count, *torch_output.shape[1:])):
            raise StageError(
                f"check: expected outputs of shape {shape}, got {got.shape}; export again"
            )


def row_differences(
    outputs: list[np.ndarray], expected: list[np.ndarray], count: int
) -> tuple[dict[str, Any], np.ndarray]:
    """Return how the outputs for the first `count` rows differ, and the difference of each (N,).

    The largest difference, also as a share of the largest value, the mean one, and the worst row.
    Differences are taken over finite values, so that JSON can hold them; `finite` tells whether all
    are. Raises StageError where shapes differ.
    """
    require_shapes(outputs, expected, count)
    if not count:  # shapes are all there is to compare
        facts: dict[str, Any] = {
            "finite": True, "max_difference": 0.0, "relative": 0.0, "mean_difference": 0.0,
            "worst_row": 0,
        }  # fmt: skip
        return facts, np.zeros(0)
    gaps = [
        np.abs(got.astype(np.float64) - torch_output[:count]).reshape(count, -1)
        for got, torch_output in zip(outputs, expected, strict=True)
    ]
    finite = all(np.isfinite(gap).all() for gap in gaps)
    worst = np.max([gap.max(1) for gap in gaps], axis=0)  # of each row
    largest = float(np.where(np.isfinite(worst), worst, 0).max())
    scale = max(float(np.abs(torch_output[:count]).max()) for torch_output in expected) or 1.0
    means = [gap[np.isfinite(gap)].mean() if finite else 0.0 for gap in gaps]
    return {
        "finite": finite,
        "max_difference": largest,
        "relative": largest / scale,
        "mean_difference": float(np.mean(means)),
        "worst_row": int(np.where(np.isfinite(worst), worst, np.inf).argmax()),
    }, worst


def compare(
    model: Model, outputs: Outputs, expected: Outputs, count: int, close: float
) -> dict[str, Any]:
    """Return how the outputs differ, for tasks whose outputs are compared number by number."""
    return row_differences(outputs, expected, count)[0]
