"""ETS and ARIMA by statsmodels, as baselines: fitted once, to the end of the training rows, then only updated.

At each origin a forecast sees every row before it, those before the network's window too. Which form serves a column
is chosen on the validation rows, as the network's epoch is.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from pipeline.data.dataset import Data

FIT_ROWS = 1000  # the newest of training: what a fit looks at
MAX_COLUMNS = 4  # series times columns: each takes some seconds to fit
TRENDS = ((None, False), ("add", False), ("add", True))  # ETS: the trend, and whether it is damped
ORDERS = (
    (3, 0, 0),
    (9, 0, 0),
    (1, 1, 1),
    (2, 1, 2),
)  # ARIMA, of the values or of their seasonal differences
Forecast = Callable[
    [np.ndarray, int], np.ndarray
]  # rows known at each origin (M,), steps -> forecasts (M, S)


def fit_ets(
    y: np.ndarray, fitted: int, season: int, trend: str | None, damped: bool, seasonal: bool
) -> Forecast:
    """Return additive exponential smoothing of y (n,), its weights and first states from the first `fitted` rows.

    Hyndman et al. 2008, "Forecasting with Exponential Smoothing", table 2.1: ahead stand the level, the slope times
    the sum of its damping, and what that place of the season had last.
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
    known = ETSModel(y, initialization_method="known", **start, **form)
    states = known.smooth(weights, return_raw=True)[1]  # (n, level, slope, season)

    def paths(rows: np.ndarray, steps: int) -> np.ndarray:
        ahead = np.arange(steps)
        answer = np.repeat(states[rows - 1, :1], steps, axis=1)
        if trend:
            answer += (
                states[rows - 1, 1:2] * ((weights[-1] if damped else 1.0) ** (ahead + 1)).cumsum()
            )
        return answer + states[rows[:, None] + ahead % season - season, -1] if seasonal else answer

    return paths


def fit_arima(
    y: np.ndarray, fitted: int, season: int, order: tuple[int, int, int], seasonal: bool
) -> Forecast:
    """Return an ARIMA of y (n,), or of its differences over a season, its coefficients from the first `fitted` rows."""
    from statsmodels.tsa.statespace.sarimax import SARIMAX

    lag = season if seasonal else 0
    moved = y[lag:] - y[: len(y) - lag] if lag else y
    centre, spread = moved[: fitted - lag].mean(), moved[: fitted - lag].std() or 1.0
    moved = (moved - centre) / spread
    fit = SARIMAX(moved[: fitted - lag], order=order).fit(disp=False, maxiter=50, cov_type="none")
    known = SARIMAX(moved, order=order).filter(fit.params, cov_type="none")
    states, design, transition = (
        known.predicted_state,
        known.model["design"],
        known.model["transition"],
    )

    def paths(rows: np.ndarray, steps: int) -> np.ndarray:
        state, answer = (
            states[:, rows - lag],
            np.empty((len(rows), steps)),
        )  # (k, M): of the first row ahead
        for step in range(steps):
            answer[:, step] = (design @ state)[0] * spread + centre
            if lag:
                answer[:, step] += y[rows + step - lag] if step < lag else answer[:, step - lag]
            state = transition @ state
        return answer

    return paths


def candidate_forms(
    name: str, season: int
) -> Iterator[tuple[str, Callable[[np.ndarray, int], Forecast]]]:
    """Yield what may serve a column: its label, and what fits it to y (n,) of which the first rows are training's."""
    for seasonal in (False, True) if season > 1 else (False,):
        if name == "ETS":
            for trend, damped in TRENDS:
                label = f"A,{'Ad' if damped else 'A' if trend else 'N'},{'A' if seasonal else 'N'}"
                yield (
                    label,
                    lambda y, n, t=trend, d=damped, s=seasonal: fit_ets(y, n, season, t, d, s),
                )
        else:
            for order in ORDERS:
                label = ",".join(map(str, order)) + (f" over {season}" if seasonal else "")
                yield label, lambda y, n, o=order, s=seasonal: fit_arima(y, n, season, o, s)


def select_form(
    name: str, y: np.ndarray, fitted: int, season: int, known: np.ndarray, steps: int
) -> tuple[str, Forecast] | None:
    """Return the form with the least squared error over the validation origins, and its label."""
    target = y[known[:, None] + np.arange(steps)]
    tried: list[tuple[float, str, Forecast]] = []
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")  # of a fit that has not converged: its error tells
        for label, fit in candidate_forms(name, season):
            try:
                paths = fit(y, fitted)
            except (ValueError, np.linalg.LinAlgError):  # too few rows for this form
                continue
            error = ((paths(known, steps) - target) ** 2).mean()
            tried += [(float(error), label, paths)] if np.isfinite(error) else []
    return min(tried, key=lambda one: one[0])[1:] if tried else None


def join_splits(
    x: dict[str, np.ndarray], starts: dict[str, np.ndarray], context: int
) -> list[np.ndarray] | None:
    """Return each series' rows (n, D) from the first of training to the last of test; None where splits share none."""
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


def rivals(source: Data, chosen: dict[str, list[str]]) -> Iterator[tuple[str, np.ndarray]]:
    """Yield the forecasts of ETS and ARIMA for the test windows (M, S, D); `chosen` gets the form of each column.

    Neither comes where the splits are not of the same series, their columns are more than MOST, or no form fits.
    """
    about = source.about
    context, steps = about["input"]["context"], about["forecast"]["horizon"]
    series = join_splits(source.x, source.y, context)
    if series is None or len(series) * series[0].shape[1] > MAX_COLUMNS:
        return
    for name in ("ETS", "ARIMA"):
        answers = []
        for k, rows in enumerate(series):
            train, validation, test = (
                int(np.diff(source.y[s])[k]) for s in ("train", "validation", "test")
            )
            begin = max(0, train - FIT_ROWS)
            ends = (len(rows) - test + context, validation), (len(rows), test)
            looked, asked = (
                np.arange(end - n + context, end - steps + 1, about["stride"]) - begin
                for end, n in ends
            )
            found = [
                select_form(name, y, train - begin, about["season"], looked, steps)
                for y in rows[begin:].T
            ]
            chosen.setdefault(name, []).extend(one[0] for one in found if one)
            answers.append([one[1](asked, steps) for one in found if one])
        if len(chosen[name]) == len(series) * series[0].shape[1]:
            yield name, np.concatenate([np.stack(columns, axis=-1) for columns in answers])
