"""Series to rows of a long table: what is forecast of each; errors are rows too."""

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import groupby
from typing import Any

import numpy as np
import numpy.typing as npt

from convline.errors import ServeError
from convline.runtime.rows import Block, Cells, Columns, Row
from convline.timeseries.backtest import Forecast, cutoff_batches, forecast_batch
from convline.timeseries.forecaster import Forecaster
from convline.timeseries.read_options import ReadOptions
from convline.timeseries.series import Table
from convline.timeseries.timestamps import Times, format_times

Axis = npt.NDArray[np.bytes_]  # times as text
NONE = np.array([b""])


def table_columns(model: Forecaster, cutoff: bool = False) -> Columns:
    """Return the table's columns: unique_id, ds, (cutoff,) yhat, yhat-lo-80, yhat-hi-80, ..., status, error.

    With several columns `yhat` is `yhat-<column>`. The quantiles q and 1-q are the ends of the 100 (1-2q) % interval;
    the median is not shown beside yhat. `cutoff` is the time of the origin, where a series has several.
    """
    keys = ["unique_id", "ds", *(["cutoff"] if cutoff else [])]
    values = [name for names in _value_names(model) for name in names]
    if twice := next(
        (name for name, count in Counter([*keys, *values, "status", "error"]).items() if count > 1),
        None,
    ):
        what = f"expected columns whose forecasts have different names, got {twice!r} twice"
        raise ServeError(f"{model.name}: {what}; export it with other names of columns")
    return {**dict.fromkeys(keys, str), **dict.fromkeys(values, float), "status": str, "error": str}


def _value_names(model: Forecaster) -> list[list[str]]:
    """Return for each series column [yhat, lo, hi, lo, hi, ...], the innermost interval first."""
    stems = ["yhat"] if len(model.targets) == 1 else [f"yhat-{column}" for column in model.targets]
    levels = [f"{level:.6g}" for level, _, _ in intervals(model.quantiles)]
    return [
        [stem, *(f"{stem}-{end}-{level}" for level in levels for end in ("lo", "hi"))]
        for stem in stems
    ]


def intervals(quantiles: list[float]) -> list[tuple[float, int, int]]:
    """Return (percent, place of q, place of 1-q), the innermost first; the schema makes the quantiles symmetric."""
    count = len(quantiles)
    return [
        (100 * (1 - 2 * quantiles[low]), low, count - 1 - low)
        for low in reversed(range(count // 2))
    ]


@dataclass
class ForecastTask:
    """What a model is asked of series, and the rows of its answers."""

    model: Forecaster
    reading: ReadOptions
    horizon: int
    every: int | None = None
    say: Callable[[str], None] = print  # hears what was found in a file or made by interpolation
    _axes: dict[Any, Axis] = field(default_factory=dict)  # the last: most series share one

    @cached_property
    def columns(self) -> Columns:
        return table_columns(self.model, self.every is not None)

    @cached_property
    def ends(self) -> list[int]:
        """The places of the quantiles that are shown, lo and hi in turn."""
        return [place for _, *pair in intervals(self.model.quantiles) for place in pair]

    def trouble(self, name: str | None, error: str) -> Row:
        """Return the row of a file or sample that cannot be forecast."""
        return dict.fromkeys(self.columns) | {"unique_id": name, "status": "error", "error": error}

    def block(self, origins: list[Forecast], status: str = "ok") -> Block:
        """Return the rows of origins: of each `horizon`, or one that says its error."""
        failed = np.array([bool(origin.error) for origin in origins])
        owner = np.repeat(
            np.arange(len(origins)), np.where(failed, 1, self.horizon)
        )  # (rows,) of origins
        ahead = np.arange(len(owner)) - np.searchsorted(
            owner, owner
        )  # rows before each in its forecast
        numbers = np.full((len(owner), len(self.columns)), np.nan)
        sound = [origin for origin in origins if not origin.error]
        if sound:
            quantiles = np.stack([origin.quantiles for origin in sound])[..., self.ends]
            cells = np.concatenate(
                [np.stack([origin.forecast for origin in sound])[..., None], quantiles], axis=-1
            )
            width = cells.shape[2] * cells.shape[3]
            numbers[~failed[owner], :width] = cells.reshape(-1, width)
        times, cutoffs = [], []
        for inside, group in groupby(origins, self._inside):
            run = [*group]
            if inside:
                axis, first = self._axis(run[0]), np.array([origin.cutoff + 1 for origin in run])
                cutoffs.append(axis[first - 1])
                times.append(axis[first[:, None] + np.arange(self.horizon)].ravel())
                continue
            for origin in run:
                known = origin.series.times[: origin.cutoff + 1][-1:]
                cutoffs.append(_text(known, origin) if self.every and len(known) else NONE)
                times.append(NONE if origin.error else _text(origin.times, origin))
        outside = np.array([origin.outside and status == "ok" for origin in origins])
        states = np.where(
            failed[owner], 2, np.where(ahead >= self.model.horizon, 1, 3 * outside[owner])
        )
        texts: Block = {
            "unique_id": ([origin.series.id for origin in origins], owner),
            "ds": np.concatenate(times),
            "cutoff": np.concatenate(cutoffs)[owner],
            "status": ([status, "recursive", "error", "out-of-range"], states),
            "error": ([origin.error or None for origin in origins], owner),
        }
        values = iter(numbers.T)
        return {
            name: texts[name] if kind is str else next(values)
            for name, kind in self.columns.items()
        }

    def _inside(self, origin: Forecast) -> int:
        """Return what origins of one series share whose forecast lies within its rows, 0 for others."""
        end = origin.cutoff + 1 + self.horizon
        return (
            id(origin.series)
            if self.every and end <= len(origin.series.times) and not origin.error
            else 0
        )

    def _axis(self, origin: Forecast) -> Axis:
        """Return the times of the series' rows as text."""
        times = origin.series.times
        key = (times[0], times[-1], len(times), origin.step)  # which tell the others
        found = self._axes.get(key)
        if found is None:
            found = _text(times, origin)
            self._axes = {key: found}
        return found


def table_rows(model: Forecaster, table: Table, horizon: int) -> list[Row]:
    """Return the rows of `infer series` for the series of a table, as Python's own text and numbers."""
    task, rows = (
        ForecastTask(model, ReadOptions(model.name, model.contract.document["input"]), horizon),
        list[Row](),
    )
    for batch in cutoff_batches(model, table, horizon):
        block = task.block(forecast_batch(model, table.step, batch, horizon))
        columns = {name: _plain(cells) for name, cells in block.items()}
        rows += [
            dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)
        ]
    return rows


def _plain(cells: Cells) -> Sequence[str | float | None]:
    """Return a column as text or numbers, None where a cell is missing."""
    if isinstance(cells, tuple):
        return [cells[0][code] for code in cells[1].tolist()]
    if not isinstance(cells, np.ndarray):
        return cells
    if cells.dtype.kind == "f":
        return [None if math.isnan(value) else value for value in cells.tolist()]
    return [cell.decode() or None for cell in cells.tolist()]


def _text(times: Times, origin: Forecast) -> Axis:
    return np.array(format_times(times, origin.dates, origin.series.offset), "S")
