"""Accuracy, forecast errors, their intervals, and the naive baselines."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from recipes import SERIES_RECIPE

from pipeline.core.files import write_json
from pipeline.data import prepare, series_sources
from pipeline.data.dataset import Data
from pipeline.evaluate import bootstrap, metrics, naive_baselines
from pipeline.plots.style import format_number

RNG = np.random.default_rng


def test_wilson_interval() -> None:
    """statsmodels' proportion_confint; at p = 1 the interval still has a width."""
    from statsmodels.stats.proportion import proportion_confint

    for right, n in ((0, 10), (7, 10), (355, 360), (10, 10)):
        np.testing.assert_allclose(
            metrics.wilson_interval(right, n),
            proportion_confint(right, n, method="wilson"),
            atol=1e-4,
        )


def test_bootstrap_interval() -> None:
    """The normal interval of the mean of 4,000 values, to a tenth of its width."""
    values = RNG(0).exponential(size=4000)
    low, high = bootstrap.mean_interval(values)
    half = 1.96 * values.std() / np.sqrt(4000)
    assert (
        abs(low - (values.mean() - half)) < 0.2 * half
        and abs(high - (values.mean() + half)) < 0.2 * half
    )
    assert bootstrap.mean_interval(values) == (low, high)


def test_accuracy() -> None:
    """3 of 4 correct; torch has 2 of 4."""
    y = np.array([0, 1, 1, 0])
    got, torch_probabilities = np.eye(2)[[0, 1, 1, 1]], np.eye(2)[[1, 1, 1, 1]]
    answer = metrics.measure_classification(got, torch_probabilities, y)
    assert (answer["value"], answer["torch"], answer["n"]) == (0.75, 0.5, 4)
    assert answer["low"] < 0.75 < answer["high"]


def test_recall_and_largest_class() -> None:
    """97 good and 3 defect images, all predicted good; a third class is empty."""
    y = np.array([1] * 97 + [0] * 3)
    answer = metrics.measure_classification(
        np.eye(3)[np.ones(100, int)], np.eye(3)[np.ones(100, int)], y
    )
    assert answer["recall"] == [0.0, 1.0, None] and answer["balanced_accuracy"] == 0.5
    assert answer["largest_class"] == {"label": 1, "share": 0.97}
    found = metrics.compare_with_largest_class(answer, ["defect", "good", "other"])
    assert not found["better"]
    assert (
        found["sentence"]
        == "no better than always predicting 'good', the largest class (accuracy 0.9700)"
    )
    better = metrics.compare_with_largest_class(
        answer | {"value": 0.98}, ["defect", "good", "other"]
    )
    assert better["better"] and better["sentence"].startswith(
        "better than always predicting 'good'"
    )


def test_a_forecaster_is_compared_with_its_best_baseline() -> None:
    """The lowest MASE decides; without a MASE the lowest MSE. "Worse" needs an interval of the
    ratio above 1, "better" one below, or none to ask.
    """
    beside: dict[str, Any] = {
        "last value": {"mse": 9.0, "mase": 2.0},
        "seasonal naive": {"mse": 1.0, "mase": 0.5, "mase_ratio": [3.0, 1.2, 5.0]},
    }
    metric = {"name": "mse", "value": 4.0, "mase": 1.5, "baselines": beside}
    asks = "than seasonal naive: ship the baseline? MASE 1.500 against 0.5000, 3.000"
    found = metrics.compare_with_best_baseline(metric)
    assert found == {"better": False, "sentence": f"worse {asks} [1.200, 5.000] times"}
    beside["seasonal naive"]["mase_ratio"] = [3.0, 0.9, 5.0]
    found = metrics.compare_with_best_baseline(metric)
    assert found == {"better": False, "sentence": f"no better {asks} [0.9000, 5.000] times"}
    for value, interval, verdict in (
        (0.49, [0.98, 0.7, 1.3], "no better"),  # the smaller error, but not surely
        (0.49, [0.98, 0.7, 1.0], "no better"),
        (0.4, [0.8, 0.7, 0.95], "better"),
    ):
        beside["seasonal naive"]["mase_ratio"] = interval
        found = metrics.compare_with_best_baseline(metric | {"mase": value})
        assert found["better"] == (verdict == "better")
        assert found["sentence"].startswith(f"{verdict} than seasonal naive")
        assert ("ship the baseline?" in found["sentence"]) == (verdict == "no better")
    beside["seasonal naive"]["mase_ratio"] = None
    found = metrics.compare_with_best_baseline(metric | {"mase": 0.25})
    assert found["better"] and found["sentence"] == (
        "better than seasonal naive, the best baseline: MASE 0.2500 against 0.5000, 0.5000 times"
    )
    perfect = {"seasonal naive": {"mse": 0.0, "mase": None, "mse_ratio": None}}
    metric |= {"mase": None, "baselines": perfect}
    asks = "than seasonal naive: ship the baseline? MSE"
    for value, sentence in (
        (4.0, f"worse {asks} 4.000 against 0.000"),
        (0.0, f"no better {asks} 0.000 against 0.000"),
    ):
        found = metrics.compare_with_best_baseline(metric | {"value": value})
        assert found == {"better": False, "sentence": sentence}


