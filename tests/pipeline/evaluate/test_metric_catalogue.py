"""Names and rounding of the metrics, and what metrics.json holds of a check."""

from __future__ import annotations

import json
from typing import Any

import pytest

from pipeline.evaluate.metric_catalogue import CATALOGUE, find_best_baseline, main_metrics

BASELINES = {
    "last value": {"mse": 1.5, "mase": 0.4, "mase_ratio": [1.25, 1.0, 1.5], "mse_ratio": None},
    "ETS": {"mse": 0.3, "mase": 0.9, "mase_ratio": [0.5, 0.4, 0.6], "mse_ratio": [3.0, 2.0, 4.0]},
}
FORECASTS: dict[str, Any] = {
    "name": "mse",
    "value": 1324.26,
    "low": 683.44,
    "high": 2065.9,
    "mase": 0.5,
    "baselines": BASELINES,
    "intervals": [{"nominal": 0.8, "measured": 1.0, "low": 0.93004, "high": 1.0}],
}


@pytest.mark.parametrize(
    ("key", "values"),
    [
        ("accuracy", {357 / 360: "0.9917", 1: "1.0000", 0.97496: "0.9750"}),
        ("mse", {1324.26: "1324", 13246.7: "13250", 1.02934e-4: "0.0001029", 2.3e-15: "2.300e-15"}),
        ("mse", {999.96: "1000", 0: "0.000", 0.5: "0.5000", 1.234567e12: "1.235e+12"}),
        ("ratio_to_best_baseline", {0.79849: "0.7985", 1: "1.000"}),
    ],
)
def test_rounding(key: str, values: dict[float, str]) -> None:
    """Proportions have four decimals, other metrics four significant digits."""
    assert {value: CATALOGUE[key].text(value) for value in values} == values
    for text in values.values():  # metrics.json holds the same number as the tables
        assert CATALOGUE[key].text(float(text)) == text


def test_an_interval_follows_its_value() -> None:
    assert CATALOGUE["mse"].interval_text(1324.26, 683.44, 2065.9) == "1324 [683.4, 2066]"


def test_the_metrics_of_a_classifier() -> None:
    """A variant has its lowest accuracy over devices."""
    metric = {"name": "accuracy", "value": 357 / 360, "low": 0.975789, "high": 0.997162}
    checked = {
        "metric": metric | {"balanced_accuracy": 0.991587, "calibration_error": 0.01239},
        "variants": {"int8": {"cpu": {"accuracy": 0.95}, "cuda": {"accuracy": 0.94996}}},
        "retrieval": {"precision": 0.545, "mean_average_precision": 1 / 3},
    }
    assert main_metrics(checked) == {
        "accuracy": 0.9917,
        "accuracy_low": 0.9758,
        "accuracy_high": 0.9972,
        "balanced_accuracy": 0.9916,
        "calibration_error": 0.0124,
        "precision_at_5": 0.545,
        "mean_average_precision": 0.3333,
        "int8_accuracy": 0.95,
    }


@pytest.mark.parametrize(
    ("name", "more"),
    [
        ("map50", {"map": 0.61234}),
        ("mean_iou", {"pixel_accuracy": 0.98, "class_accuracy": 0.9}),
        ("exact_match", {"cider": 8.12345, "cider_low": 7.5, "cider_high": 8.75}),
    ],
)
def test_the_metrics_of_the_other_tasks(name: str, more: dict[str, float]) -> None:
    """A variant has the task's own metric."""
    metric = {"name": name, "value": 0.9, "low": 0.85, "high": 0.95, **more}
    found = main_metrics({"metric": metric, "variants": {"int8": {"cpu": {name: 0.89}}}})
    rounded = {key: float(f"{value:.4g}") for key, value in more.items()}
    ends = {f"{name}_low": 0.85, f"{name}_high": 0.95}
    assert found == {name: 0.9, **ends, **rounded, f"int8_{name}": 0.89}


def test_a_title_within_a_sentence() -> None:
    nouns = {key: CATALOGUE[key].noun for key in ("accuracy", "map50", "mean_iou", "cider", "mse")}
    assert [*nouns.values()] == ["accuracy", "mAP50", "mean IoU", "CIDEr", "MSE"]


def test_the_metrics_of_a_forecaster() -> None:
    """The ratio is to the baseline of the least MASE, though another one has a lower MSE."""
    assert main_metrics({"metric": FORECASTS, "variants": {}}) == {
        "mse": 1324.0,
        "mse_low": 683.4,
        "mse_high": 2066.0,
        "mase": 0.5,
        "ratio_to_best_baseline": 1.25,
        "ratio_to_best_baseline_low": 1.0,
        "ratio_to_best_baseline_high": 1.5,
        "coverage": 1.0,
        "coverage_low": 0.93,
        "coverage_high": 1.0,
    }


def test_what_cannot_be_measured_is_left_out() -> None:
    """Without MASE the least MSE decides; its ratio may be unknown, and there may be no interval."""
    unknown = FORECASTS | {"mase": None, "intervals": []}
    assert find_best_baseline(unknown) == ("ETS", "mse")
    assert main_metrics({"metric": unknown, "variants": {}})["ratio_to_best_baseline"] == 3
    unknown["baselines"] = {"last value": BASELINES["last value"]}
    found = main_metrics({"metric": unknown, "variants": {}})
    assert list(found) == ["mse", "mse_low", "mse_high"]
    assert main_metrics({"metric": None, "variants": {}}) == {}


def test_every_key_is_in_the_catalogue_and_is_its_title() -> None:
    titles = {key: metric.title.lower().replace(" ", "_") for key, metric in CATALOGUE.items()}
    assert all(key == title for key, title in titles.items())
    assert {metric.better for metric in CATALOGUE.values()} == {"higher", "lower", "nominal"}
    json.dumps(main_metrics({"metric": FORECASTS, "variants": {}}), allow_nan=False)
