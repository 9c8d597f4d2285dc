"""How good predictions are: accuracy and forecast errors on the test split, with intervals, beside the baselines."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np
from convline.report.interval import wilson

from pipeline.data import dataset
from pipeline.evaluate import ets_arima, naive_baselines
from pipeline.evaluate.bootstrap import block_length, mean_interval, percentile_interval


def measure_classification(
    probabilities: np.ndarray, torch_says: np.ndarray, y: np.ndarray
) -> dict[str, Any]:
    """Return the accuracy of probabilities (n, K) for labels y (n,), with its interval and what puts it in proportion.

    `recall` is the share of each class's images that are right, None for a class without test images;
    `balanced_accuracy` is its mean; `largest_class` is the class that has most test images, and its share of them.
    """
    predicted = probabilities.argmax(1)
    right = int((predicted == y).sum())
    low, high = wilson(right, len(y))
    counts = np.bincount(y, minlength=probabilities.shape[1])
    hits = np.bincount(y[predicted == y], minlength=len(counts))
    recall = [
        float(hit / count) if count else None for hit, count in zip(hits, counts, strict=True)
    ]
    return {
        "name": "accuracy",
        "value": right / len(y),
        "low": low,
        "high": high,
        "n": len(y),
        "torch": float((torch_says.argmax(1) == y).mean()),
        "balanced_accuracy": float(np.mean([share for share in recall if share is not None])),
        "recall": recall,
        "largest_class": {"label": int(counts.argmax()), "share": float(counts.max() / len(y))},
    }


def compare_with_best_baseline(metric: dict[str, Any], labels: list[str]) -> dict[str, Any]:
    """Return how the metric compares with the best baseline: {"name", "better", "sentence"}, a forecast's "ratio" too.

    A classifier's baseline answers the largest class of the test split for every image; a forecaster's best one is that
    of the least MASE, or of the least MSE where the seasonal naive error of the training rows is 0.
    """
    if metric["name"] == "accuracy":
        label, share = labels[metric["largest_class"]["label"]], metric["largest_class"]["share"]
        better = metric["value"] > share
        than = f"always answering {label!r}, the largest class ({share:.3g} of the test split)"
        return {
            "name": "largest class",
            "better": better,
            "sentence": f"{'better' if better else 'no better'} than {than}",
        }
    measure = "mase" if metric["mase"] is not None else "mse"
    ours = metric["mase" if measure == "mase" else "value"]
    name, theirs = min(
        ((n, b[measure]) for n, b in metric["baselines"].items()), key=lambda pair: pair[1]
    )
    better, ratio = ours < theirs, ours / theirs if theirs else None
    times = f", {ratio:.2f} times" if ratio is not None else ""
    than = f"{name}, the best baseline: {measure.upper()} {ours:.3g} against {theirs:.3g}{times}"
    return {
        "name": name,
        "better": better,
        "ratio": ratio,
        "sentence": f"{'better' if better else 'worse'} than {than}",
    }


def measure_forecasts(
    got: list[np.ndarray], torch_says: np.ndarray, source: dataset.Data
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Return how `got` (forecast, quantiles) fares from every origin of the test split, beside the baselines.

    In own units; `standardised` is the mean over columns that are. The arrays: squared error by step ahead of this
    entry and of each baseline (1 + baselines, S), share of targets within the widest interval by step (S,), and the
    errors of the first step at each origin (M, D).
    """
    history, target = (
        part.astype(np.float64) for part in source.windows("test", source.about["stride"])
    )
    forecast, quantiles = got[0].astype(np.float64), got[1].astype(np.float64)
    unit = naive_baselines.mase_scale(source.x["train"], source.y["train"], source.about["season"])
    error = forecast - target
    squared, scaled = (error**2).mean((1, 2)), scaled_error(error, unit)  # (M,), as below
    block = block_length(len(target), target.shape[1], source.about["stride"])
    low, high = mean_interval(squared, block=block)
    steps, beside, forms = [(error**2).mean((0, 2))], {}, {}
    for name, answer in itertools.chain(
        rivals(history, source, target.shape[1]), ets_arima.rivals(source, forms)
    ):
        steps.append(((answer - target) ** 2).mean((0, 2)))
        theirs = ((answer - target) ** 2).mean((1, 2)), scaled_error(answer - target, unit)
        beside[name] = {"mse": float(theirs[0].mean()), "mase": finite_or_none(theirs[1].mean())}
        beside[name] |= {
            "mse_ratio": error_ratio(squared, theirs[0], block),
            "mase_ratio": error_ratio(scaled, theirs[1], block),
        }
        beside[name] |= {"forms": forms[name]} if name in forms else {}
    levels = source.about["forecast"]["quantiles"]
    inside = (target >= quantiles[..., 0]) & (target <= quantiles[..., -1])
    both = np.abs(forecast) + np.abs(target)
    metric = {
        "name": "mse",
        "value": float(squared.mean()),
        "low": low,
        "high": high,
        "n": len(target),
        "block": block,
        "torch": float(((torch_says - target) ** 2).mean()),
        "mae": float(np.abs(error).mean()),
        "mase": finite_or_none(
            scaled.mean()
        ),  # None where the training rows repeat themselves exactly: the unit is 0
        "smape": float(
            200 * np.divide(np.abs(error), both, out=np.zeros_like(both), where=both > 0).mean()
        ),
        "pinball": pinball_loss(quantiles, target, levels),
        "standardised": {
            k: float((np.abs(error * source.scale) ** p).mean())
            for k, p in (("mse", 2), ("mae", 1))
        },
        "intervals": measure_intervals(quantiles, target, levels, block),
        "baselines": beside,
    }
    arrays = {
        "steps": np.stack(steps),
        "inside": inside.mean((0, 2)),
        "residuals": error[:, 0].astype(np.float32),
    }
    return metric, arrays