def test_forecast_errors(resolved: Callable[..., dict[str, Any]]) -> None:
    """The forecast is off by .5, and the interval covers half of the targets."""
    source, _ = prepare.make(resolved(SERIES_RECIPE).data)
    _, target = source.windows("test", source.about["stride"])
    forecast = target + np.float32(0.5)
    width = np.where(RNG(0).permutation(len(target)) % 2, 1.0, 0.1)[:, None, None]
    quantiles = np.stack([forecast - width, forecast, forecast + width], axis=-1)
    answer, arrays = metrics.measure_forecasts([forecast, quantiles], forecast, source)
    assert answer["value"] == pytest.approx(0.25, rel=1e-5) and answer["torch"] == pytest.approx(
        0.25, rel=1e-5
    )
    assert answer["mae"] == pytest.approx(0.5, rel=1e-5)
    scale = naive_baselines.mase_scale(source.x["train"], source.y["train"], 14)
    assert answer["mase"] == pytest.approx(0.5 / scale.item(), rel=1e-5)
    (held,) = answer["intervals"]
    assert held["nominal"] == 0.8 and held["measured"] == pytest.approx(0.5, abs=0.5 / len(target))
    assert held["low"] < 0.5 < held["high"] and held["width"] == pytest.approx(1.1, rel=0.01)
    assert answer["standardised"]["mse"] == pytest.approx(0.25 * source.scale.item() ** 2, rel=1e-5)
    assert set(answer["baselines"]) == {"last value", "seasonal naive", "AR(4)", "linear window"}
    naive = answer["baselines"]["seasonal naive"]
    assert naive["mse_ratio"][0] == pytest.approx(0.25 / naive["mse"], rel=1e-5)
    assert naive["mse_ratio"][1] < naive["mse_ratio"][0] < naive["mse_ratio"][2]
    assert naive["mase_ratio"][0] == pytest.approx(answer["mase"] / naive["mase"], rel=1e-9)
    assert arrays["steps"].shape == (5, 4) and arrays["steps"][0] == pytest.approx(
        [0.25] * 4, rel=1e-5
    )
    assert arrays["steps"][2].mean() == pytest.approx(naive["mse"], rel=1e-9)
    assert arrays["inside"] == pytest.approx([held["measured"]] * 4)
    assert arrays["window_errors"].shape == (len(target),)
    assert arrays["window_errors"].mean() == pytest.approx(answer["value"], rel=1e-5)
    assert arrays["residuals"].shape == (len(target), 1) and arrays["residuals"] == pytest.approx(
        0.5, rel=1e-5
    )


