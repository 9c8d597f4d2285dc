"""A stream of samples, each answered by a forecast when it comes: `infer series --follow`.

Input are lines of CSV, the header first; each series has a state. A model file with a step graph
takes a new sample at constant cost; any other runs the whole window again. A sample that cannot be
used gives one row with its error and is skipped: one without its number, or one not later than the
sample before it. After a gap its series starts again, or is filled if the model's rule says so.
"""

import csv
from codecs import BOM_UTF8
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import chain
from typing import IO

import numpy as np
import numpy.typing as npt

from convline.errors import InputError, describe_count
from convline.model_file.document import Step
from convline.runtime.rows import Block, block_of
from convline.runtime.streaming import Stream
from convline.timeseries.backtest import NO_TIMES, NOT_FINITE, Forecast, forecast_batch
from convline.timeseries.csv_reader import DELIMITERS, SEP, sniff
from convline.timeseries.predict import ForecastTask
from convline.timeseries.raw_table import GROUPED, parse_number
from convline.timeseries.read_options import suggest_dates
from convline.timeseries.series import DATES_AS_NUMBERS, MAX_FILL, Series, check_names
from convline.timeseries.timestamps import (
    Times,
    are_months_apart,
    common_offset,
    format_times,
    future_times,
    has_times_after,
    month_day,
    parse_times,
    positions,
)

MAX_SERIES = 100_000  # each has a state
MAX_LINE = 2**20  # bytes
LARGEST = float(np.finfo(np.float32).max)
WHERE = "-"  # stdin, in messages
Rows = npt.NDArray[np.float64]


def follow(task: ForecastTask, stdin: IO[bytes]) -> Iterator[Block]:
    """Yield the rows of each sample when its line comes; InputError if the header does not fit."""
    model, reading, stream = task.model, task.reading, None
    if model.file.has_step_graph and task.horizon <= model.horizon:
        stream = Stream(model.file, model.kind)
        task.notify(f"each sample is one step of the network; settled after {stream.samples}")
    else:
        reason = "the file has no step graph"
        if model.file.has_step_graph:
            reason = f"a step answers {model.horizon}"
        task.notify(f"each sample runs the whole window of {model.context} rows anew: {reason}")
    head = stdin.readline(MAX_LINE).removeprefix(BOM_UTF8)
    if sep := SEP.match(head):
        head = stdin.readline(MAX_LINE)
    delimiter = DELIMITERS.get(reading.delimiter) or (sep and sep[1].decode("latin-1"))
    if not delimiter:
        delimiter = sniff(head.decode(errors="replace").encode(), WHERE, reading.decimal)
    follower = None
    for line in chain([head], iter(lambda: stdin.readline(MAX_LINE), b"")):
        try:  # line by line: a quote that is not closed would take all lines that follow
            text = line.decode("utf-8", "surrogateescape")
            cells = next(csv.reader([text], delimiter=delimiter, strict=True), [])
        except csv.Error as error:
            reason = f"expected cells between {delimiter!r}, {error}"
            yield block_of([task.error_row(None, reason)])
            continue
        if follower and len(follower.header) > 1 and len(cells) < 2 and not "".join(cells).strip():
            continue  # an empty line, which files may have too
        if cells and follower:
            yield follower.rows(cells)
        elif cells:
            follower = Follower(task, [cell.strip() for cell in cells], stream, delimiter)
    if follower is None:
        raise InputError(WHERE, "expected a header line and rows of numbers, got nothing")


@dataclass
class Track:
    """The state of one series.

    series: its last rows. stream: the state of a step graph. cell: the last time as written.
    jumps: the whole numbers behind the last gaps.
    """

    series: Series
    stream: Stream | None
    cell: str = ""
    jumps: list[int] = field(default_factory=list)

    def append(self, time: Times, row: Rows, context: int, offset: str) -> None:
        """Append a time (1,) and a row (1, D), and keep `context` rows; all take its UTC offset."""
        times = np.concatenate([self.series.times, time])[-context:]
        values = np.concatenate([self.series.values, row])[-context:]
        self.series = Series(self.series.id, times, values, offset)


