"""What a forecast must beat: last value, seasonal naive, an autoregression, and a linear model of the window.

All take history (M, T, D) and answer (M, S, D), float64, in the series' own units.
"""

from __future__ import annotations

import itertools

import numpy as np


def last_value(history: np.ndarray, horizon: int) -> np.ndarray:
    return np.repeat(history[:, -1:], horizon, axis=1)


def seasonal_naive(history: np.ndarray, horizon: int, season: int) -> np.ndarray:
    """Return the values of one season before, repeated; a season longer than the history falls back to its length."""
    season = min(season, history.shape[1])
    return history[:, -season + np.arange(horizon) % season]


def fit_autoregression(x: np.ndarray, starts: np.ndarray, order: int) -> np.ndarray:
    """Return least-squares coefficients (order + 1, D), newest lag first, the constant last, pooled over segments."""
    rows = [np.arange(a + order, b) for a, b in itertools.pairwise(starts)]
    now = np.concatenate(rows)
    columns = []
    for d in range(x.shape[1]):
        lags = np.stack([x[now - k, d] for k in range(1, order + 1)] + [np.ones(len(now))], axis=1)
        columns.append(np.linalg.lstsq(lags, x[now, d], rcond=None)[0])
    return np.stack(columns, axis=1)


def autoregression(history: np.ndarray, horizon: int, coefficients: np.ndarray) -> np.ndarray:
    """Return the autoregression's forecast, its own answers fed back step by step."""
    order = len(coefficients) - 1
    path = np.empty((len(history), order + horizon, history.shape[2]))
    path[:, :order] = history[:, -order:]
    for step in range(order, order + horizon):
        lags = path[:, step - order : step][:, ::-1]  # (M, order, D), newest first
        path[:, step] = np.einsum("mkd,kd->md", lags, coefficients[:-1]) + coefficients[-1]
    return path[:, order:]


def fit_linear(history: np.ndarray, target: np.ndarray, ridge: float = 1e-3) -> np.ndarray:
    """Return weights (D, T + 1, S), the constant last, that map each column's window to all its steps ahead.

    Ridge regression, its penalty scaled by the number of windows and their variance, so that units do not matter.
    """
    weights = []
    for d in range(history.shape[2]):
        design = np.concatenate([history[:, :, d], np.ones((len(history), 1))], axis=1).astype(
            np.float64
        )
        penalty = ridge * len(design) * design[:, :-1].var() * np.eye(design.shape[1])
        penalty[-1, -1] = 0
        weights.append(
            np.linalg.solve(
                design.T @ design + penalty, design.T @ target[:, :, d].astype(np.float64)
            )
        )
    return np.stack(weights)


def linear(history: np.ndarray, horizon: int, weights: np.ndarray) -> np.ndarray:
    """Return the linear model's forecast; beyond the steps that it was fitted for its answers are fed back."""
    context, path = history.shape[1], history.astype(np.float64)
    while path.shape[1] < context + horizon:
        window = path[:, -context:]
        path = np.concatenate(
            [path, np.einsum("mtd,dts->msd", window, weights[:, :-1]) + weights[:, -1].T[None]],
            axis=1,
        )
    return path[:, context : context + horizon]


def mase_scale(x: np.ndarray, starts: np.ndarray, season: int) -> np.ndarray:
    """Return (D,): the mean absolute error of the seasonal naive forecast within the training rows.

    Hyndman & Koehler 2006, "Another look at measures of forecast accuracy", section 3 (seasonal form).
    """
    gaps = [
        np.abs(x[a + season : b] - x[a : max(a, b - season)]) for a, b in itertools.pairwise(starts)
    ]
    return np.concatenate(gaps).mean(0)
