"""A forecaster's best baseline, and whether its intervals are too wide or too narrow."""

from typing import Any

import pytest
from finished import FORECASTER, RECIPES, write_all

from pipeline.evaluate.metrics import compare_with_best_baseline
from pipeline.report import forecast_verdicts
from pipeline.report.result_files import Entry

BASELINES = {
    "last value": {"mse": 9.0, "mase": 2.0, "mse_ratio": [0.4, 0.3, 0.5], "mase_ratio": None},
    "seasonal naive": {"mse": 8.0, "mase": 0.5, "mase_ratio": [3.0, 2.5, 3.5]},
}


def test_the_best_baseline_is_the_one_that_stage_check_names() -> None:
    """By MASE; by MSE where MASE is not defined. A ratio that was not measured is None."""
    metric = {"name": "mse", "value": 4.0, "mase": 1.5, "baselines": BASELINES}
    best = forecast_verdicts.find_best_baseline(metric)
    assert best == forecast_verdicts.BaselineRatio("seasonal naive", "MASE", (3.0, 2.5, 3.5))
    for changed in (metric, metric | {"mase": None}):
        best = forecast_verdicts.find_best_baseline(changed)
        assert best and best.name in compare_with_best_baseline(changed)["sentence"]
        assert best.measure in compare_with_best_baseline(changed)["sentence"]
    assert best.measure == "MSE" and best.ratio is None and best.verdict == "not comparable"
    assert best.sentence.endswith("whose MSE is 0 in too many windows, or not defined")
    assert forecast_verdicts.find_best_baseline({"name": "accuracy"}) is None


@pytest.mark.parametrize(
    ("ratio", "verdict"),
    [
        ((0.9, 0.8, 0.99), "better"),
        ((1.04, 0.94, 1.16), "no clear difference"),
        ((1.2, 1.01, 1.4), "worse"),
    ],
)
def test_the_interval_of_the_ratio_decides(ratio: tuple[float, float, float], verdict: str) -> None:
    assert forecast_verdicts.BaselineRatio("ETS", "MASE", ratio).verdict == verdict


def interval(nominal: float, measured: float, low: float, high: float) -> dict[str, float]:
    return {"nominal": nominal, "measured": measured, "low": low, "high": high}


def test_an_interval_is_at_fault_where_its_nominal_coverage_is_outside_of_the_measured_range() -> (
    None
):
    """100 % in an 80 % interval is too wide, unless so few windows were tested that 80 % is in the
    range; the widest interval at fault is named.
    """
    rows: list[tuple[list[dict[str, float]], str | None]] = [
        ([interval(0.8, 1.0, 0.975, 1.0)], "interval too wide: 100 % of the targets in the 80 % "),
        ([interval(0.8, 0.853, 0.844, 0.86)], "interval too wide: 85.3 % of the targets in the "),
        ([interval(0.8, 1.0, 0.72, 1.0)], None),
        ([interval(0.8, 0.78, 0.67, 0.88)], None),
        (
            [interval(0.8, 0.79, 0.7, 0.88), interval(0.5, 0.3, 0.2, 0.45)],
            "interval too narrow: 30 % of the targets in the 50 % ",
        ),
        ([], None),  # the median alone
    ]
    for intervals, expected in rows:
        found = forecast_verdicts.describe_interval_fault({"intervals": intervals})
        assert found == expected if expected is None else str(found).startswith(expected)
    assert forecast_verdicts.describe_interval_fault({"name": "accuracy"}) is None


def test_an_entry_has_both_verdicts_and_none_before_stage_check(tmp_path: Any) -> None:
    entry = Entry(FORECASTER, RECIPES[FORECASTER], tmp_path)
    assert entry.best_baseline is None and entry.interval_fault is None
    write_all(tmp_path)
    entry = Entry(FORECASTER, RECIPES[FORECASTER], tmp_path)
    assert entry.best_baseline and entry.best_baseline.name == "ETS"
    assert entry.interval_fault is None