@dataclass
class Follower:
    """Follower(task, header, stream).rows(cells)   # for each line after the header"""

    task: ForecastTask
    header: list[str]
    stream: Stream | None
    delimiter: str = ","
    tracks: dict[str, Track] = field(default_factory=dict)

    def __post_init__(self) -> None:
        reading = self.task.reading
        self.columns, self.time, self.id, notes = reading.choose_columns(self.header)
        reading.check_columns(WHERE, self.header, self.columns, self.time, self.id)
        check_names(WHERE, self.header, [])
        for note in notes:
            self.task.notify(note)
        self.step = reading.rule.step if self.time else Step("index", 1)
        self.fills = (reading.gaps or reading.rule.gaps) == "interpolate"

    def rows(self, cells: list[str]) -> Block:
        """Return the rows of a forecast, or the one row of an error."""
        name = None
        try:
            if len(cells) != len(self.header):
                expected = f"expected {describe_count(len(self.header), 'cell')} as in the header"
                raise InputError(WHERE, f"{expected}, got {len(cells)}")
            sample = dict(zip(self.header, map(str.strip, cells), strict=True))
            name = sample[self.id] if self.id else "series"
            return self._answer(name, sample)
        except InputError as error:
            return block_of([self.task.error_row(name or None, error.reason)])

    def _answer(self, name: str, sample: dict[str, str]) -> Block:
        row = np.array([[self._parse_value(column, sample[column]) for column in self.columns]])
        track = self.tracks.get(name) or self._start_series(name)
        cell = sample[self.time] if self.time else ""
        time, offset = self._parse_time(track, cell), common_offset([cell])
        reason = self.task.reading.explain_other_offset(offset) if self.time else ""
        if reason:
            raise InputError(WHERE, f"column {self.time!r}: {reason}; it is passed over")
        got = _describe(time, track, cell)
        steps = self._count_steps(track, time, got, offset)
        track.cell = cell
        is_date = steps > 1 and self._looks_like_date(track, int(time[0].astype(np.int64)))
        if is_date or steps > (MAX_FILL if self.fills else 1):
            got += f", which look like {DATES_AS_NUMBERS}" if is_date else ""
            self._push(self._start_series(name), time, row, offset)
            expected = f"expected a row every {self.step}"
            raise InputError(name, f"{expected}, got {got}; the series starts anew")
        last, before = track.series.values[-1:], track.series.times[-1:]
        day = month_day(np.concatenate([track.series.times, time]), offset)
        for k in range(1, steps):
            between = future_times(before[0], self.step, k, day=day, offset=offset)[-1:]
            self._push(track, between, last + (row - last) * k / steps, offset)
        forecast, is_settled = self._push(track, time, row, offset)
        if forecast.error and not is_settled:
            error_row = self.task.error_row(name, forecast.error)
            written = format_times(time, offset=offset)[0]
            return block_of([error_row | {"status": "unsettled", "cutoff": written}])
        return self.task.to_rows([forecast], "ok" if is_settled else "unsettled")

    def _push(self, track: Track, time: Times, row: Rows, offset: str) -> tuple[Forecast, bool]:
        """Return the forecast after one more row, and whether it is that of a full window."""
        model, horizon = self.task.model, self.task.horizon
        track.append(time, row, model.context, offset)
        last = len(track.series.times) - 1
        if track.stream is None:
            [forecast] = forecast_batch(model, self.step, [(track.series, last)], horizon)
            return forecast, last + 1 == model.context
        values, quantiles, is_settled = track.stream.push(row[0])
        error = "" if np.isfinite(values).all() and np.isfinite(quantiles).all() else NOT_FINITE
        if not has_times_after(time[0], self.step, horizon):
            error = NO_TIMES
        outside = bool(model.outside(track.series.values[None])[0])
        numbers = values[:horizon], quantiles[:horizon]
        return Forecast(track.series, self.step, last, *numbers, error, outside), is_settled

    def _start_series(self, name: str) -> Track:
        """Return the empty track of a series that starts now, or starts again."""
        if not name:
            raise InputError(WHERE, f"column {self.id!r}: expected an id, got a missing value")
        if len(self.tracks) == MAX_SERIES and name not in self.tracks:
            expected = f"expected at most {MAX_SERIES} series in one stream"
            raise InputError(name, f"{expected}; start another")
        times = np.empty(0, np.int64 if self.step.unit == "index" else "datetime64[s]")
        series = Series(name, times, np.empty((0, len(self.columns))))
        jumps = self.tracks[name].jumps if name in self.tracks else []
        self.tracks[name] = Track(series, self.stream.fork() if self.stream else None, jumps=jumps)
        return self.tracks[name]

    def _looks_like_date(self, track: Track, number: int) -> bool:
        """Note the whole number behind a gap; return whether it seems to be a date.

        `convline.timeseries.timestamps.find_period_jump` tells this of a whole file. Of a stream
        only the last gaps are known: two to the same last two or three digits, or three to the
        same last one.
        """
        track.jumps = [*track.jumps, number][-3:]
        if self.step.unit != "index":
            return False
        for digits, least in ((3, 2), (2, 2), (1, 3)):
            ends = {jump % 10**digits for jump in track.jumps[-least:]}
            is_known = len(track.jumps) >= least and self.step.count < 10**digits / 2
            if is_known and len(ends) == 1 and ends.pop() <= self.step.count:
                return True
        return False

    def _parse_value(self, column: str, cell: str) -> float:
        decimal = self.task.reading.decimal
        if decimal == "auto" and self.delimiter == ";" and GROUPED.fullmatch(cell):
            expected = "expected an unmistakable decimal sign"
            cure = "say --decimal . or --decimal ,"
            raise InputError(WHERE, f"column {column!r}: {expected}, got {cell!r}; {cure}")
        value = parse_number(cell, "," if decimal == "," else ".")
        if value is not None and abs(value) <= LARGEST:
            return value
        got = repr(cell)
        if value is not None:
            got = "a missing value" if np.isnan(value) else f"{cell!r} beyond float32"
        cure = "; say --decimal ," if decimal == "auto" and "," in cell else ""
        raise InputError(WHERE, f"column {column!r}: expected a number, got {got}{cure}")

    def _parse_time(self, track: Track, cell: str) -> Times:
        """Return the time (1,) of a sample; without a time column samples are counted."""
        if not self.time:
            return np.concatenate([track.series.times[-1:] + 1, [0]])[:1]
        is_index = self.step.unit == "index"
        before = "0" if is_index else track.cell  # the cell is read as the one before it was
        times, trouble = parse_times([*filter(None, [before]), cell])
        if (times.dtype.kind == "i") != is_index or (trouble and is_index):
            cure = "" if is_index else f"; {suggest_dates(int(times[-1]))}"
            expected = f"expected a row every {self.step}"
            raise InputError(WHERE, f"column {self.time!r}: {expected}, got {cell!r}{cure}")
        if trouble:
            raise InputError(WHERE, f"column {self.time!r}: {trouble[1]}")
        return times[-1:]

    def _count_steps(self, track: Track, time: Times, got: str, offset: str) -> int:
        """Return the steps from the last time to this one: 1 if nothing is missing between."""
        if not len(track.series.times):
            return 1
        last = track.series.times[-1]
        got = f"got {got}; it is passed over"
        if time[0] <= last:
            raise InputError(WHERE, f"expected times in rising order, {got}")
        before, here = positions(np.array([last, time[0]]), self.step.unit, offset).tolist()
        steps, rest = divmod(here - before, self.step.count)
        is_month = self.step.unit == "months"
        if rest or (is_month and not are_months_apart(track.series.times, time, offset)):
            expected = f"expected times that are whole steps of {self.step} apart"
            raise InputError(WHERE, f"{expected}, {got}")
        return int(steps)


def _describe(time: Times, track: Track, cell: str) -> str:
    """Return a time and the one before it in words, with their UTC offsets as they were written."""
    if track.series.offset:
        return f"{cell} after {track.cell}"
    both = np.concatenate([time, track.series.times[-1:]])
    return " after ".join(format_times(both, offset=track.series.offset))
