"""Files to rows of a long table: what is forecast of each series, written by workers; errors are rows too."""

import hashlib
import math
import os
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from itertools import groupby
from pathlib import Path
from typing import IO, Any, NamedTuple, TextIO

import numpy as np
import numpy.typing as npt

from convline.errors import InputError, ServeError
from convline.images.predict import IN_FLIGHT
from convline.images.sources import Source
from convline.jobs import checkpoint
from convline.jobs.checkpoint import Mark
from convline.jobs.pool import AHEAD, Crew, in_order, threads
from convline.jobs.run import Chunk, Summary, pass_over, write_chunks
from convline.jobs.writers import (
    Block,
    Cells,
    Columns,
    Encode,
    Row,
    block_of,
    encoding,
    form_of,
    is_formula,
)
from convline.runtime.host import usable_cores
from convline.runtime.model import Forecaster
from convline.terminal_text import printable_line
from convline.timeseries.backtest import (
    Forecast,
    Start,
    cutoff_batches,
    forecast_batch,
    windows_per_run,
)
from convline.timeseries.read_options import ReadOptions
from convline.timeseries.series import Series, Table
from convline.timeseries.timestamps import Step, Times, format_times

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


class Group(NamedTuple):
    """What is forecast in one run, or why a file cannot be."""

    seen: bytes  # a hash of the file
    step: Step
    starts: list[Start]
    file: str
    error: str


@dataclass
class ForecastTask:
    """What a model is asked of files, and where its answers go."""

    model: Forecaster
    reading: ReadOptions
    horizon: int
    every: int | None = None
    target: str = "-"
    say: Callable[[str], None] = print  # hears what was found in a file or made by interpolation
    draws: Callable[[Series, int], bool] = lambda series, cutoff: (
        False
    )  # whether `draw` wants to see it
    draw: Callable[[Forecast], None] = print
    form: str | None = None  # of the table; None: by the suffix of target
    names: dict[str, str] = field(
        default_factory=dict
    )  # of series without ids by file, where its stem is not enough
    reading_s: float = 0.0
    _axes: dict[Any, Axis] = field(default_factory=dict)  # the last: most series share one

    @cached_property
    def columns(self) -> Columns:
        return table_columns(self.model, self.every is not None)

    @cached_property
    def encode(self) -> Encode:
        return encoding(form_of(self.target, self.form), self.columns)[1]

    @cached_property
    def ends(self) -> list[int]:
        """The places of the quantiles that are shown, lo and hi in turn."""
        return [place for _, *pair in intervals(self.model.quantiles) for place in pair]

    def groups(self, files: Iterable[Source], stdin: TextIO | None = None) -> Iterator[Group]:
        """Yield what is run of each file, of which "-" is `stdin`; a file that cannot be read is one group."""
        for source in files:
            name, started = source.path, time.perf_counter()
            called = self.names.get(name)
            seen = b"" if self.target == "-" else file_hash(name, called or "")
            try:
                if source.error is not None:
                    raise InputError(name, source.error)
                table = self.reading.read(stdin if name == "-" and stdin else name, called)
            except InputError as error:
                yield Group(seen, Step("index", 1), [], name, error.reason)
                continue
            finally:
                self.reading_s += time.perf_counter() - started
            risky = [one.id for one in table.series if is_formula(one.id)]
            if risky and form_of(self.target, self.form) == "csv":
                table.notes.append(
                    f"ids that a spreadsheet would run have a ' in front in CSV: {printable_line(risky[0])}, ..."
                )
            for note in table.notes + (
                [f"{table.filled} values made by interpolation"] if table.filled else []
            ):
                self.say(f"{name}: {note}")
            for batch in cutoff_batches(self.model, table, self.horizon, self.every):
                yield Group(seen, table.step, batch, name, "")

    def passed(self, groups: Iterator[Group]) -> Iterator[bytes]:
        """Yield the hash of each group that an interrupted run has written; what is drawn of it is forecast again."""
        for group in groups:
            wanted = [start for start in group.starts if self.draws(*start)]
            for origin in (
                forecast_batch(self.model, group.step, wanted, self.horizon) if wanted else ()
            ):
                self.draw(origin)
            yield group.seen

    def work(self, group: Group) -> tuple[Chunk, list[Forecast]]:
        """Return the rows of a group, and what is drawn of it; any thread may."""
        started = time.perf_counter()
        origins = forecast_batch(self.model, group.step, group.starts, self.horizon)
        between = time.perf_counter()
        block = (
            self.block(origins) if origins else block_of([self.trouble(group.file, group.error)])
        )
        encoded = self.encode(block)
        failed = sum(bool(origin.error) for origin in origins) if origins else 1
        rows = failed + self.horizon * (len(origins) - failed) if origins else 1
        times = (0.0, between - started, time.perf_counter() - between)
        drawn = [origin for origin in origins if self.draws(origin.series, origin.cutoff)]
        return Chunk(encoded, rows, failed, group.seen, *times), drawn

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


def file_hash(name: str, called: str) -> bytes:
    """Return a hash of a file's names and content; of the names alone if it is no regular file: a pipe is read once."""
    seen, path = hashlib.sha256(os.fsencode(f"{name}\0{called}\0")), Path(name)
    try:
        if path.is_file():
            with path.open("rb") as file:
                seen.update(hashlib.file_digest(file, "sha256").digest())
    except (
        OSError,
        ValueError,
    ):  # what cannot be read is an error row; ValueError: a NUL in the name
        pass
    return seen.digest()


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


def forecast_files(
    task: ForecastTask,
    files: Iterable[Source],
    stdout: IO[bytes],
    *,
    stdin: TextIO | None = None,
    resume: bool = False,
    watch: Callable[[Summary], None] = lambda summary: None,  # called after each group
) -> Summary:
    """Write the rows of files to the task's target, in order; ServeError says what cannot be done at all."""
    model = task.model
    begun = checkpoint.read(task.target) if resume else None
    mark = begun[1] if begun else Mark()
    facts = asdict(task.reading)
    run = {
        "model": model.contract.digest,
        "columns": [*task.columns],
        "horizon": task.horizon,
        "every": task.every,
    }
    run |= {
        f"--{name}": facts[name]
        for name in ("target", "time", "id", "gaps", "delimiter", "decimal")
    }
    run |= {"format": task.form} if task.form else {}
    run |= {"batch": (batch := windows_per_run(model, task.horizon))}
    if begun:
        checkpoint.check_same(task.target, run, begun[0])
    count = usable_cores() if model.kind == "cpu" else IN_FLIGHT
    summary = Summary(model.device, mark, mark.rows, batch, f"{count} threads")
    groups = task.groups(files, stdin)
    pass_over(task.passed(groups), mark, task.target)

    def chunks(crew: Crew) -> Iterator[Chunk]:
        for chunk, drawn in in_order(crew, task.work, groups, AHEAD * count):
            for origin in drawn:
                task.draw(origin)
            yield chunk

    with Crew(lambda: threads(count)) as crew:
        write_chunks(
            task.target, task.columns, stdout, run, chunks(crew), summary, watch, task.form
        )
    summary.decode = task.reading_s
    return summary
