"""95 % intervals of a mean or of any statistic by the bootstrap."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from convline.report.confidence_interval import wilson_interval

DRAWS = 1000


def mean_interval(values: np.ndarray, block: int = 1) -> tuple[float, float]:
    """Return the 95 % bootstrap interval of the mean of `values` (n,), drawn in blocks of rows."""
    return percentile_interval(lambda rows: float(values[rows].mean()), len(values), block)


def percentile_interval(
    statistic: Callable[[np.ndarray], float], n: int, block: int = 1
) -> tuple[float, float]:
    """Return the 95 % bootstrap interval of `statistic(rows)`, a function of row numbers (n,).

    Rows are drawn with a fixed seed, in blocks of successive rows; after the last row follows the
    first: Politis & Romano 1992, "A circular block-resampling procedure for stationary data".
    Windows that overlap are not independent of each other, so a block should be as long as the
    overlap.
    """
    statistics = [statistic(rows) for rows in block_draws(n, block)]
    return float(np.quantile(statistics, 0.025)), float(np.quantile(statistics, 0.975))


def proportion_interval(statistic: Callable[[np.ndarray], float], n: int) -> tuple[float, float]:
    """Return `percentile_interval` of a statistic in [0, 1] over n samples.

    Where all draws are equal, as of samples that are all right, the bootstrap knows no doubt; it is
    Wilson's interval then, of this share of n samples.
    """
    low, high = percentile_interval(statistic, n)
    return (low, high) if low < high else wilson_interval(round(low * n), n)


def block_draws(n: int, block: int) -> Iterator[np.ndarray]:
    """Yield the row numbers (n,) of each draw of the bootstrap, the same ones at each call."""
    rng, offsets = np.random.default_rng(0), np.arange(block)
    for _ in range(DRAWS):
        starts = rng.integers(0, n, -(-n // block))
        yield ((starts[:, None] + offsets) % n).ravel()[:n]


def block_length(windows: int, steps: int, stride: int) -> int:
    """Return how many successive windows make a block of the bootstrap.

    As many as share a target, at least the cube root of `windows`, at most a third of them. The
    cube root is the rate of Hall, Horowitz & Jing 1995, "On blocking rules for the bootstrap with
    dependent data".
    """
    sharing = -(-steps // stride)
    cube_root: int = round(windows ** (1 / 3))
    return max(1, min(max(sharing, cube_root), windows // 3))
