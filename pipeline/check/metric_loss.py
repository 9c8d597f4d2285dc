"""How much of its metric a variant loses against the fp32 file, on the same images."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from pipeline.evaluate.bootstrap import percentile_interval
from pipeline.evaluate.paired import accuracy_difference


@dataclass(frozen=True)
class MetricLoss:
    """The metric of a variant on n images, and what it loses of the fp32 file's."""

    value: float  # of the variant
    lost: float  # fp32's metric less the variant's
    low: float  # the ends of its 95 % interval
    high: float
    agreement: float  # share of images, or pixels, with the same answer as the fp32 file's
    n: int
    counted: bool  # the metric is the share of images that are right, so n says what it can decide

    @property
    def interval(self) -> tuple[float, float, float]:
        return self.lost, self.low, self.high


def counted_loss(fp32: np.ndarray, variant: np.ndarray, same: np.ndarray) -> MetricLoss:
    """Return the loss of the share of images that are right.

    fp32, variant: bool (n,), whether each file is right; same: whether both answer the same.
    """
    both, first = int((fp32 & variant).sum()), int((fp32 & ~variant).sum())
    second, n = int((variant & ~fp32).sum()), len(fp32)
    loss = accuracy_difference(both, first, second, n - both - first - second)
    return MetricLoss(float(variant.mean()), *loss, float(same.mean()), n, counted=True)


Statistic = Callable[[np.ndarray], float]  # of the images with these row numbers


def drawn_loss(fp32: Statistic, variant: Statistic, n: int, agreement: float) -> MetricLoss:
    """Return the loss of a metric in [0, 1] that is not a mean over images, by the bootstrap.

    Each draw takes the same images for both files. Where all draws are equal, as where both files
    answer the same, the bootstrap knows no doubt: the interval is then that of the accuracies of n
    images, of which both files have this share right.
    """
    rows = np.arange(n)
    value, lost = variant(rows), fp32(rows) - variant(rows)
    low, high = percentile_interval(lambda drawn: fp32(drawn) - variant(drawn), n)
    if low == high:
        right = round(value * n)
        _, low, high = accuracy_difference(right, 0, 0, n - right)
    return MetricLoss(value, lost, low, high, agreement, n, counted=False)
