"""CSV files to rows of a long table: each series is forecast from its last rows, errors are rows of their own."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import numpy.typing as npt

from serve.errors import InputError
from serve.model import Forecaster
from serve.output import Columns, Row
from serve.series import Series, Table, future_times, read_csv
from serve.times import are_month_ends, format_times

SERIES_PER_BATCH = 64


@dataclass(frozen=True)
class Reading:
    """How CSV files are read: the contract's columns, id, time and gaps, or what the user said instead."""

    columns: list[str]
    time: str | None
    id: str | None
    gaps: str

    @classmethod
    def of(
        cls, model: Forecaster, columns: str | None, time: str | None, id: str | None, gaps: str | None
    ) -> "Reading":
        """None keeps the contract's; an empty string means that there is no such column."""
        rule = model.contract.document["input"]
        return cls(
            columns=columns.split(",") if columns else model.columns,
            time=rule["time"] if time is None else time or None,
            id=rule["id"] if id is None else id or None,
            gaps=gaps or rule["gaps"],
        )


def columns_of(model: Forecaster) -> Columns:
    """Return the table's columns: unique_id, ds, yhat, yhat-lo-80, yhat-hi-80, ..., status, error.

    With several columns `yhat` is `yhat-<column>`. The quantiles q and 1-q are the ends of the 100 (1-2q) % interval;
    the median is not shown beside yhat.
    """
    values = [name for names in _value_names(model) for name in names]
    return {"unique_id": str, "ds": str, **dict.fromkeys(values, float), "status": str, "error": str}


def _value_names(model: Forecaster) -> list[list[str]]:
    """Return for each series column [yhat, lo, hi, lo, hi, ...], the innermost interval first."""
    stems = ["yhat"] if len(model.columns) == 1 else [f"yhat-{column}" for column in model.columns]
    levels = [f"{100 * (1 - 2 * model.quantiles[low]):.6g}" for low, _ in _intervals(model)]
    return [[stem, *(f"{stem}-{end}-{level}" for level in levels for end in ("lo", "hi"))] for stem in stems]


def _intervals(model: Forecaster) -> list[tuple[int, int]]:
    """Return the places of (q, 1-q) among the quantiles, the innermost pair first; the schema makes them symmetric."""
    count = len(model.quantiles)
    return [(low, count - 1 - low) for low in reversed(range(count // 2))]


def forecast_file(
    model: Forecaster, source: str | TextIO, reading: Reading, horizon: int
) -> Iterator[tuple[list[Row], int]]:
    """Yield (rows of some series, values filled by interpolation); a file that cannot be read is one error row."""
    name = source if isinstance(source, str) else "-"
    try:
        table = read_csv(
            Path(source) if isinstance(source, str) else source,
            columns=reading.columns,
            time=reading.time,
            id=reading.id,
            gaps=reading.gaps,
        )
        _check_step(model, table, name)
    except InputError as error:
        yield [_error_row(model, name, error.reason)], 0
        return
    filled = table.filled
    for first in range(0, len(table.series), SERIES_PER_BATCH):
        group = table.series[first : first + SERIES_PER_BATCH]
        yield _group_rows(model, group, table, horizon), filled
        filled = 0  # counted once a file


def _check_step(model: Forecaster, table: Table, where: str) -> None:
    """A network trained on months is wrong on days; one trained on plain row numbers knows no step."""
    timed = model.contract.document["input"]["time"] is not None
    if timed and table.series[0].times.dtype.kind != "i" and table.step != model.step:
        raise InputError(where, f"model {model.name!r} expects a row every {model.step}, got one every {table.step}")


def _group_rows(model: Forecaster, group: list[Series], table: Table, horizon: int) -> list[Row]:
    """Return the rows of each series in order; those that cannot be forecast do not enter the batch."""
    troubles = [_trouble(model, series) for series in group]
    windows = [s.values[-model.context :] for s, trouble in zip(group, troubles, strict=True) if trouble is None]
    answers = iter(zip(*_predict(model, np.stack(windows), horizon), strict=True) if windows else ())
    rows: list[Row] = []
    for series, trouble in zip(group, troubles, strict=True):
        if trouble is not None:
            rows.append(_error_row(model, series.id, trouble))
            continue
        forecast, quantiles = next(answers)
        if not (np.isfinite(forecast).all() and np.isfinite(quantiles[: model.horizon]).all()):
            rows.append(_error_row(model, series.id, "the model answered values that are not finite"))
            continue
        month_end = are_month_ends(series.times)
        times = format_times(future_times(series.times[-1], table.step, horizon, month_end=month_end))
        rows.extend(_series_rows(model, series.id, times, forecast, quantiles))
    return rows


def _trouble(model: Forecaster, series: Series) -> str | None:
    """Return why a series cannot be forecast, or None."""
    rows, limit = len(series.values), float(np.finfo(np.float32).max)
    if rows < model.context:
        return f"model {model.name!r} needs {model.context} rows of {len(model.columns)} columns, got {rows} rows"
    if np.abs(series.values[-model.context :]).max() > limit:
        return f"expected values up to {limit:.6g} (float32), got larger ones"
    return None


def _predict(
    model: Forecaster, windows: npt.NDArray[np.float64], horizon: int
) -> tuple[npt.NDArray[np.floating[Any]], npt.NDArray[np.floating[Any]]]:
    """Return forecast (N, horizon, D) and quantiles (N, horizon, D, Q), nan beyond the horizon that was trained.

    Beyond it the forecast is fed back as if it had been observed; intervals would then ignore its own error.
    """
    forecast, quantiles = model.predict(windows)
    while forecast.shape[1] < horizon:
        history = np.concatenate([windows, forecast], axis=1)[:, -model.context :]
        forecast = np.concatenate([forecast, model.predict(history)[0]], axis=1)
    unknown = np.full((len(windows), forecast.shape[1] - model.horizon, *quantiles.shape[2:]), np.nan, np.float32)
    return forecast[:, :horizon], np.concatenate([quantiles, unknown], axis=1)[:, :horizon]


def _series_rows(
    model: Forecaster,
    id: str,
    times: list[str],
    forecast: npt.NDArray[np.floating[Any]],  # (horizon, D)
    quantiles: npt.NDArray[np.floating[Any]],  # (horizon, D, Q)
) -> list[Row]:
    blank: Row = dict.fromkeys(columns_of(model))
    names, places = _value_names(model), [place for pair in _intervals(model) for place in pair]
    rows = []
    for step, time in enumerate(times):
        trained = step < model.horizon
        row = blank | {"unique_id": id, "ds": time, "status": "ok" if trained else "recursive"}
        for column, (point, *ends) in enumerate(names):
            row[point] = float(forecast[step, column])
            for name, place in zip(ends, places, strict=True):
                row[name] = float(quantiles[step, column, place]) if trained else None
        rows.append(row)
    return rows


def _error_row(model: Forecaster, id: str, error: str) -> Row:
    row: Row = dict.fromkeys(columns_of(model))
    return row | {"unique_id": id, "status": "error", "error": error}
