"""The metrics of an entry: their names in metrics.json and in tables, units, rounding and meaning.

Stage check writes metrics.json by this module, and stage report its tables and its page of metrics.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

PROPORTION_DIGITS = 4  # after the point
SIGNIFICANT_DIGITS = 4  # of every other number


@dataclass(frozen=True)
class Metric:
    """One metric. better: "higher", "lower", or "nominal", the value that was asked for.

    interval: whether metrics.json has the ends of its 95 % confidence interval.
    """

    title: str
    unit: str  # "proportion", "ratio" or what an error is measured in
    better: str
    meaning: str
    interval: bool = False

    @property
    def key(self) -> str:
        """Its key in metrics.json: "MSE" -> "mse", "Ratio to best baseline" -> with underscores."""
        return self.title.lower().replace(" ", "_")

    def text(self, value: float) -> str:
        """Format a value: a proportion to 4 decimals, another number to 4 significant digits."""
        if self.unit == "proportion":
            return f"{value:.{PROPORTION_DIGITS}f}"
        rounded = float(f"{value:.{SIGNIFICANT_DIGITS}g}")
        if 1000 <= abs(rounded) < 1e9:  # not 1.324e+04
            return f"{rounded:.0f}"
        return f"{rounded:#.{SIGNIFICANT_DIGITS}g}"

    def interval_text(self, value: float, low: float, high: float) -> str:
        """Format a value with the ends of its 95 % interval: "0.9917 [0.9758, 0.9972]"."""
        return f"{self.text(value)} [{self.text(low)}, {self.text(high)}]"


CATALOGUE = {
    metric.key: metric
    for metric in (
        Metric(
            "Accuracy",
            "proportion",
            "higher",
            "proportion of the test images that the fp32 file classifies correctly",
            interval=True,
        ),
        Metric(
            "Balanced accuracy",
            "proportion",
            "higher",
            "mean recall over the classes, so a large class cannot hide a small one",
        ),
        Metric(
            "Calibration error",
            "proportion",
            "lower",
            "mean distance between confidence and accuracy: at 0, predictions of probability 0.9"
            " are right nine times in ten",
        ),
        Metric(
            "int8 accuracy",
            "proportion",
            "higher",
            "accuracy of the int8 file on the test images, the lowest over devices",
        ),
        Metric(
            "fp16 accuracy",
            "proportion",
            "higher",
            "accuracy of the fp16 file on the test images, the lowest over devices",
        ),
        Metric(
            "Precision at 5",
            "proportion",
            "higher",
            "for heads on features: proportion of the 5 nearest training images that have the class"
            " of the test image",
        ),
        Metric(
            "Mean average precision",
            "proportion",
            "higher",
            "for heads on features: mean average precision over the ranking of all training images",
        ),
        Metric(
            "MSE",
            "square of the series' unit",
            "lower",
            "mean squared error over all steps and columns of all test windows",
            interval=True,
        ),
        Metric(
            "MASE",
            "ratio",
            "lower",
            "mean absolute error divided by that of the seasonal naive forecast on the training"
            " rows",
        ),
        Metric(
            "Ratio to best baseline",
            "ratio",
            "lower",
            "MASE divided by that of the best baseline on the same windows, or MSE where MASE is"
            " not defined; 1 is as good as the baseline",
            interval=True,
        ),
        Metric(
            "Coverage",
            "proportion",
            "nominal",
            "proportion of the test targets inside the widest prediction interval, whose nominal"
            " coverage is 0.8 unless the recipe's quantiles differ",
            interval=True,
        ),
    )
}


def find_best_baseline(metric: dict[str, Any]) -> tuple[str, str]:
    """Return the name of a forecaster's best baseline and the measure that decides.

    It has the least "mase", or the least "mse" where MASE is not defined.
    """
    measure = "mse" if metric["mase"] is None else "mase"
    baselines = metric["baselines"]
    return min(baselines, key=lambda name: baselines[name][measure]), measure


def main_metrics(checked: dict[str, Any]) -> dict[str, float]:
    """Return the content of metrics.json, rounded as in every table, from that of check.json.

    A metric with an interval has three keys: "mse", "mse_low" and "mse_high". {} where the check
    could not measure anything.
    """
    if not (metric := checked["metric"]):
        return {}
    found = {metric["name"]: [metric[key] for key in ("value", "low", "high")]}
    for key in ("balanced_accuracy", "calibration_error", "mase"):
        if metric.get(key) is not None:
            found[key] = [metric[key]]
    if "baselines" in metric:
        name, measure = find_best_baseline(metric)
        if ratio := metric["baselines"][name].get(f"{measure}_ratio"):
            found["ratio_to_best_baseline"] = ratio
    if intervals := metric.get("intervals"):
        found["coverage"] = [intervals[0][key] for key in ("measured", "low", "high")]
    if retrieval := checked.get("retrieval"):
        found["precision_at_5"] = [retrieval["precision"]]
        found["mean_average_precision"] = [retrieval["mean_average_precision"]]
    for variant, by_device in checked["variants"].items():
        found[f"{variant}_accuracy"] = [min(row["accuracy"] for row in by_device.values())]
    return {
        f"{key}{end}": float(CATALOGUE[key].text(value))
        for key, values in found.items()
        for end, value in zip(("", "_low", "_high"), values, strict=False)
    }
