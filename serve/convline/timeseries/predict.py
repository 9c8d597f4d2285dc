"""Forecasts to rows of a long table: a row for each series and step ahead; errors are rows too."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from typing import Any

import numpy as np
import numpy.typing as npt

from convline.errors import ServeError
from convline.runtime.rows import Block, Columns, Row, python_values
from convline.timeseries.backtest import Forecast, cutoff_batches, forecast_batch
from convline.timeseries.model import ForecastModel
from convline.timeseries.read_options import ReadOptions
from convline.timeseries.series import Table
from convline.timeseries.timestamps import Times, format_times

TimeTexts = npt.NDArray[np.bytes_]  # times as ASCII text (rows,)
STATUSES = ("recursive", "error", "out-of-range")  # beside "ok"
NO_TEXT = np.array([b""])


def table_columns(model: ForecastModel, cutoff: bool = False) -> Columns:
    """Return the columns: unique_id, ds, (cutoff,) yhat, yhat-lo-80, ..., status, error.

    With several series columns `yhat` is `yhat-<column>`. The quantiles q and 1-q are the ends of
    the 100 (1-2q) % interval; the median is not shown beside yhat. cutoff: whether there is a
    column for the last time that the forecast used, which a backtest needs.
    """
    stems = ["yhat"] if len(model.targets) == 1 else [f"yhat-{column}" for column in model.targets]
    levels = [f"{level:.6g}" for level, _, _ in prediction_intervals(model.quantiles)]
    ends = ["", *(f"-{end}-{level}" for level in levels for end in ("lo", "hi"))]
    keys = ["unique_id", "ds", *(["cutoff"] if cutoff else [])]
    values = [stem + end for stem in stems for end in ends]
    names = Counter([*keys, *values, "status", "error"])
    if repeated := [name for name, count in names.items() if count > 1]:
        got = f"got {repeated[0]!r} twice; export it with other names of columns"
        expected = "expected columns whose forecasts have different names"
        raise ServeError(f"{model.name}: {expected}, {got}")
    return {**dict.fromkeys(keys, str), **dict.fromkeys(values, float), "status": str, "error": str}


def prediction_intervals(quantiles: list[float]) -> list[tuple[float, int, int]]:
    """Return (percent, place of q, place of 1-q) of each interval, the innermost first.

    The model file's schema makes the quantiles symmetric.
    """
    count = len(quantiles)
    return [
        (100 * (1 - 2 * quantiles[low]), low, count - 1 - low)
        for low in reversed(range(count // 2))
    ]


@dataclass
class ForecastTask:
    """What a model forecasts of series, and the rows of its forecasts.

    every: the steps between cutoffs; None for the last row alone. notify: is called with each note
    on a file.
    """

    model: ForecastModel
    reading: ReadOptions
    horizon: int
    every: int | None = None
    notify: Callable[[str], None] = print
    _newest: tuple[Any, TimeTexts] | None = None  # times as text; most series share them

    @cached_property
    def columns(self) -> Columns:
        return table_columns(self.model, self.every is not None)

    def error_row(self, name: str | None, error: str) -> Row:
        """Return the row of a file or sample that cannot be forecast."""
        return dict.fromkeys(self.columns) | {"unique_id": name, "status": "error", "error": error}

    def to_rows(self, forecasts: list[Forecast], status: str = "ok") -> Block:
        """Return the rows of each forecast: `horizon`, or one with its error.

        status: of a row without any other.
        """
        failed = np.array([bool(one.error) for one in forecasts])
        # (rows,) the forecast of each row, and its step ahead, from 0
        owner = np.repeat(np.arange(len(forecasts)), np.where(failed, 1, self.horizon))
        ahead = np.arange(len(owner)) - np.searchsorted(owner, owner)
        outside = np.array([one.outside and status == "ok" for one in forecasts])
        recursive = ahead >= self.model.horizon
        states = np.where(failed[owner], 2, np.where(recursive, 1, 3 * outside[owner]))
        times, cutoffs = self._write_times(forecasts)
        texts: Block = {
            "unique_id": ([one.series.id for one in forecasts], owner),
            "ds": times,
            "cutoff": cutoffs[owner],
            "status": ([status, *STATUSES], states),
            "error": ([one.error or None for one in forecasts], owner),
        }
        numbers = iter(self._numbers(forecasts, failed[owner]).T)
        return {
            name: texts[name] if kind is str else next(numbers)
            for name, kind in self.columns.items()
        }

    def _numbers(
        self, forecasts: list[Forecast], failed: npt.NDArray[np.bool_]
    ) -> npt.NDArray[np.float64]:
        """Return the columns of numbers (rows, columns), nan in failed rows."""
        names = [name for name, kind in self.columns.items() if kind is float]
        numbers = np.full((len(failed), len(names)), np.nan)
        sound = [one for one in forecasts if not one.error]
        if sound:
            intervals = prediction_intervals(self.model.quantiles)
            ends = [place for _, *pair in intervals for place in pair]
            forecast = np.stack([one.forecast for one in sound])[..., None]  # (N, S, D, 1)
            quantiles = np.stack([one.quantiles for one in sound])[..., ends]
            cells = np.concatenate([forecast, quantiles], axis=-1)
            numbers[~failed] = cells.reshape(-1, len(names))
        return numbers

    def _write_times(self, forecasts: list[Forecast]) -> tuple[TimeTexts, TimeTexts]:
        """Return the time of each row (rows,), and of each forecast's cutoff, as text.

        In a backtest most times ahead are those of later rows: they are written once a series.
        """
        times, cutoffs = [], []
        for is_inside, group in groupby(forecasts, self._inside_series):
            run = [*group]
            if is_inside:
                texts, first = self._series_times(run[0]), np.array([one.cutoff for one in run]) + 1
                cutoffs.append(texts[first - 1])
                times.append(texts[first[:, None] + np.arange(self.horizon)].ravel())
                continue
            for one in run:
                known = one.series.times[: one.cutoff + 1][-1:]
                cutoffs.append(_write(known, one) if self.every and len(known) else NO_TEXT)
                times.append(NO_TEXT if one.error else _write(one.times, one))
        return np.concatenate(times), np.concatenate(cutoffs)

    def _inside_series(self, one: Forecast) -> int:
        """Return an id of the series if the rows ahead are in it, 0 if not."""
        end = one.cutoff + 1 + self.horizon
        is_inside = self.every and end <= len(one.series.times) and not one.error
        return id(one.series) if is_inside else 0

    def _series_times(self, one: Forecast) -> TimeTexts:
        """Return the times of the rows of a forecast's series as text."""
        times = one.series.times
        key = (times[0], times[-1], len(times), one.step)  # these determine all times
        newest = self._newest  # which another thread may replace meanwhile
        if newest is None or newest[0] != key:
            self._newest = newest = key, _write(times, one)
        return newest[1]


def _write(times: Times, one: Forecast) -> TimeTexts:
    return np.array(format_times(times, one.dates, one.series.offset), "S")


def table_rows(model: ForecastModel, table: Table, horizon: int) -> list[Row]:
    """Return the rows of `infer series` for the series of a table, as Python's text and numbers."""
    task = ForecastTask(model, ReadOptions(model.name, model.document.input), horizon)
    rows: list[Row] = []
    for batch in cutoff_batches(model, table, horizon):
        block = task.to_rows(forecast_batch(model, table.step, batch, horizon))
        columns = [python_values(cells) for cells in block.values()]
        rows += [dict(zip(block, row, strict=True)) for row in zip(*columns, strict=True)]
    return rows
