"""The metrics of an entry: their names in metrics.json and in tables, units, rounding and meaning.

Stage check writes metrics.json by this module, and stage report its tables and its page of metrics.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

PROPORTION_DIGITS = 4  # after the point
SIGNIFICANT_DIGITS = 4  # of every other number
# What metrics.json holds of check.json's metric besides its main value, where it is there.
BESIDE = (
    "balanced_accuracy", "calibration_error", "mase",
    "map", "pixel_accuracy", "class_accuracy", "cider",
)  # fmt: skip


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
    def noun(self) -> str:
        """Its title within a sentence: "accuracy", "mean IoU", "mAP50"."""
        return self.title[0].lower() + self.title[1:] if self.title[1:2].islower() else self.title

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
        *(
            Metric(
                f"{variant} {noun}",
                "proportion",
                "higher",
                f"{noun} of the {variant} file on the test images, the lowest over devices",
            )
            for noun in ("accuracy", "mAP50", "mean IoU", "exact match")
            for variant in ("int8", "fp16")
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
            "mAP50",
            "proportion",
            "higher",
            "mean average precision over the classes: a find is right where it overlaps a true box"
            " of its class by half of their union or more",
            interval=True,
        ),
        Metric(
            "mAP",
            "proportion",
            "higher",
            "mean average precision of COCO: the mean over overlaps of .5, .55, ... .95",
        ),
        Metric(
            "Mean IoU",
            "proportion",
            "higher",
            "intersection over union of the pixels of a class, its mean over the classes",
            interval=True,
        ),
        Metric(
            "Pixel accuracy",
            "proportion",
            "higher",
            "proportion of the pixels of all test images that have the right class",
        ),
        Metric(
            "Class accuracy",
            "proportion",
            "higher",
            "mean over the classes of the proportion of their pixels that are right",
        ),
        Metric(
            "Exact match",
            "proportion",
            "higher",
            "proportion of the test images whose caption equals a reference word by word",
            interval=True,
        ),
        Metric(
            "CIDEr",
            "score from 0 to 10",
            "higher",
            "CIDEr-D: how many n-grams of words a caption shares with its references, rare ones"
            " counting more",
            interval=True,
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
    for key in BESIDE:
        if metric.get(key) is not None:
            ends = [f"{key}_{end}" for end in ("low", "high") if CATALOGUE[key].interval]
            found[key] = [metric[name] for name in (key, *ends)]
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
        name = metric["name"]
        found[f"{variant}_{name}"] = [min(row[name] for row in by_device.values())]
    return {
        f"{key}{end}": float(CATALOGUE[key].text(value))
        for key, values in found.items()
        for end, value in zip(("", "_low", "_high"), values, strict=False)
    }
