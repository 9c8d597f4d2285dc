"""Simple forecasts that a network must beat: last value, seasonal naive, autoregression, linear
window.

Each function takes histories (M, T, D) and returns forecasts (M, S, D), float64, in the units of
the series.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np

from pipeline.data.dataset import PIECE, Data, Places, pieces

# Windows and rows at most to which baselines are fitted: of more, every so many.
FITTED, FITTED_ROWS = 100_000, 1_000_000


def baseline_forecasts(
    history: np.ndarray, source: Data, horizon: int
) -> Iterator[tuple[str, np.ndarray]]:
    """Yield each baseline's name and its forecasts for `history`, fitted on the training split."""
    yield "last value", last_value(history, horizon)
    yield "seasonal naive", seasonal_naive(history, horizon, source.about["season"])
    coefficients = fit_autoregression(source.x["train"], source.y["train"], order=4)
    yield "AR(4)", autoregression(history, horizon, coefficients)
    windows = len(source.places("train", 1))
    weights = fit_linear(*source.windows("train", every=-(-windows // FITTED)))
    yield "linear window", linear(history, horizon, weights)


def last_value(history: np.ndarray, horizon: int) -> np.ndarray:
    return np.repeat(history[:, -1:], horizon, axis=1)


def seasonal_naive(history: np.ndarray, horizon: int, season: int) -> np.ndarray:
    """Return the values of one season before, repeated; at most the whole history is a season."""
    season = min(season, history.shape[1])
    return history[:, -season + np.arange(horizon) % season]


def fit_autoregression(x: np.ndarray, starts: np.ndarray, order: int) -> np.ndarray:
    """Return least-squares coefficients (order + 1, D): the newest lag first, the constant last.

    One fit for each column over all segments of x (rows, D), of FITTED_ROWS rows at most; segment k
    begins at row `starts[k]`.
    """
    places = Places.of(starts, order + 1, 1)
    chosen = np.arange(0, len(places), -(-len(places) // FITTED_ROWS))
    rows = places.first_rows(chosen) + order
    columns = []
    for column in x.T:
        lags = [column[rows - k] for k in range(1, order + 1)]
        design = np.stack([*lags, np.ones(len(rows))], axis=1)
        columns.append(np.linalg.lstsq(design, column[rows], rcond=None)[0])
    return np.stack(columns, axis=1)


def autoregression(history: np.ndarray, horizon: int, coefficients: np.ndarray) -> np.ndarray:
    """Return the autoregression's forecasts; each step is predicted from those before it."""
    order = len(coefficients) - 1
    path = np.empty((len(history), order + horizon, history.shape[2]))
    path[:, :order] = history[:, -order:]
    for step in range(order, order + horizon):
        lags = path[:, step - order : step][:, ::-1]  # (M, order, D), newest first
        path[:, step] = np.einsum("mkd,kd->md", lags, coefficients[:-1]) + coefficients[-1]
    return path[:, order:]


def fit_linear(history: np.ndarray, target: np.ndarray, ridge: float = 1e-3) -> np.ndarray:
    """Return weights (D, T + 1, S), the constant last, from a column's window to all its steps
    ahead.

    Ridge regression. The penalty is in units of the windows' number and variance, so that the
    result does not depend on the units of the series.
    """
    weights = []
    for d in range(history.shape[2]):
        ones = np.ones((len(history), 1))
        design = np.concatenate([history[:, :, d], ones], axis=1).astype(np.float64)
        penalty = ridge * len(design) * design[:, :-1].var() * np.eye(design.shape[1])
        penalty[-1, -1] = 0
        moments = design.T @ target[:, :, d].astype(np.float64)
        weights.append(np.linalg.solve(design.T @ design + penalty, moments))
    return np.stack(weights)


def linear(history: np.ndarray, horizon: int, weights: np.ndarray) -> np.ndarray:
    """Return the linear model's forecasts; later steps are predicted from its own predictions."""
    context, path = history.shape[1], history.astype(np.float64)
    while path.shape[1] < context + horizon:
        window = path[:, -context:]
        ahead = np.einsum("mtd,dts->msd", window, weights[:, :-1]) + weights[:, -1].T[None]
        path = np.concatenate([path, ahead], axis=1)
    return path[:, context : context + horizon]


def mase_scale(x: np.ndarray, starts: np.ndarray, season: int) -> np.ndarray:
    """Return (D,), the mean absolute error of the seasonal naive forecast within the training rows.

    Hyndman & Koehler 2006, "Another look at measures of forecast accuracy", section 3 (seasonal
    form).
    """
    total: np.ndarray | float = 0.0
    count, held = 0, []
    for a, b in itertools.pairwise(starts):
        both = pieces(x[a + season : b]), pieces(x[a : max(a, b - season)])
        for later, before in zip(*both, strict=True):
            held.append(np.abs(later - before))
            count += len(later)
            if sum(map(len, held)) >= PIECE:
                total, held = total + np.concatenate(held).sum(0), []
    return np.asarray((total + np.concatenate([*held, x[:0]]).sum(0)) / count)
