"""Comparison of two models on the same test samples, whose results are therefore paired."""

from __future__ import annotations

import math

import numpy as np
from convline.report.confidence_interval import wilson_interval

from pipeline.evaluate.bootstrap import block_draws


def accuracy_difference(
    both: int, first: int, second: int, neither: int
) -> tuple[float, float, float]:
    """Return accuracy(first) - accuracy(second) and the ends of its 95 % interval, in [-1, 1].

    The arguments count the test images on which both models are right, only the first, only the
    second, and neither. Newcombe 1998, "Improved confidence intervals for the difference between
    binomial proportions based on paired data", Statistics in Medicine 17, method 10: the Wilson
    intervals of the two accuracies, combined with their correlation.
    """
    n = both + first + second + neither
    p, q, difference = (both + first) / n, (both + second) / n, (first - second) / n
    p_low, p_high = wilson_interval(both + first, n)
    q_low, q_high = wilson_interval(both + second, n)
    phi = correlation(both, first, second, neither)
    down, up = (p - p_low, q_high - q), (p_high - p, q - q_low)
    below = down[0] ** 2 - 2 * phi * down[0] * down[1] + down[1] ** 2
    above = up[0] ** 2 - 2 * phi * up[0] * up[1] + up[1] ** 2
    low, high = (end * math.sqrt(max(0.0, square)) for end, square in ((-1, below), (1, above)))
    return difference, difference + low, difference + high


def correlation(both: int, first: int, second: int, neither: int) -> float:
    """Return the phi coefficient of a table of pairs with the continuity correction of method 10.

    It is 0 where a margin of the table is empty.
    """
    n, product = both + first + second + neither, both * neither - first * second
    margins = (both + first) * (second + neither) * (both + second) * (first + neither)
    if margins == 0:
        return 0.0
    corrected = max(product - n / 2, 0) if product > 0 else product
    return corrected / math.sqrt(margins)


def mcnemar_p_value(first: int, second: int) -> float:
    """Return the two-sided p value of McNemar's exact test, 1 for two equal models.

    first, second: on how many test images only the first model is right, and only the second. If
    both are equally accurate, each of these images is as likely to be of the one kind as of the
    other: McNemar 1947, "Note on the sampling error of the difference between correlated
    proportions or percentages", Psychometrika 12, with the binomial distribution itself.
    """
    n = first + second
    log_counts = [
        math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)
        for k in range(min(first, second) + 1)
    ]
    return min(1.0, 2 * math.fsum(math.exp(count - n * math.log(2)) for count in log_counts))


def error_ratios(errors: np.ndarray, block: int) -> np.ndarray:
    """Return ratios (E, E, 3): mean error of row entry / of column entry, and its 95 % interval.

    errors: mean squared errors (E, M) of E models on the same M windows. The intervals are those of
    the bootstrap in blocks of `block` successive windows, which draws the same windows for all
    models. Infinite or NaN where an error that divides is 0.
    """
    means = np.array([errors[:, rows].mean(1) for rows in block_draws(errors.shape[1], block)])
    with np.errstate(divide="ignore", invalid="ignore"):
        measured = errors.mean(1)[:, None] / errors.mean(1)
        drawn = means[:, :, None] / means[:, None, :]  # (draws, E, E)
        low, high = np.quantile(drawn, (0.025, 0.975), axis=0)
    return np.stack([measured, low, high], axis=2)
