"""Verdicts on a forecaster: its best baseline, and the coverage of its intervals."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pipeline.evaluate import metric_catalogue


@dataclass(frozen=True)
class BestBaseline:
    """The baseline with the least error, and this entry's error divided by that baseline's.

    measure: "MASE", or "MSE" where MASE is not defined. ratio: the ratio and the ends of its 95 %
    interval, below 1 where this entry is better; None where stage check could not measure it.
    """

    name: str
    measure: str
    ratio: tuple[float, float, float] | None

    @property
    def verdict(self) -> str:
        """ "better", "worse", or that the interval of the ratio holds 1."""
        if self.ratio is None:
            return "not comparable"
        _, low, high = self.ratio
        return "better" if high < 1 else "worse" if low > 1 else "no clear difference"


def find_best_baseline(metric: dict[str, Any]) -> BestBaseline | None:
    """Return the best baseline of a forecaster's metric, chosen as stage check chooses it.

    None for a classifier.
    """
    if "baselines" not in metric:
        return None
    name, measure = metric_catalogue.find_best_baseline(metric)
    ratio = metric["baselines"][name].get(f"{measure}_ratio")
    return BestBaseline(name, measure.upper(), tuple(ratio) if ratio else None)


def interval_fault(interval: dict[str, float]) -> str | None:
    """Return "too wide" or "too narrow", None where the coverage may be the nominal one.

    The 95 % interval of the measured coverage decides: the nominal coverage must lie in it.
    """
    if interval["low"] > interval["nominal"]:
        return "too wide"
    return "too narrow" if interval["high"] < interval["nominal"] else None


def describe_interval_fault(metric: dict[str, Any]) -> str | None:
    """Return what is wrong with the first prediction interval at fault, the widest first."""
    for interval in metric.get("intervals", []):
        if fault := interval_fault(interval):
            measured, nominal = (f"{100 * interval[key]:.3g} %" for key in ("measured", "nominal"))
            return f"interval {fault}: {measured} of the targets in the {nominal} interval"
    return None
