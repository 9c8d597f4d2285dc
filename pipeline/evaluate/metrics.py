"""Metrics of the test split with 95 % intervals: accuracy, or forecast errors beside those of the
baselines.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from convline.report.confidence_interval import wilson_interval

from pipeline.data import dataset
from pipeline.evaluate import ets_arima, naive_baselines
from pipeline.evaluate.bootstrap import block_length, mean_interval, percentile_interval
from pipeline.evaluate.calibration import measure_calibration
from pipeline.evaluate.metric_catalogue import CATALOGUE, find_best_baseline


def measure_classification(
    probabilities: np.ndarray, torch_probabilities: np.ndarray, y: np.ndarray
) -> dict[str, Any]:
    """Return the accuracy of probabilities (n, K) for labels y (n,), and what it is worth.

    `torch` is the accuracy of the same network in PyTorch; `recall` the share of each class's
    images that are classified correctly, None for a class without test images; `balanced_accuracy`
    the mean of these; `largest_class` the class with most test images, and its share of them;
    `calibration_error` the expected calibration error.
    """
    predicted = probabilities.argmax(1)
    correct = int((predicted == y).sum())
    low, high = wilson_interval(correct, len(y))
    counts = np.bincount(y, minlength=probabilities.shape[1])
    hits = np.bincount(y[predicted == y], minlength=len(counts))
    recall = [float(h / count) if count else None for h, count in zip(hits, counts, strict=True)]
    return {
        "name": "accuracy",
        "value": correct / len(y),
        "low": low,
        "high": high,
        "n": len(y),
        "torch": float((torch_probabilities.argmax(1) == y).mean()),
        "balanced_accuracy": float(np.mean([share for share in recall if share is not None])),
        "recall": recall,
        **measure_calibration(probabilities, y),
        "largest_class": {"label": int(counts.argmax()), "share": float(counts.max() / len(y))},
    }


def compare_with_largest_class(metric: dict[str, Any], labels: list[str]) -> dict[str, Any]:
    """Return {"better": bool, "sentence": str} about an accuracy and that of the largest class."""
    label, share = labels[metric["largest_class"]["label"]], metric["largest_class"]["share"]
    name = f"always predicting {label!r}, the largest class"
    return compare_with_constant(metric | {"baseline": {"name": name, "value": share}})


def compare_with_constant(metric: dict[str, Any]) -> dict[str, Any]:
    """Return {"better": bool, "sentence": str} about a metric and its `baseline`.

    The baseline gives the same answer for every image.
    """
    baseline, named = metric["baseline"], CATALOGUE[metric["name"]]
    better = metric["value"] > baseline["value"]
    than = f"{baseline['name']} ({named.noun} {named.text(baseline['value'])})"
    return {"better": better, "sentence": f"{'better' if better else 'no better'} than {than}"}


def compare_with_best_baseline(metric: dict[str, Any]) -> dict[str, Any]:
    """Return {"better": bool, "sentence": str} about forecast errors and those of the best
    baseline, which has the least MASE, or the least MSE where MASE is not defined.

    The 95 % interval of the ratio of errors decides: "better" where it lies below 1, "worse" where
    above, "no better" where it holds 1. Where it is not known, the errors alone decide. All but
    "better" ask whether to ship the baseline.
    """
    name, measure = find_best_baseline(metric)
    ours = metric["value"] if measure == "mse" else metric["mase"]
    theirs, ratio = (metric["baselines"][name].get(key) for key in (measure, f"{measure}_ratio"))
    text, times = CATALOGUE[measure].text, CATALOGUE["ratio_to_best_baseline"]
    errors = f"{measure.upper()} {text(ours)} against {text(theirs)}"
    if ratio:
        errors += f", {times.interval_text(*ratio)} times"
    elif theirs:
        errors += f", {times.text(ours / theirs)} times"
    if ratio[2] < 1 if ratio else ours < theirs:
        return {"better": True, "sentence": f"better than {name}, the best baseline: {errors}"}
    worse = ratio[1] > 1 if ratio else ours > theirs
    verdict = "worse" if worse else "no better"
    return {"better": False, "sentence": f"{verdict} than {name}: ship the baseline? {errors}"}


def measure_forecasts(
    outputs: list[np.ndarray], torch_forecast: np.ndarray, source: dataset.Data
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Return the errors of forecast (M, S, D) and quantiles (M, S, D, Q) on the test windows.

    Errors are in units of the series; those under `standardised` are in training standard
    deviations. The arrays for the report: `steps` (1 + baselines, S), the squared error at each
    step ahead of this forecast and of each baseline; `inside` (S,), the share of targets within the
    widest interval; `residuals` (M, D), the errors of the first step; `window_errors` (M,), the
    mean squared error of each window; `column_mae`, `column_mase` and `column_coverage` (D,), the
    errors and the share of targets within the widest interval of each series.
    """
    history, target = (
        part.astype(np.float64) for part in source.windows("test", source.about["stride"])
    )
    forecast, quantiles = (output.astype(np.float64) for output in outputs)
    levels = source.about["forecast"]["quantiles"]
    scale = naive_baselines.mase_scale(source.x["train"], source.y["train"], source.about["season"])
    block = block_length(len(target), target.shape[1], source.about["stride"])
    error = forecast - target
    squared, scaled = (error**2).mean((1, 2)), scaled_error(error, scale)  # (M,)
    low, high = mean_interval(squared, block)
    steps, baselines = [(error**2).mean((0, 2))], {}
    for name, baseline_forecast, forms in all_baselines(history, source, target.shape[1]):
        baseline_error = baseline_forecast - target
        steps.append((baseline_error**2).mean((0, 2)))
        theirs = (baseline_error**2).mean((1, 2)), scaled_error(baseline_error, scale)
        baselines[name] = {
            "mse": float(theirs[0].mean()),
            "mase": finite_or_none(theirs[1].mean()),
            "mse_ratio": error_ratio(squared, theirs[0], block),
            "mase_ratio": error_ratio(scaled, theirs[1], block),
            **({"forms": forms} if forms else {}),
        }
    metric = {
        "name": "mse",
        "value": float(squared.mean()),
        "low": low,
        "high": high,
        "n": len(target),
        "block": block,
        "torch": float(((torch_forecast - target) ** 2).mean()),
        "mae": float(np.abs(error).mean()),
        "mase": finite_or_none(scaled.mean()),
        "smape": symmetric_error(forecast, target),
        "pinball": pinball_loss(quantiles, target, levels),
        "standardised": {
            "mse": float((np.abs(error * source.scale) ** 2).mean()),
            "mae": float(np.abs(error * source.scale).mean()),
        },
        "intervals": measure_intervals(quantiles, target, levels, block),
        "baselines": baselines,
    }
    inside = (target >= quantiles[..., 0]) & (target <= quantiles[..., -1])
    column_mae = np.abs(error).mean((0, 1))
    arrays = {
        "steps": np.stack(steps),
        "inside": inside.mean((0, 2)),
        "residuals": error[:, 0].astype(np.float32),
        "window_errors": squared.astype(np.float32),
        "column_mae": column_mae,
        "column_mase": np.divide(
            column_mae, scale, out=np.full_like(scale, np.nan), where=scale > 0
        ),
        "column_coverage": inside.mean((0, 1)),
    }
    return metric, arrays


