"""Forecasters: the errors of a backtest over a user's own series."""

from typing import Any

import numpy as np

from convline.errors import InputError
from convline.report.evaluate.answers import Report, Truth
from convline.report.text_table import format_table
from convline.timeseries.backtest import Forecast, backtest_batches
from convline.timeseries.forecaster import Forecaster
from convline.timeseries.read_options import ReadOptions


def evaluate(model: Forecaster, truth: Truth) -> Report:
    """Return the errors of a backtest over each series of a file, beside those of repeating the
    last value.

    Each forecast begins where the one before it ends; the last one ends with the series.
    """
    if truth.labels:
        got = f"got {model.name!r}, a forecaster; pass a PATH"
        raise InputError(truth.labels, f"expected a model of images for --labels, {got}")
    table = (truth.reading or ReadOptions(model.name, model.document.input)).read(truth.where)
    unread, parts = [], []
    for batch in backtest_batches(model, table, model.horizon, model.horizon, held=model.horizon):
        good = [forecast for forecast in batch if not forecast.error]
        for forecast in (one for one in batch if one.error):
            reason = _reason_not_evaluated(model, forecast)
            unread.append({"path": forecast.series.id, "error": reason})
        parts += [_error_sums(model, good)] if good else []
    if not parts:
        reason = f"none of {len(unread)} can be: {unread[0]['error']}"
        raise InputError(truth.where, f"expected a series to forecast, {reason}")
    sums = {name: sum(part[name] for part in parts) for name in parts[0]}
    return {
        "series": len(table.series) - len({one["path"] for one in unread}),
        "windows": int(sums["windows"]),
        "filled": table.filled,
        "notes": table.notes,
        **_series_metrics(model, sums, slice(None)),
        "columns": [
            {"column": name, **_series_metrics(model, sums, k)}
            for k, name in enumerate(model.targets)
        ],
        "unread": unread,
    }


def _reason_not_evaluated(model: Forecaster, forecast: Forecast) -> str:
    """Return why a forecast is not evaluated; it needs the rows after it as well as those
    before."""
    rows = len(forecast.series.values)
    if rows < model.context + model.horizon:
        return f"{model.context} + {model.horizon} rows are needed, there are {rows}"
    return forecast.error


def _error_sums(model: Forecaster, forecasts: list[Forecast]) -> dict[str, Any]:
    """Return the number of windows, and sums over windows and steps.

    squared, absolute, last_value (D,): errors of the forecast, and absolute ones of repeating the
    last value. inside (D, Q // 2): values inside each interval, the widest first.
    """
    columns, half = len(model.targets), len(model.quantiles) // 2
    rows = np.stack(  # (M, 1 + S, D): the last row of each window, and those of its horizon
        [o.series.values[o.cutoff : o.cutoff + 1 + model.horizon, :columns] for o in forecasts]
    )
    last, target = rows[:, :1], rows[:, 1:]
    forecast = np.stack([one.forecast for one in forecasts]).astype(np.float64)
    quantiles = np.stack([one.quantiles for one in forecasts]).astype(np.float64)
    lower, upper = quantiles[..., :half], quantiles[..., ::-1][..., :half]
    inside = (lower <= target[..., None]) & (target[..., None] <= upper)  # (M, S, D, Q // 2)
    # A target near 1e308 has an infinite squared error, which is null in JSON.
    with np.errstate(over="ignore"):
        return {
            "windows": len(target),
            "squared": ((forecast - target) ** 2).sum((0, 1)),
            "absolute": np.abs(forecast - target).sum((0, 1)),
            "last_value": np.abs(last - target).sum((0, 1)),
            "inside": inside.sum((0, 1)),
        }


def _series_metrics(model: Forecaster, sums: dict[str, Any], column: int | slice) -> dict[str, Any]:
    """Return mse, mae, mae of the last value, their ratio and the coverage, of one column or all.

    The ratio is None if the last value has no error.
    """
    steps = sums["windows"] * model.horizon
    with np.errstate(over="ignore", invalid="ignore"):
        squared, absolute, naive = (
            sums[name][column].mean() / steps for name in ("squared", "absolute", "last_value")
        )
        ratio = float(absolute / naive) if naive else None
    inside = np.atleast_2d(sums["inside"][column]).mean(axis=0) / steps
    coverage = [
        {"nominal": round(1 - 2 * low, 6), "measured": float(measured)}
        for low, measured in zip(model.quantiles, inside, strict=False)  # the lower half
    ]
    return {
        "mse": float(squared),
        "mae": float(absolute),
        "mae_of_last_value": float(naive),
        "mae_ratio": ratio,
        "coverage": coverage,
    }


def tables(report: Report) -> list[str]:
    heading = ["column", "MSE", "MAE", "MAE / last value's"]
    heading += [f"inside {100 * level['nominal']:g} %" for level in report["coverage"]]
    columns = report["columns"]
    if len(columns) > 1:
        columns = [*columns, {"column": "all", **report}]
    rows = [
        [
            *(one[name] for name in ("column", "mse", "mae", "mae_ratio")),
            *(f"{100 * level['measured']:.1f} %" for level in one["coverage"]),
        ]
        for one in columns
    ]
    windows = f"{report['windows']}, one horizon after the other"
    facts = [["series", report["series"]], ["windows", windows]]
    if report["filled"]:
        facts.append(["interpolated", f"{report['filled']} values"])
    errors = format_table([heading, *rows], right_aligned=range(1, len(heading)))
    return [format_table(facts), errors]
