"""ETS and ARIMA as baselines: what statsmodels itself answers at each origin, nothing of later rows, a chosen form."""

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
    return prepare.make(resolved(RECIPE, {"sunspots": SUNSPOTS})["data"])[0]


@pytest.fixture
def years(source: dataset.Data) -> np.ndarray:
    """The 309 yearly sunspot numbers, put together again from the three splits."""
    (rows,) = ets_arima.join_splits(source.x, source.y, 24)
    assert rows.shape == (309, 1) and rows[0, 0] == 5
    return rows[:, 0]


@pytest.mark.parametrize("seasonal", [False, True])
@pytest.mark.parametrize(("trend", "damped"), ets_arima.TRENDS)
def test_ets_at_an_origin_is_statsmodels_own_forecast(
    years: np.ndarray, trend: str | None, damped: bool, seasonal: bool
) -> None:
    """Oracle: statsmodels on the rows before each origin alone, under the same weights, 15 steps: beyond a season."""
    from statsmodels.tsa.exponential_smoothing.ets import ETSModel

    form = {"error": "add", "trend": trend, "damped_trend": damped}
    form |= {"seasonal": "add", "seasonal_periods": SEASON} if seasonal else {}
    first = ETSModel(years[:FITTED], initialization_method="heuristic", **form)
    weights = first.fit(disp=False, return_params=True)
    start = {
        f"initial_{name}": getattr(first, f"initial_{name}")
        for name in ("level", "trend", "seasonal")
    }
    origins = np.array([181, 240, 309])
    got = ets_arima.fit_ets(years, FITTED, SEASON, trend, damped, seasonal)(origins, 15)
    for row, origin in zip(got, origins, strict=True):
        model = ETSModel(years[:origin], initialization_method="known", **start, **form)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            expected = model.smooth(weights).forecast(15)
        np.testing.assert_allclose(row, expected, rtol=1e-9)


@pytest.mark.parametrize(("order", "lag"), [((3, 0, 0), 0), ((1, 1, 1), 0), ((3, 0, 0), SEASON)])
def test_arima_at_an_origin_is_statsmodels_own_forecast(
    years: np.ndarray, order: tuple[int, int, int], lag: int
) -> None:
    """Oracle: statsmodels' results, given rows one origin after another by `append`, never fitted again. Of seasonal
    differences the value of one season before is added by hand, the forecast itself where that is not known yet."""
    from statsmodels.tsa.statespace.sarimax import SARIMAX

    moved = years[lag:] - years[: 309 - lag] if lag else years
    centre, spread = moved[: FITTED - lag].mean(), moved[: FITTED - lag].std()
    moved = (moved - centre) / spread
    found = SARIMAX(moved[: FITTED - lag], order=order).fit(disp=False, maxiter=50, cov_type="none")
    got = ets_arima.fit_arima(years, FITTED, SEASON, order, lag > 0)(np.array([181, 250, 309]), 15)
    known = FITTED
    for row, origin in zip(got, (181, 250, 309), strict=True):
        found, known = found.append(moved[known - lag : origin - lag], refit=False), origin
        path = [*years[:origin]]
        for step in found.forecast(15) * spread + centre:
            path.append(step + (path[len(path) - lag] if lag else 0))
        np.testing.assert_allclose(row, path[origin:], rtol=1e-7, atol=1e-6)


@pytest.mark.slow
def test_no_forecast_sees_what_comes_after_its_origin(source: dataset.Data) -> None:
    """Test rows from the 10th target on become a million: the ten first windows' forecasts stay bit-equal, later ones
    do not; nor does the form or a weight depend on test rows."""
    chosen: tuple[dict, dict] = ({}, {})
    before = dict(ets_arima.rivals(source, chosen[0]))
    source.x["test"] = source.x["test"].copy()
    source.x["test"][24 + 10 :] = 1e6
    after = dict(ets_arima.rivals(source, chosen[1]))
    assert set(before) == {"ETS", "ARIMA"} and chosen[0] == chosen[1]
    for name, answers in before.items():
        assert answers.shape == (62 - 15 + 1, 15, 1)
        np.testing.assert_array_equal(after[name][:11], answers[:11])
        assert (after[name][11:] != answers[11:]).all()


def test_the_form_is_the_best_of_the_validation_rows(years: np.ndarray) -> None:
    """Oracle: every form tried by hand on the same origins."""
    known = np.arange(185, 230)
    label, paths = ets_arima.select_form("ETS", years, FITTED, SEASON, known, 5)
    target = years[known[:, None] + np.arange(5)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tried = {
            form: fit(years, FITTED)(known, 5)
            for form, fit in ets_arima.candidate_forms("ETS", SEASON)
        }
    errors = {form: ((answer - target) ** 2).mean() for form, answer in tried.items()}
    assert len(errors) == 6 and label == min(errors, key=errors.__getitem__)
    assert ((paths(known, 5) - target) ** 2).mean() == errors[label]


def test_curves_of_their_own_have_no_history(resolved: Resolved) -> None:
    """Waves: test curves are not what follows the training curves, so there is nothing to fit a curve's ETS to."""
    from recipes import SERIES_RECIPE

    assert not dict(ets_arima.rivals(prepare.make(resolved(SERIES_RECIPE)["data"])[0], {}))


def test_more_columns_than_are_fitted(source: dataset.Data) -> None:
    source.x = {
        split: np.repeat(rows, ets_arima.MAX_COLUMNS + 1, axis=1)
        for split, rows in source.x.items()
    }
    assert not dict(ets_arima.rivals(source, {}))