def all_baselines(
    history: np.ndarray, source: dataset.Data, horizon: int
) -> Iterator[tuple[str, np.ndarray, list[str]]]:
    """Yield name, forecasts (M, S, D) and chosen forms, if any, of each baseline."""
    for name, forecast in naive_baselines.baseline_forecasts(history, source, horizon):
        yield name, forecast, []
    yield from ets_arima.baseline_forecasts(source)


def scaled_error(error: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """Return the mean of |error| / scale over each window (M,), as in MASE.

    error (M, S, D), scale (D,); not finite where a scale is 0, since the training rows repeat
    exactly.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray((np.abs(error) / scale).mean((1, 2)))


def symmetric_error(forecast: np.ndarray, target: np.ndarray) -> float:
    """Return sMAPE in percent: the mean of 200 |forecast - target| / (|forecast| + |target|).

    It is 0 where both are 0.
    """
    both = np.abs(forecast) + np.abs(target)
    error = np.abs(forecast - target)
    return float(200 * np.divide(error, both, out=np.zeros_like(both), where=both > 0).mean())


def finite_or_none(number: float) -> float | None:
    """Return the number, or None where it is not finite: JSON has no infinity."""
    return float(number) if np.isfinite(number) else None


def error_ratio(ours: np.ndarray, theirs: np.ndarray, block: int) -> list[float] | None:
    """Return mean(ours) / mean(theirs) and the ends of its 95 % interval, from errors (M,).

    None where the mean of `theirs` is 0 or not finite, and where so few windows have an error that
    the interval has no upper end.
    """
    if not theirs.mean() > 0 or not np.isfinite(theirs.sum()):
        return None
    with np.errstate(divide="ignore", invalid="ignore"):  # a draw of windows without any error
        low, high = percentile_interval(
            lambda rows: float(ours[rows].mean() / theirs[rows].mean()), len(ours), block
        )
    if not np.isfinite([low, high]).all():
        return None
    return [float(ours.mean() / theirs.mean()), low, high]


def pinball_loss(quantiles: np.ndarray, target: np.ndarray, levels: list[float]) -> float:
    """Return the mean quantile loss of quantiles (M, S, D, Q) for targets (M, S, D).

    Koenker & Bassett 1978, "Regression quantiles", eq. 2.1: an error counts `level` times where the
    quantile is too low, 1 - level times where it is too high.
    """
    below, level = target[..., None] - quantiles, np.array(levels)
    return float(np.maximum(level * below, (level - 1) * below).mean())


def measure_intervals(
    quantiles: np.ndarray, target: np.ndarray, levels: list[float], block: int
) -> list[dict[str, float]]:
    """Return nominal and measured coverage of each prediction interval, and its mean width.

    The widest interval comes first; low and high are the ends of the 95 % interval of the coverage:
    the bootstrap's, or Wilson's for as many trials as there are blocks where all targets or none
    are covered, since all draws of the bootstrap are equal then.
    """
    blocks = max(1, len(target) // block)
    rows = []
    for k in range(len(levels) // 2):
        lower, upper = quantiles[..., k], quantiles[..., -1 - k]
        covered = ((target >= lower) & (target <= upper)).mean((1, 2))  # (M,)
        measured = float(covered.mean())
        if measured in (0, 1):
            low, high = wilson_interval(round(measured) * blocks, blocks)
        else:
            low, high = mean_interval(covered, block)
        rows.append(
            {
                "nominal": round(levels[-1 - k] - levels[k], 6),
                "measured": measured,
                "low": low,
                "high": high,
                "width": float((upper - lower).mean()),
            }
        )
    return rows
