"""ETS and ARIMA of statsmodels as baselines of a forecaster.

Both are fitted once, to the newest training rows. At each cutoff of the test split their states
then take in every row before the cutoff, those before the network's window too. The form for a
column (trend, order, season) is chosen on the validation rows, as the network's epoch is.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np

from pipeline.data.dataset import Data

FIT_ROWS = 1000  # the newest rows of training; fitting takes longer the more there are
MAX_COLUMNS = 4  # series times columns: each takes some seconds to fit
MAX_ROWS = 200_000  # of validation and test: every state behind training is kept
TRENDS = ((None, False), ("add", False), ("add", True))  # of ETS: trend, and whether it is damped
ORDERS = ((3, 0, 0), (9, 0, 0), (1, 1, 1), (2, 1, 2))  # of ARIMA

# cutoffs (M,), the number of known rows at each, and steps S -> forecasts (M, S)
Forecast = Callable[[np.ndarray, int], np.ndarray]
# series (n,), the number of rows to fit on -> Forecast
Fit = Callable[[np.ndarray, int], Forecast]


def baseline_forecasts(source: Data) -> Iterator[tuple[str, np.ndarray, list[str]]]:
    """Yield name, forecasts (M, S, D) for the test windows, and the chosen form of each column.

    There are none where the splits do not continue the same series, where there are more than
    MAX_COLUMNS columns or more than MAX_ROWS rows behind training, or where no form can be fitted.
    """
    if len(source.x["validation"]) + len(source.x["test"]) > MAX_ROWS:
        return
    series = join_splits(source.x, source.y, source.about["input"]["context"])
    if series is None or len(series) * series[0].shape[1] > MAX_COLUMNS:
        return
    for name in ("ETS", "ARIMA"):
        fitted = [forecast_columns(name, source, k, rows) for k, rows in enumerate(series)]
        columns = [column for of_series in fitted for column in of_series]
        if len(columns) == len(series) * series[0].shape[1]:
            forecasts = [np.stack([f for _, f in of_series], axis=-1) for of_series in fitted]
            yield name, np.concatenate(forecasts), [form for form, _ in columns]


def forecast_columns(
    name: str, source: Data, k: int, rows: np.ndarray
) -> list[tuple[str, np.ndarray]]:
    """Return form and test forecasts (m, S) of each column of the k-th series, rows (n, D).

    A column that no form can be fitted to is left out.
    """
    about = source.about
    context, steps = about["input"]["context"], about["forecast"]["horizon"]
    train, validation, test = (
        int(np.diff(source.y[split])[k]) for split in ("train", "validation", "test")
    )
    begin = max(0, train - FIT_ROWS)
    ends = (len(rows) - test + context, validation), (len(rows), test)
    validation_cutoffs, test_cutoffs = (
        np.arange(end - n + context, end - steps + 1, about["stride"]) - begin for end, n in ends
    )
    candidates = candidate_forms(name, about["season"])
    chosen = [
        select_form(candidates, y, train - begin, validation_cutoffs, steps) for y in rows[begin:].T
    ]
    return [(one[0], one[1](test_cutoffs, steps)) for one in chosen if one]


def join_splits(
    x: dict[str, np.ndarray], starts: dict[str, np.ndarray], context: int
) -> list[np.ndarray] | None:
    """Return each series (n, D) from the first training row to the last test row.

    Validation and test begin with the `context` rows before their first target; None where these
    are not the last rows of the split before.
    """
    if len({len(bounds) for bounds in starts.values()}) > 1:
        return None
    series = []
    for k in range(len(starts["train"]) - 1):
        rows, *later = (
            x[s][starts[s][k] : starts[s][k + 1]] for s in ("train", "validation", "test")
        )
        for part in later:
            if len(rows) < context or not np.array_equal(rows[-context:], part[:context]):
                return None
            rows = np.concatenate([rows, part[context:]])
        series.append(rows.astype(np.float64))
    return series


def select_form(
    candidates: dict[str, Fit], y: np.ndarray, fitted: int, cutoffs: np.ndarray, steps: int
) -> tuple[str, Forecast] | None:
    """Return label and forecast of the candidate with the least squared error after `cutoffs`.

    None where no candidate can be fitted to the first `fitted` rows of y (n,).
    """
    target = y[cutoffs[:, None] + np.arange(steps)]
    tried: list[tuple[float, str, Forecast]] = []
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")  # a fit that has not converged shows in its error
        for label, fit in candidates.items():
            try:
                forecast = fit(y, fitted)
            except (ValueError, IndexError, np.linalg.LinAlgError):  # too few rows for this form
                continue
            error = float(((forecast(cutoffs, steps) - target) ** 2).mean())
            if np.isfinite(error):
                tried.append((error, label, forecast))
    return min(tried, key=lambda candidate: candidate[0])[1:] if tried else None


def candidate_forms(name: str, season: int) -> dict[str, Fit]:
    """Return the forms of ETS or ARIMA that may serve a column, by label."""
    forms: dict[str, Fit] = {}
    for seasonal in (False, True) if season > 1 else (False,):
        if name == "ETS":
            for trend, damped in TRENDS:
                label = f"A,{'Ad' if damped else 'A' if trend else 'N'},{'A' if seasonal else 'N'}"
                forms[label] = partial(
                    fit_ets, season=season, trend=trend, damped=damped, seasonal=seasonal
                )
        else:
            for order in ORDERS:
                label = ",".join(map(str, order)) + (f" over {season}" if seasonal else "")
                forms[label] = partial(fit_arima, season=season, order=order, seasonal=seasonal)
    return forms


def fit_ets(
    y: np.ndarray, fitted: int, season: int, trend: str | None, damped: bool, seasonal: bool
) -> Forecast:
    """Return additive exponential smoothing of y (n,).

    Its weights and first states come from the first `fitted` rows. Hyndman et al. 2008,
    "Forecasting with Exponential Smoothing", table 2.1: the forecast is the level, plus the slope
    times the sum of its damping factors, plus the latest state of that place of the season.
    """
    from statsmodels.tsa.exponential_smoothing.ets import ETSModel

    form: dict[str, Any] = {"error": "add", "trend": trend, "damped_trend": damped}
    form |= {"seasonal": "add", "seasonal_periods": season} if seasonal else {}
    model = ETSModel(y[:fitted], initialization_method="heuristic", **form)
    weights = model.fit(disp=False, return_params=True)
    start = {
        f"initial_{part}": getattr(model, f"initial_{part}")
        for part in ("level", "trend", "seasonal")
    }
    updated = ETSModel(y, initialization_method="known", **start, **form)
    states = updated.smooth(weights, return_raw=True)[1]  # (n, level, slope, season)

    def forecast(cutoffs: np.ndarray, steps: int) -> np.ndarray:
        ahead = np.arange(steps)
        path = np.repeat(states[cutoffs - 1, :1], steps, axis=1)
        if trend:
            damping = (weights[-1] if damped else 1.0) ** (ahead + 1)
            path += states[cutoffs - 1, 1:2] * damping.cumsum()
        if seasonal:
            path = path + states[cutoffs[:, None] + ahead % season - season, -1]
        return path

    return forecast


def fit_arima(
    y: np.ndarray, fitted: int, season: int, order: tuple[int, int, int], seasonal: bool
) -> Forecast:
    """Return an ARIMA of y (n,), or of its differences over a season.

    Its coefficients come from the first `fitted` rows.
    """
    from statsmodels.tsa.statespace.sarimax import SARIMAX

    lag = season if seasonal else 0
    values = y[lag:] - y[: len(y) - lag] if lag else y
    mean, std = values[: fitted - lag].mean(), values[: fitted - lag].std() or 1.0
    values = (values - mean) / std
    fit = SARIMAX(values[: fitted - lag], order=order).fit(disp=False, maxiter=50, cov_type="none")
    known = SARIMAX(values, order=order).filter(fit.params, cov_type="none")
    states, design = known.predicted_state, known.model["design"]
    transition = known.model["transition"]

    def forecast(cutoffs: np.ndarray, steps: int) -> np.ndarray:
        state = states[:, cutoffs - lag]  # (k, M), predicted for the first step
        path = np.empty((len(cutoffs), steps))
        for step in range(steps):
            path[:, step] = (design @ state)[0] * std + mean
            if lag:
                path[:, step] += y[cutoffs + step - lag] if step < lag else path[:, step - lag]
            state = transition @ state
        return path

    return forecast
