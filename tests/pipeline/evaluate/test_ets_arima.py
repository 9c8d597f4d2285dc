"""ETS and ARIMA as baselines: equal to statsmodels at each cutoff, independent of later rows, with
a selected form.
"""

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from pipeline.data import dataset, prepare
from pipeline.evaluate import ets_arima

Resolved = Callable[..., dict[str, Any]]
SUNSPOTS = {
    "source": "statsmodels",
    "name": "sunspots",
    "validation": 0.2,
    "test": 0.2,
    "season": 11,
}
RECIPE = {
    "arch": "causal",
    "data": {"set": "sunspots", "context": 24, "horizon": 15},
    "net": {"channels": 4, "kernel_size": 3, "dilations": [1], "activation": "none"},
    "train": {"epochs": 1},
}
FITTED, SEASON = 180, 11


@pytest.fixture
def source(resolved: Resolved) -> dataset.Data:
    return prepare.make(resolved(RECIPE, {"sunspots": SUNSPOTS}).data)[0]


@pytest.fixture
def years(source: dataset.Data) -> np.ndarray:
    """The 309 yearly sunspot numbers, joined from the three splits."""
    (rows,) = ets_arima.join_splits(source.x, source.y, 24)
    assert rows.shape == (309, 1) and rows[0, 0] == 5
    return rows[:, 0]


@pytest.mark.parametrize("seasonal", [False, True])
@pytest.mark.parametrize(("trend", "damped"), ets_arima.TRENDS)
def test_ets_equals_statsmodels_at_each_cutoff(
    years: np.ndarray, trend: str | None, damped: bool, seasonal: bool
) -> None:
    """statsmodels on the rows before each cutoff, with the same weights; 15 steps are more than a
    season.
    """
    from statsmodels.tsa.exponential_smoothing.ets import ETSModel

    form = {"error": "add", "trend": trend, "damped_trend": damped}
    form |= {"seasonal": "add", "seasonal_periods": SEASON} if seasonal else {}
    first = ETSModel(years[:FITTED], initialization_method="heuristic", **form)
    weights = first.fit(disp=False, return_params=True)
    start = {
        f"initial_{name}": getattr(first, f"initial_{name}")
        for name in ("level", "trend", "seasonal")
    }
    cutoffs = np.array([181, 240, 309])
    got = ets_arima.fit_ets(years, FITTED, SEASON, trend, damped, seasonal)(cutoffs, 15)
    for row, cutoff in zip(got, cutoffs, strict=True):
        model = ETSModel(years[:cutoff], initialization_method="known", **start, **form)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            expected = model.smooth(weights).forecast(15)
        np.testing.assert_allclose(row, expected, rtol=1e-9)


@pytest.mark.parametrize(("order", "lag"), [((3, 0, 0), 0), ((1, 1, 1), 0), ((3, 0, 0), SEASON)])
def test_arima_equals_statsmodels_at_each_cutoff(
    years: np.ndarray, order: tuple[int, int, int], lag: int
) -> None:
    """statsmodels' `append` adds rows without fitting again.

    To forecasts of seasonal differences this test adds the value of one season before, or its
    forecast where it is not known yet.
    """
    from statsmodels.tsa.statespace.sarimax import SARIMAX

    moved = years[lag:] - years[: 309 - lag] if lag else years
    centre, spread = moved[: FITTED - lag].mean(), moved[: FITTED - lag].std()
    moved = (moved - centre) / spread
    found = SARIMAX(moved[: FITTED - lag], order=order).fit(disp=False, maxiter=50, cov_type="none")
    got = ets_arima.fit_arima(years, FITTED, SEASON, order, lag > 0)(np.array([181, 250, 309]), 15)
    known = FITTED
    for row, cutoff in zip(got, (181, 250, 309), strict=True):
        found, known = found.append(moved[known - lag : cutoff - lag], refit=False), cutoff
        path = [*years[:cutoff]]
        for step in found.forecast(15) * spread + centre:
            path.append(step + (path[len(path) - lag] if lag else 0))
        np.testing.assert_allclose(row, path[cutoff:], rtol=1e-7, atol=1e-6)


@pytest.mark.slow
def test_no_forecast_depends_on_rows_after_its_cutoff(source: dataset.Data) -> None:
    """Test rows from the 10th target on become a million.

    The forecasts of the first windows stay bit-equal, later ones change, and the selected forms do
    not.
    """
    before = {name: rest for name, *rest in ets_arima.baseline_forecasts(source)}
    source.x["test"] = source.x["test"].copy()
    source.x["test"][24 + 10 :] = 1e6
    after = {name: rest for name, *rest in ets_arima.baseline_forecasts(source)}
    assert set(before) == {"ETS", "ARIMA"}
    for name, (forecasts, forms) in before.items():
        assert forecasts.shape == (62 - 15 + 1, 15, 1) and after[name][1] == forms
        np.testing.assert_array_equal(after[name][0][:11], forecasts[:11])
        assert (after[name][0][11:] != forecasts[11:]).all()


def test_the_form_with_the_least_validation_error_is_chosen(years: np.ndarray) -> None:
    """Every form is tried here on the same cutoffs."""
    cutoffs = np.arange(185, 230)
    candidates = ets_arima.candidate_forms("ETS", SEASON)
    label, forecast = ets_arima.select_form(candidates, years, FITTED, cutoffs, 5) or ("", None)
    target = years[cutoffs[:, None] + np.arange(5)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tried = {form: fit(years, FITTED)(cutoffs, 5) for form, fit in candidates.items()}
    errors = {form: ((answer - target) ** 2).mean() for form, answer in tried.items()}
    assert len(errors) == 6 and label == min(errors, key=errors.__getitem__)
    assert forecast and ((forecast(cutoffs, 5) - target) ** 2).mean() == errors[label]


def test_too_few_rows_leave_the_forms_that_can_be_fitted(years: np.ndarray) -> None:
    """Two years of months, of which 14 train: two differences over a season are too few for any
    ARIMA of statsmodels, and without the season the differences are 14.
    """
    y, cutoffs = years[:24], np.arange(14, 19)
    for name in ("ETS", "ARIMA"):
        forms = ets_arima.candidate_forms(name, 12)
        label, forecast = ets_arima.select_form(forms, y, 14, cutoffs, 1) or ("", None)
        assert label in forms and forecast and np.isfinite(forecast(cutoffs, 1)).all()


def test_splits_of_different_series_have_no_baseline(resolved: Resolved) -> None:
    """The test curves of the waves do not continue the training curves, so there is nothing to fit
    to.
    """
    from recipes import SERIES_RECIPE

    assert not [*ets_arima.baseline_forecasts(prepare.make(resolved(SERIES_RECIPE).data)[0])]


def test_no_baseline_for_more_than_the_maximum_of_columns(source: dataset.Data) -> None:
    source.x = {
        split: np.repeat(rows, ets_arima.MAX_COLUMNS + 1, axis=1)
        for split, rows in source.x.items()
    }
    assert not [*ets_arima.baseline_forecasts(source)]


def test_no_baseline_for_more_than_the_maximum_of_rows(
    source: dataset.Data, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = len(source.x["validation"]) + len(source.x["test"])
    monkeypatch.setattr(ets_arima, "MAX_ROWS", rows - 1)
    assert not [*ets_arima.baseline_forecasts(source)]
