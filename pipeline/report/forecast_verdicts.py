"""Verdicts on a forecaster: its best baseline, and the coverage of its intervals."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pipeline.evaluate import metric_catalogue
from pipeline.plots.style import format_number


@dataclass(frozen=True)
class BaselineRatio:
    """A baseline, and this entry's error divided by that baseline's.

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

    @property
    def sentence(self) -> str:
        """The ratio in words: "1.04 [0.94, 1.16] times the MASE of ARIMA: no clear difference"."""
        if self.ratio is None:
            why = f"whose {self.measure} is 0 in too many windows, or not defined"
            return f"{self.verdict} with {self.name}, {why}"
        value, low, high = (format_number(number) for number in self.ratio)
        times = f"{value} [{low}, {high}] times the {self.measure} of {self.name}"
        return f"{times}: {self.verdict}"


def find_best_baseline(metric: dict[str, Any]) -> BaselineRatio | None:
    """Return the best baseline of a forecaster's metric, chosen as stage check chooses it.

    None for a classifier.
    """
    if "baselines" not in metric:
        return None
    name, measure = metric_catalogue.find_best_baseline(metric)
    return compare_with_baseline(metric, name, measure)


def compare_with_baseline(metric: dict[str, Any], name: str, measure: str) -> BaselineRatio:
    """Return the ratio to the named baseline by "mase" or "mse"."""
    ratio = metric["baselines"][name].get(f"{measure}_ratio")
    return BaselineRatio(name, measure.upper(), tuple(ratio) if ratio else None)


def judge_interval(interval: dict[str, float]) -> str:
    """Return a verdict on one prediction interval, in words."""
    held, low, high = (f"{100 * interval[key]:.3g}" for key in ("measured", "low", "high"))
    fault = interval_fault(interval)
    verdict = f"✗ {fault}" if fault else "✓ as it should be"
    return f"{verdict}: {held} % [{low}, {high}] of the test targets in the " + (
        f"{100 * interval['nominal']:.3g} % interval"
    )


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
