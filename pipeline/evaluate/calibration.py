"""Calibration of a classifier: whether predictions of probability .9 are right nine times in ten.

The confidence of a prediction is the probability of the class that is predicted, and a prediction
is right where that class is the label. Calibration compares the two.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from convline.report.confidence_interval import wilson_interval

BINS = ((300, 15), (100, 10), (0, 5))  # test images from which so many bins are used
DRAWS = 1000
THRESHOLDS = (0.5, 0.8, 0.9, 0.95, 0.99)


def confidence_and_right(probabilities: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the confidence (n,) in [0, 1] of each prediction, and whether it is right, bool (n,).

    probabilities (n, K), labels y (n,).
    """
    confidence = np.asarray(probabilities.max(1), np.float64).clip(0, 1)
    return confidence, probabilities.argmax(1) == y


def number_of_bins(n: int) -> int:
    """Return the number of bins for n predictions: 15 as in Guo et al. 2017, fewer below 300."""
    return next(bins for least, bins in BINS if n >= least)


def bin_numbers(confidence: np.ndarray, bins: int) -> np.ndarray:
    """Return the bin (n,) of each confidence among `bins` intervals (a, b] of equal width."""
    return np.searchsorted(np.linspace(0, 1, bins + 1)[1:-1], confidence, side="left")


def calibration_error(confidence: np.ndarray, right: np.ndarray, bins: int) -> float:
    """Return the expected calibration error, in [0, 1], of n predictions.

    Guo et al. 2017, "On Calibration of Modern Neural Networks", arXiv:1706.04599, eq. 3: the mean
    over bins of |accuracy - mean confidence|, weighted by the predictions in each bin.
    """
    return absolute_gaps(bin_numbers(confidence, bins), right - confidence)


def absolute_gaps(numbers: np.ndarray, gaps: np.ndarray) -> float:
    """Return the sum over bins of |sum of `gaps` (n,) in the bin| / n; `numbers` (n,): the bins."""
    return float(np.abs(np.bincount(numbers, gaps)).sum() / len(gaps))


def calibration_error_by_chance(confidence: np.ndarray, bins: int) -> float:
    """Return the 95 % quantile of the calibration error if every probability were exact.

    With few predictions the error is above 0 by chance alone. Each draw makes a prediction right
    with its own probability: consistency resampling of Broecker & Smith 2007, "Increasing the
    Reliability of Reliability Diagrams", Weather and Forecasting 22.
    """
    rng, numbers = np.random.default_rng(0), bin_numbers(confidence, bins)
    draws = (rng.random(len(confidence)) < confidence for _ in range(DRAWS))
    return float(np.quantile([absolute_gaps(numbers, draw - confidence) for draw in draws], 0.95))


def measure_calibration(probabilities: np.ndarray, y: np.ndarray) -> dict[str, Any]:
    """Return `calibration_error`, in [0, 1], of probabilities (n, K) for labels y (n,), and the
    number of bins.
    """
    confidence, right = confidence_and_right(probabilities, y)
    bins = number_of_bins(len(y))
    return {
        "calibration_error": calibration_error(confidence, right, bins),
        "calibration_bins": bins,
    }


def reliability_bins(confidence: np.ndarray, right: np.ndarray, bins: int) -> list[dict[str, Any]]:
    """Return each bin that holds predictions: its ends `from` and `to`, `n`, the mean `confidence`,
    and the `accuracy` with its 95 % interval from `low` to `high`.
    """
    numbers, edges, rows = bin_numbers(confidence, bins), np.linspace(0, 1, bins + 1), []
    for k in np.unique(numbers):
        inside = numbers == k
        mean = float(confidence[inside].mean())
        ends = {"from": float(edges[k]), "to": float(edges[k + 1])}
        rows.append({**ends, "confidence": mean, **share_right(right[inside])})
    return rows


def share_right(right: np.ndarray) -> dict[str, Any]:
    """Return `n`, the number `right`, `accuracy`, and its 95 % interval from `low` to `high`.

    The last three are None where n is 0.
    """
    n, correct = len(right), int(right.sum())
    if not n:
        return {"n": 0, "right": 0, "accuracy": None, "low": None, "high": None}
    low, high = wilson_interval(correct, n)
    return {"n": n, "right": correct, "accuracy": correct / n, "low": low, "high": high}


def accuracy_above(confidence: np.ndarray, right: np.ndarray, threshold: float) -> dict[str, Any]:
    """Return `share_right` of the predictions whose confidence is at least `threshold`, and `sent`,
    the share of the others, which a person would have to look at.
    """
    kept = confidence >= threshold
    return {"threshold": threshold, "sent": float(1 - kept.mean()), **share_right(right[kept])}
