"""How good predictions are: accuracy and forecast errors on the test split, with intervals, beside the baselines."""

from __future__ import annotations

from typing import Any

import numpy as np

from pipeline import baselines, data
from serve.interval import wilson


def paired(first: np.ndarray, second: np.ndarray, z: float = 1.96) -> tuple[float, float, float]:
    """Return the difference of two accuracies on the same images (right or not, (n,) each), and its 95 % interval.

    Wald's for matched pairs (Fleiss 1981, "Statistical Methods for Rates and Proportions", section 8.2).
    """
    n, won, lost = len(first), int((first & ~second).sum()), int((second & ~first).sum())
    gap = (won - lost) / n
    half = z * np.sqrt(max(won + lost - (won - lost) ** 2 / n, 0.0)) / n
    return gap, float(gap - half), float(gap + half)


def bootstrap(values: np.ndarray, draws: int = 1000) -> tuple[float, float]:
    """Return the 95 % percentile interval of the mean of `values` (n,), resampled with a fixed seed."""
    rng = np.random.default_rng(0)
    means = [values[rng.integers(0, len(values), len(values))].mean() for _ in range(draws)]
    return float(np.quantile(means, 0.025)), float(np.quantile(means, 0.975))


def classification(probabilities: np.ndarray, torch_says: np.ndarray, y: np.ndarray) -> dict[str, Any]:
    right = int((probabilities.argmax(1) == y).sum())
    low, high = wilson(right, len(y))
    return {
        "name": "accuracy",
        "value": right / len(y),
        "low": low,
        "high": high,
        "n": len(y),
        "torch": float((torch_says.argmax(1) == y).mean()),
    }


def forecasting(got: list[np.ndarray], torch_says: np.ndarray, source: data.Data) -> dict[str, Any]:
    """Return the errors of `got` (forecast, quantiles) on the test windows, in own units, and the baselines'."""
    history, target = (part.astype(np.float64) for part in source.windows("test", source.about["stride"]))
    forecast, quantiles = got[0].astype(np.float64), got[1].astype(np.float64)
    squared = (forecast - target) ** 2
    low, high = bootstrap(squared.mean((1, 2)))
    scale = baselines.mase_scale(source.x["train"], source.y["train"], source.about["season"])
    outer = (target >= quantiles[..., 0]) & (target <= quantiles[..., -1])
    levels = source.about["forecast"]["quantiles"]
    return {
        "name": "mse",
        "value": float(squared.mean()),
        "low": low,
        "high": high,
        "n": len(target),
        "torch": float(((torch_says - target) ** 2).mean()),
        "mae": float(np.abs(forecast - target).mean()),
        "mase": float((np.abs(forecast - target) / scale).mean()),
        "coverage": {"nominal": round(levels[-1] - levels[0], 6), "measured": float(outer.mean())},
        "by_step": squared.mean((0, 2)).tolist(),
        "baselines": {
            name: float(((answer - target) ** 2).mean())
            for name, answer in rivals(history, source, target.shape[1]).items()
        },
    }


def rivals(history: np.ndarray, source: data.Data, horizon: int) -> dict[str, np.ndarray]:
    """Return the baselines' forecasts (M, S, D) for histories (M, T, D), fitted on the training split."""
    ar4 = baselines.fit_autoregression(source.x["train"], source.y["train"], order=4)
    window = baselines.fit_linear(*source.windows("train"))
    return {
        "last value": baselines.last_value(history, horizon),
        "seasonal naive": baselines.seasonal_naive(history, horizon, source.about["season"]),
        "AR(4)": baselines.autoregression(history, horizon, ar4),
        "linear window": baselines.linear(history, horizon, window),
    }