def test_errors_of_each_series(
    resolved: Callable[..., dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The forecast of the second series is off by 3, outside of its interval of +-1; the training
    rows of the first have a scale of MASE of 2, those of the second repeat exactly.
    """
    recipe = SERIES_RECIPE | {"data": SERIES_RECIPE["data"] | {"set": "noise"}}
    rng = RNG(0)
    rows = "".join(f"{day},{rng.normal():.3f},{rng.normal():.3f}\n" for day in range(600))
    (tmp_path / "noise.csv").write_text("day,a,b\n" + rows)
    spec = {"source": "csv", "path": str(tmp_path / "noise.csv"), "licence": "own", "time": "day"}
    source, _ = prepare.make(resolved(recipe, {"noise": spec}).data)
    target = source.windows("test", source.about["stride"])[1]
    forecast = target + np.array([0.5, 3.0], np.float32)
    quantiles = np.stack([forecast - 1, forecast, forecast + 1], axis=-1)
    monkeypatch.setattr(naive_baselines, "mase_scale", lambda *_: np.array([2.0, 0.0]))
    _, arrays = metrics.measure_forecasts([forecast, quantiles], forecast, source)
    np.testing.assert_allclose(arrays["column_mae"], [0.5, 3.0], rtol=1e-5)
    np.testing.assert_allclose(arrays["column_mase"], [0.25, np.nan], rtol=1e-5)
    assert arrays["column_coverage"].tolist() == [1.0, 0.0]


def test_pinball_loss() -> None:
    """Targets 1 and 4; the .1 quantile is 2 for both, the .9 quantile 3 for both. .1: (1 - .1) * 1
    and .1 * 2; .9: (1 - .9) * 2 and .9 * 1. Their mean is (.9 + .2 + .2 + .9) / 4.
    """
    target, quantiles = np.array([1.0, 4]).reshape(2, 1, 1), np.tile([2.0, 3], (2, 1, 1, 1))
    assert metrics.pinball_loss(quantiles, target, [0.1, 0.9]) == pytest.approx(0.55, rel=1e-12)


def test_coverage_of_nested_intervals() -> None:
    """Of the targets 0 to 9, -.5 to 7.5 covers eight, 2.5 to 5.5 three."""
    target = np.arange(10.0).reshape(10, 1, 1)
    quantiles = np.tile([-0.5, 2.5, 4, 5.5, 7.5], (10, 1, 1, 1))
    outer, inner = metrics.measure_intervals(
        quantiles, target, [0.1, 0.25, 0.5, 0.75, 0.9], block=1
    )
    assert (outer["nominal"], outer["measured"], outer["width"]) == (0.8, 0.8, 8.0)
    assert (inner["nominal"], inner["measured"], inner["width"]) == (0.5, 0.3, 3.0)
    assert outer["low"] < 0.8 < outer["high"]


def test_coverage_of_all_targets_or_none_has_the_interval_of_as_many_trials_as_blocks() -> None:
    """All draws of the bootstrap are equal. Wilson's interval of n of n begins at n / (n + z^2):
    with 60 windows in blocks of 6 at 10 / (10 + 1.96^2).
    """
    target = np.zeros((60, 4, 1))
    for quantiles, low, high in (
        (np.tile([-1.0, 0, 1], (60, 4, 1, 1)), 10 / (10 + 1.96**2), 1.0),
        (np.tile([1.0, 2, 3], (60, 4, 1, 1)), 0.0, 1.96**2 / (10 + 1.96**2)),
    ):
        (held,) = metrics.measure_intervals(quantiles, target, [0.1, 0.5, 0.9], block=6)
        assert (held["low"], held["high"]) == pytest.approx((low, high), rel=1e-9, abs=1e-9)
        assert held["low"] <= held["measured"] <= held["high"] + 1e-9
    (held,) = metrics.measure_intervals(quantiles[:2], target[:2], [0.1, 0.5, 0.9], block=6)
    assert held["low"] < 0.01 and held["high"] > 0.7  # fewer windows than a block: one trial


def test_a_perfect_season_has_no_mase_and_its_file_is_json(
    resolved: Callable[..., dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If the training rows repeat exactly, the scale of MASE is 0, and MASE is null in the file,
    which a parser reads that refuses NaN and Infinity.
    """
    source, _ = prepare.make(resolved(SERIES_RECIPE).data)
    target = source.windows("test", source.about["stride"])[1]
    quantiles = np.repeat(target[..., None], 3, axis=-1)
    monkeypatch.setattr(naive_baselines, "mase_scale", lambda *_: np.zeros(1))
    for forecast in (target, target + 1):  # 0 / 0 and 1 / 0
        answer, _ = metrics.measure_forecasts([forecast, quantiles], target, source)
        assert answer["mase"] is None and answer["baselines"]["last value"]["mase"] is None
        write_json(
            tmp_path / "check.json", {"metric": answer, "other": [np.inf, {"x": (math.nan, 1.5)}]}
        )
        text = (tmp_path / "check.json").read_text()
        read = json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
        assert read["metric"]["mase"] is None and read["other"] == [None, {"x": [None, 1.5]}]
        assert format_number(read["metric"]["mase"]) == "–"


def test_smape(resolved: Callable[..., dict[str, Any]]) -> None:
    """Three times the target is off by 200 * 2 / 4 = 100 %, minus the target by 200."""
    source, _ = prepare.make(resolved(SERIES_RECIPE).data)
    target = source.windows("test", source.about["stride"])[1]
    quantiles = np.repeat(target[..., None], 3, axis=-1)
    for factor, expected in ((3, 100), (-1, 200), (1, 0)):
        answer, _ = metrics.measure_forecasts([factor * target, quantiles], target, source)
        assert answer["smape"] == pytest.approx(expected, rel=1e-5)


def test_block_bootstrap() -> None:
    """A block as long as the series is a rotation of it, so its mean never changes.

    For rows in equal runs of 8, blocks of 32 give a wider interval than single rows.
    """
    values = np.arange(7.0) ** 2
    assert bootstrap.mean_interval(values, block=7) == pytest.approx(
        (values.mean(), values.mean()), rel=1e-12
    )
    pairs = np.repeat(RNG(0).integers(0, 2, 400), 8).astype(float)
    single, blocks = (np.ptp(bootstrap.mean_interval(pairs, block=block)) for block in (1, 32))
    assert blocks > 2 * single  # the mean of 400 throws, not of 3,200: sqrt 8 times as wide
    assert bootstrap.mean_interval(pairs, block=32) == bootstrap.mean_interval(pairs, block=32)


def test_block_length() -> None:
    """12 steps and stride 1 overlap 12 windows, stride 3 four; 1000 ** (1/3) is 10; 6 / 3."""
    cases = ((300, 12, 1), (60, 12, 3), (1000, 4, 4), (6, 12, 1), (1, 3, 1))
    assert [bootstrap.block_length(*case) for case in cases] == [12, 4, 10, 2, 1]


def test_error_ratio() -> None:
    """Half of the error in every window is .5 in every draw; there is no ratio to an error of zero."""
    theirs = RNG(0).exponential(size=50)
    assert metrics.error_ratio(theirs / 2, theirs, 5) == pytest.approx([0.5] * 3, rel=1e-12)
    assert metrics.error_ratio(theirs, np.zeros(50), 5) is None
    perfect_once = np.where(np.arange(50) == 7, 0.0, theirs)  # one window of many has no error
    middle, low, high = metrics.error_ratio(perfect_once / 2, perfect_once, 5) or ()
    assert (middle, low, high) == pytest.approx([0.5] * 3, rel=1e-12)
    assert (
        metrics.error_ratio(theirs, np.eye(50)[0], 5) is None
    )  # a third of the draws have no error: no upper end


HISTORY = np.array([[[1.0, 10], [2, 20], [3, 30], [4, 40]]])  # (1, 4, 2)


def test_last_value() -> None:
    assert naive_baselines.last_value(HISTORY, 3).tolist() == [[[4, 40]] * 3]


@pytest.mark.parametrize(
    ("season", "first"), [(1, [4, 4, 4, 4, 4]), (3, [2, 3, 4, 2, 3]), (9, [1, 2, 3, 4, 1])]
)
def test_seasonal_naive(season: int, first: list[float]) -> None:
    """A season longer than the history repeats the history."""
    assert naive_baselines.seasonal_naive(HISTORY, 5, season)[0, :, 0].tolist() == first


def test_ar4_is_exact_on_waves_without_noise(spec_of: Callable[..., dict[str, Any]]) -> None:
    """Two frequencies obey a recurrence of 4 taps without a constant, with the coefficients of (1 -
    2 cos(19 pi/137) z + z^2)(1 - 2 cos(21 pi/137) z + z^2).
    """
    parts, _ = series_sources.series(spec_of("waves", noise=0), 128, 10)
    x = np.concatenate([s.values for s in parts["train"]])
    starts = np.arange(801) * 138
    got = naive_baselines.fit_autoregression(x, starts, order=4)[:, 0]
    a, b = (2 * np.cos(k * np.pi / 137) for k in (19, 21))
    np.testing.assert_allclose(got, [a + b, -2 - a * b, a + b, -1, 0], rtol=0, atol=1e-9)
    np.testing.assert_allclose(got[:4], [3.58570, -5.21390, 3.58570, -1], rtol=0, atol=1e-5)
    residual = x[4:138, 0] - sum(got[k] * x[3 - k : 137 - k, 0] for k in range(4))
    assert np.abs(residual).max() < 1e-12
    test = np.stack([s.values for s in parts["test"]])  # (200, 228, 1)
    ahead = naive_baselines.autoregression(
        test[:, :128], 100, naive_baselines.fit_autoregression(x, starts, order=4)
    )
    assert (
        np.abs(ahead - test[:, 128:]).max() < 1e-6
    )  # 100 steps of feeding back multiply the error


def test_an_autoregression_does_not_look_across_series() -> None:
    """Two straight lines with a jump between them; x_t = x_(t-1) + 1 holds within each."""
    x = np.concatenate([np.arange(20.0), 500 + np.arange(20.0)])[:, None]
    coefficients = naive_baselines.fit_autoregression(x, np.array([0, 20, 40]), order=1)
    np.testing.assert_allclose(coefficients[:, 0], [1, 1], atol=1e-9)
    ahead = naive_baselines.autoregression(x[None, -3:], 4, coefficients)
    np.testing.assert_allclose(ahead[0, :, 0], [520, 521, 522, 523], rtol=1e-9)


def test_the_linear_window_is_ridge_regression() -> None:
    """scikit-learn's Ridge with the same penalty; predictions are fed back beyond the fitted steps."""
    from sklearn.linear_model import Ridge

    rng = RNG(0)
    history, target = rng.standard_normal((50, 6, 1)), rng.standard_normal((50, 3, 1))
    weights = naive_baselines.fit_linear(history, target)
    other = Ridge(alpha=1e-3 * 50 * history.var()).fit(history[..., 0], target[..., 0])
    np.testing.assert_allclose(weights[0, :-1], other.coef_.T, rtol=1e-8)
    np.testing.assert_allclose(weights[0, -1], other.intercept_, rtol=1e-8)
    once = naive_baselines.linear(history, 3, weights)
    np.testing.assert_allclose(once[..., 0], other.predict(history[..., 0]), rtol=1e-8)
    twice = naive_baselines.linear(history, 5, weights)
    fed_back = np.concatenate([history[:, 3:], once], axis=1)
    np.testing.assert_array_equal(twice[:, :3], once)
    np.testing.assert_allclose(
        twice[:, 3:], naive_baselines.linear(fed_back, 2, weights), rtol=1e-12
    )


def test_mase_scale() -> None:
    """Differences over 2 rows within each series: 2, 2 and 10; the third series is too short."""
    x = np.array([0.0, 1, 2, 3, 100, 101, 110, 7, 8])[:, None]
    assert naive_baselines.mase_scale(x, np.array([0, 4, 7, 9]), 2).tolist() == [(2 + 2 + 10) / 3]
    assert naive_baselines.mase_scale(x, np.array([0, 4, 7, 9]), 3).tolist() == [3]


def test_many_short_series_are_fitted_by_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    """Windows are every so many of all series, not one of each: 4 of 40 here, which are spread."""
    x, starts = np.random.default_rng(0).normal(size=(120, 1)), np.arange(0, 121, 3)
    monkeypatch.setattr(naive_baselines, "FITTED_ROWS", 4)
    got = naive_baselines.fit_autoregression(x, starts, order=2)
    rows = np.array([0, 30, 60, 90]) + 2
    design = np.stack([x[rows - 1, 0], x[rows - 2, 0], np.ones(4)], axis=1)
    expected = np.linalg.lstsq(design, x[rows, 0], rcond=None)[0]
    np.testing.assert_allclose(got[:, 0], expected, rtol=1e-12)
    about = {"input": {"context": 2}, "forecast": {"horizon": 1}, "season": 1}
    one = np.ones(1, np.float32)
    source = Data({"train": x}, {"train": starts}, one, one, about)
    monkeypatch.setattr(naive_baselines, "FITTED", 4)
    monkeypatch.setattr(naive_baselines, "fit_autoregression", lambda *a, order: None)
    monkeypatch.setattr(naive_baselines, "autoregression", lambda *a: None)
    fit, fitted = naive_baselines.fit_linear, []
    monkeypatch.setattr(
        naive_baselines, "fit_linear", lambda *both: fitted.extend(both) or fit(*both)
    )
    list(naive_baselines.baseline_forecasts(np.ones((1, 2, 1)), source, 1))
    np.testing.assert_array_equal(
        fitted[0][:, :, 0], x[[[0, 1], [30, 31], [60, 61], [90, 91]], 0].astype(np.float32)
    )


def test_long_series_are_measured_in_parts_and_fitted_by_samples(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """By numpy on all rows; the autoregression of every second row is that of the rows 1, 3, 5."""
    x, starts = np.random.default_rng(0).normal(size=(90, 2)), np.array([0, 50, 90])
    scale = naive_baselines.mase_scale(x, starts, 7)
    monkeypatch.setattr(naive_baselines, "PIECE", 1)
    np.testing.assert_allclose(naive_baselines.mase_scale(x, starts, 7), scale, rtol=1e-14)
    changes = np.abs(np.concatenate([x[7:50] - x[:43], x[57:] - x[50:83]]))
    np.testing.assert_allclose(scale, changes.mean(0), rtol=1e-14)
    monkeypatch.setattr(naive_baselines, "FITTED_ROWS", 49)
    got = naive_baselines.fit_autoregression(x, np.array([0, 90]), order=1)
    design = np.stack([x[:-1:2, 0], np.ones(45)], axis=1)
    expected = np.linalg.lstsq(design, x[1::2, 0], rcond=None)[0]
    np.testing.assert_allclose(got[:, 0], expected, rtol=1e-12)