def scaled_error(error: np.ndarray, unit: np.ndarray) -> np.ndarray:
    """Return the mean absolute error of each window (M,) in the units (D,) of MASE; not finite where a unit is 0."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return (np.abs(error) / unit).mean((1, 2))


def finite_or_none(number: float) -> float | None:
    """Return a number, None where it is not finite, which JSON cannot hold."""
    return float(number) if np.isfinite(number) else None


def error_ratio(ours: np.ndarray, theirs: np.ndarray, block: int) -> list[float] | None:
    """Return the ratio of two mean errors over the same origins and its 95 % interval; None beside a perfect one.

    None, too, where so few origins have an error that the interval has no end.
    """
    if not theirs.mean() > 0 or not np.isfinite(theirs.sum()):
        return None
    with np.errstate(
        divide="ignore", invalid="ignore"
    ):  # origins without error, all drawn together
        low, high = percentile_interval(
            lambda rows: float(ours[rows].mean() / theirs[rows].mean()), len(ours), block=block
        )
    return (
        [float(ours.mean() / theirs.mean()), low, high] if np.isfinite([low, high]).all() else None
    )


def pinball_loss(quantiles: np.ndarray, target: np.ndarray, levels: list[float]) -> float:
    """Return the mean quantile loss of (M, S, D, Q): level times what it is too low by, 1 - level where too high.

    Koenker & Bassett 1978, "Regression quantiles", eq. 2.1.
    """
    below, level = target[..., None] - quantiles, np.array(levels)
    return float(np.maximum(level * below, (level - 1) * below).mean())


def measure_intervals(
    quantiles: np.ndarray, target: np.ndarray, levels: list[float], block: int
) -> list[dict[str, float]]:
    """Return what each pair of quantiles holds of the targets, with its 95 % interval, and its width; widest first."""
    found = []
    for k in range(len(levels) // 2):
        low, high = quantiles[..., k], quantiles[..., -1 - k]
        held = ((target >= low) & (target <= high)).mean((1, 2))  # (M,)
        ends = dict(zip(("low", "high"), mean_interval(held, block=block), strict=True))
        share = {"nominal": round(levels[-1 - k] - levels[k], 6), "measured": float(held.mean())}
        found.append(share | ends | {"width": float((high - low).mean())})
    return found


def rivals(
    history: np.ndarray, source: dataset.Data, horizon: int
) -> Iterator[tuple[str, np.ndarray]]:
    """Yield the baselines' forecasts (M, S, D) for histories (M, T, D), fitted on the training split."""
    yield "last value", naive_baselines.last_value(history, horizon)
    yield "seasonal naive", naive_baselines.seasonal_naive(history, horizon, source.about["season"])
    ar4 = naive_baselines.fit_autoregression(source.x["train"], source.y["train"], order=4)
    yield "AR(4)", naive_baselines.autoregression(history, horizon, ar4)
    window = naive_baselines.fit_linear(*source.windows("train"))
    yield "linear window", naive_baselines.linear(history, horizon, window)
