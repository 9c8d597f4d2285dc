"""Whether a classifier's probabilities can be trusted, and what a threshold on them does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from convline.report.confidence_interval import wilson_interval

from pipeline.evaluate import calibration
from pipeline.evaluate.metric_catalogue import CATALOGUE
from pipeline.plots.classifier import draw_confidence, draw_coverage, draw_reliability

NINE_IN_TEN = (0.85, 0.95)
FEWEST = 10  # predictions of which a share is worth a sentence, or a point of a curve
CURVE_POINTS = 500


def confidence_context(
    truth: np.ndarray, probabilities: np.ndarray, name: str, img: Path
) -> dict[str, Any]:
    """Return charts, sentences and a table of thresholds for labels (n,), probabilities (n, K)."""
    confidence, right = calibration.confidence_and_right(probabilities, truth)
    bins = calibration.number_of_bins(len(truth))
    error = calibration.calibration_error(confidence, right, bins)
    by_chance = calibration.calibration_error_by_chance(confidence, bins)
    measured = calibration.reliability_bins(confidence, right, bins)
    rows = [calibration.accuracy_above(confidence, right, t) for t in calibration.THRESHOLDS]
    curve = coverage_curve(confidence, right)
    return {
        "error": CATALOGUE["calibration_error"].text(error),
        "by_chance": CATALOGUE["calibration_error"].text(by_chance),
        "bins": bins,
        "direction": describe_direction(confidence, right, error > by_chance),
        "nine": describe_nine_in_ten(confidence, right),
        "thresholds": [threshold_row(row, len(truth)) for row in rows],
        "reliability": draw_reliability(measured, error, img / f"{name}.reliability.png"),
        "histogram": draw_confidence(confidence, right, img / f"{name}.confidence.png"),
        "coverage": draw_coverage(curve, rows, img / f"{name}.coverage.png"),
    }


def describe_nine_in_ten(confidence: np.ndarray, right: np.ndarray) -> str:
    """Return a sentence that answers: is a prediction of probability .9 right nine times in ten?"""
    low, high = NINE_IN_TEN
    inside = right[(confidence >= low) & (confidence < high)]
    between = "probability between .85 and .95"
    if not len(inside):
        return f"No prediction has a {between}."
    found = calibration.share_right(inside)
    are = "is" if found["right"] == 1 else "are"
    predictions = "1 prediction" if found["n"] == 1 else f"{found['n']:,} predictions"
    text = f"Of {predictions} with a {between}, {found['right']:,} {are} right"
    shares = (100 * found[key] for key in ("accuracy", "low", "high"))
    text += " ({:.0f}\u00a0% [{:.0f}, {:.0f}])".format(*shares)
    return text + ("; these are too few to judge." if found["n"] < FEWEST else ".")


def describe_direction(confidence: np.ndarray, right: np.ndarray, beyond_chance: bool) -> str:
    """Return a sentence that compares the mean probability with the accuracy."""
    mean, accuracy = float(confidence.mean()), float(right.mean())
    means = f"mean probability {mean:.4f}, accuracy {accuracy:.4f}"
    if not beyond_chance:
        return f"{len(right):,} test images show no fault of the probabilities ({means})."
    low, high = wilson_interval(int(right.sum()), len(right))
    if low <= mean <= high:
        return f"The probabilities are off in places, but not on average ({means})."
    direction = "high" if mean > accuracy else "low"
    return f"The probabilities are too {direction} on average ({means})."


def coverage_curve(confidence: np.ndarray, right: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return (share sent to a person, accuracy of the rest) for every threshold, (points,) each.

    The least confident predictions are sent first; the last FEWEST of the rest are left out.
    """
    order = np.argsort(confidence, kind="stable")
    n, first = len(right), np.flatnonzero(np.diff(confidence[order], prepend=-1))
    first = first[first <= max(0, n - FEWEST)]  # rows that begin a new confidence
    if len(first) > CURVE_POINTS:
        first = first[np.linspace(0, len(first) - 1, CURVE_POINTS).astype(int)]
    wrong_before = np.concatenate([[0], np.cumsum(~right[order])])
    return first / n, 1 - (wrong_before[n] - wrong_before[first]) / (n - first)


def threshold_row(row: dict[str, Any], n: int) -> list[str]:
    """Return threshold, share sent to a person, the rest's accuracy with its interval, and its
    mistakes.
    """
    rest = "nothing is left"
    if row["n"]:
        rest = CATALOGUE["accuracy"].interval_text(row["accuracy"], row["low"], row["high"])
    sent = f"{100 * row['sent']:.1f}\u00a0% ({n - row['n']:,})"
    left = f"{row['n'] - row['right']:,} of {row['n']:,}"
    return [f"{row['threshold']:g}".lstrip("0"), sent, rest, left]
