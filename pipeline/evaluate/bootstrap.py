"""Confidence intervals: bootstrap over samples or blocks of windows, and of paired differences."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np


def paired_accuracy_difference(
    first: np.ndarray, second: np.ndarray, z: float = 1.96
) -> tuple[float, float, float]:
    """Return the difference of two accuracies on the same images (right or not, (n,) each), and its 95 % interval.

    Wald's for matched pairs (Fleiss 1981, "Statistical Methods for Rates and Proportions", section 8.2).
    """
    n, won, lost = len(first), int((first & ~second).sum()), int((second & ~first).sum())
    gap = (won - lost) / n
    half = z * np.sqrt(max(won + lost - (won - lost) ** 2 / n, 0.0)) / n
    return gap, float(gap - half), float(gap + half)


def mean_interval(values: np.ndarray, draws: int = 1000, block: int = 1) -> tuple[float, float]:
    """Return the 95 % percentile interval of the mean of `values` (n,), resampled with a fixed seed."""
    return percentile_interval(lambda rows: float(values[rows].mean()), len(values), draws, block)


def percentile_interval(
    measure: Callable[[np.ndarray], float], n: int, draws: int = 1000, block: int = 1
) -> tuple[float, float]:
    """Return the 95 % percentile interval of a measure of row numbers (n,), drawn in blocks of neighbours.

    Politis & Romano 1992, "A circular block-resampling procedure for stationary data": what follows the last row is
    the first. Windows that overlap are not independent, so a block is as long as an overlap lasts.
    """
    rng, within = np.random.default_rng(0), np.arange(block)
    found = []
    for _ in range(draws):
        first = rng.integers(0, n, -(-n // block))
        found.append(measure(((first[:, None] + within) % n).ravel()[:n]))
    return float(np.quantile(found, 0.025)), float(np.quantile(found, 0.975))


def block_length(windows: int, steps: int, stride: int) -> int:
    """Return the length of a block: windows that share a target, at least the cube root of n, at most a third of it.

    The root is the rate of Hall, Horowitz & Jing 1995, "On blocking rules for the bootstrap with dependent data".
    """
    return max(1, min(max(-(-steps // stride), round(windows ** (1 / 3))), windows // 3))
