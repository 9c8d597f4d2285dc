"""A stream of samples, each answered by a forecast as it comes: `infer series --follow`.

Lines of CSV, the header first; a state for each series. A file with a step graph takes a new sample at constant cost,
of any other the window is run anew. A sample that cannot be used is one row with its error: without its number, or not
later than the one before it, it is passed over; after a gap its series starts anew, or is filled if the rule says so.
"""

import csv
from codecs import BOM_UTF8
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import chain
from typing import IO

import numpy as np
import numpy.typing as npt

from convline.errors import InputError
from convline.runtime.rows import Block, block_of
from convline.runtime.streaming import Stream
from convline.timeseries.backtest import NO_TIMES, Forecast, forecast_batch
from convline.timeseries.csv_reader import DELIMITERS, SEP, sniff
from convline.timeseries.predict import ForecastTask
from convline.timeseries.raw_table import GROUPED, parse_number
from convline.timeseries.read_options import suggest_dates
from convline.timeseries.series import DATES_AS_NUMBERS, MAX_FILL, Series, check_names
from convline.timeseries.timestamps import (
    Step,
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
    """Yield the rows of each sample once its line is there; InputError where the header is not what the model reads."""
    model, reading, stream = task.model, task.reading, None
    if model.contract.streams and task.horizon <= model.horizon:
        stream = Stream(model.contract, model.kind)
        task.say(f"each sample is one step of the network; settled after {stream.samples}")
    else:
        why = (
            f"a step answers {model.horizon}"
            if model.contract.streams
            else "the file has no step graph"
        )
        task.say(f"each sample runs the whole window of {model.context} rows anew: {why}")
    head = stdin.readline(MAX_LINE).removeprefix(BOM_UTF8)
    told = SEP.match(head)
    if told:
        head = stdin.readline(MAX_LINE)
    given = DELIMITERS.get(reading.delimiter) or (told and told[1].decode("latin-1"))
    sign = given or sniff(head.decode(errors="replace").encode(), WHERE, reading.decimal)
    follower = None
    for raw in chain([head], iter(lambda: stdin.readline(MAX_LINE), b"")):
        try:  # line by line: a quote that is not closed would take all that follow
            line = raw.decode("utf-8", "surrogateescape")
            cells = next(csv.reader([line], delimiter=sign, strict=True), [])
        except csv.Error as error:
            yield block_of([task.trouble(None, f"expected cells between {sign!r}, {error}")])
            continue
        if follower and len(follower.header) > 1 and len(cells) < 2 and not "".join(cells).strip():
            continue  # a line of blanks, as of a file
        if cells and follower:
            yield follower.rows(cells)
        elif cells:
            follower = Follower(task, [cell.strip() for cell in cells], stream, sign)
    if follower is None:
        raise InputError(WHERE, "expected a header line and rows of numbers, got nothing")


@dataclass
class Track:
    """What is known of one series: its last rows, the last time as written, and the state of a step graph."""

    series: Series
    stream: Stream | None
    cell: str = ""
    jumps: list[int] = field(default_factory=list)  # whole numbers behind the last gaps

    def add(self, time: Times, row: Rows, context: int, offset: str) -> None:
        """Take one more row: time (1,), numbers (1, D); times are then written with the offset of this one."""
        times, values = (
            np.concatenate([self.series.times, time]),
            np.concatenate([self.series.values, row]),
        )
        self.series = Series(self.series.id, times[-context:], values[-context:], offset)


@dataclass
class Follower:
    """Follower(task, header, stream).rows(cells)   # of each line behind the header"""

    task: ForecastTask
    header: list[str]
    stream: Stream | None
    delimiter: str = ","
    tracks: dict[str, Track] = field(default_factory=dict)

    def __post_init__(self) -> None:
        reading = self.task.reading
        self.columns, self.time, self.id, notes = reading.choose_columns(self.header)
        reading.check_columns(WHERE, self.header, self.columns, self.time, self.id)
        check_names(WHERE, self.header, [])  # each once
        for note in notes:
            self.task.say(note)
        self.step = Step.from_dict(reading.rule["step"]) if self.time else Step("index", 1)
        self.fills = (reading.gaps or reading.rule["gaps"]) == "interpolate"

    def rows(self, cells: list[str]) -> Block:
        """Return the rows of a forecast, or the one of an error."""
        name = None
        try:
            if len(cells) != len(self.header):
                raise InputError(
                    WHERE, f"expected {len(self.header)} cells as in the header, got {len(cells)}"
                )
            found = dict(zip(self.header, map(str.strip, cells), strict=True))
            name = found[self.id] if self.id else "series"
            return self._answer(name, found)
        except InputError as error:
            return block_of([self.task.trouble(name or None, error.reason)])

    def _answer(self, name: str, found: dict[str, str]) -> Block:
        row = np.array([[self._value(column, found[column]) for column in self.columns]])
        track = self.tracks.get(name) or self._start(name)
        time, offset = (
            self._time(track, found),
            common_offset([found[self.time]]) if self.time else "",
        )
        if self.time and (reason := self.task.reading.explain_other_offset(offset)):
            raise InputError(WHERE, f"column {self.time!r}: {reason}; it is passed over")
        cell = found[self.time] if self.time else ""
        steps = self._steps(track, time, cell, offset)
        behind = _after(time, track, cell)
        track.cell = cell
        numbered = steps > 1 and self._are_numbered(track, int(time[0].astype(np.int64)))
        if numbered or steps > (MAX_FILL if self.fills else 1):
            gap = behind + (f", which look like {DATES_AS_NUMBERS}" if numbered else "")
            self._push(self._start(name), time, row, offset)
            raise InputError(
                name, f"expected a row every {self.step}, got {gap}; the series starts anew"
            )
        last, before = track.series.values[-1:], track.series.times[-1:]
        day = month_day(np.concatenate([track.series.times, time]), offset)
        for k in range(1, steps):
            between = future_times(before[0], self.step, k, day=day, offset=offset)[-1:]
            self._push(track, between, last + (row - last) * k / steps, offset)
        origin, settled = self._push(track, time, row, offset)
        if origin.error and not settled:
            row_of = self.task.trouble(name, origin.error) | {"status": "unsettled"}
            return block_of([row_of | {"cutoff": format_times(time, offset=offset)[0]}])
        return self.task.block([origin], "ok" if settled else "unsettled")

    def _push(self, track: Track, time: Times, row: Rows, offset: str) -> tuple[Forecast, bool]:
        """Return the forecast after one more row, and whether it rests on all that a full window tells."""
        model, horizon = self.task.model, self.task.horizon
        track.add(time, row, model.context, offset)
        last = len(track.series.times) - 1
        if track.stream is None:
            [origin] = forecast_batch(model, self.step, [(track.series, last)], horizon)
            return origin, last + 1 == model.context
        forecast, quantiles, settled = track.stream.push(row[0])
        finite = np.isfinite(forecast).all() and np.isfinite(quantiles).all()
        trouble = "" if finite else "the model answered values that are not finite"
        if not has_times_after(time[0], self.step, horizon):
            trouble = NO_TIMES
        outside = bool(model.outside(track.series.values[None])[0])
        return Forecast(
            track.series, self.step, last, forecast[:horizon], quantiles[:horizon], trouble, outside
        ), settled

    def _start(self, name: str) -> Track:
        """Return the track of a series that starts now, or starts anew."""
        if not name:
            raise InputError(WHERE, f"column {self.id!r}: expected an id, got a missing value")
        if len(self.tracks) == MAX_SERIES and name not in self.tracks:
            raise InputError(
                name, f"expected at most {MAX_SERIES} series in one stream; start another"
            )
        times = np.empty(0, np.int64 if self.step.unit == "index" else "datetime64[s]")
        series = Series(name, times, np.empty((0, len(self.columns))))
        jumps = self.tracks[name].jumps if name in self.tracks else []
        self.tracks[name] = Track(series, self.stream.fork() if self.stream else None, jumps=jumps)
        return self.tracks[name]

    def _are_numbered(self, track: Track, number: int) -> bool:
        """Note the number behind a gap; True where it seems to be a date, as `convline.timeseries.timestamps.find_period_jump` says of files.

        Of a stream the last gaps alone are known: two to the same last two or three digits, three to the same last one.
        """
        track.jumps = [*track.jumps, number][-3:]
        if self.step.unit != "index":
            return False
        for digits, least in ((3, 2), (2, 2), (1, 3)):
            ends = {jump % 10**digits for jump in track.jumps[-least:]}
            known = len(track.jumps) >= least and self.step.count < 10**digits / 2
            if known and len(ends) == 1 and ends.pop() <= self.step.count:
                return True
        return False

    def _value(self, column: str, cell: str) -> float:
        decimal = self.task.reading.decimal
        if decimal == "auto" and self.delimiter == ";" and GROUPED.fullmatch(cell):
            what = f"expected an unmistakable decimal sign, got {cell!r}; say --decimal . or --decimal ,"
            raise InputError(WHERE, f"column {column!r}: {what}")
        value = parse_number(cell, "," if decimal == "," else ".")
        if value is None or not abs(value) <= LARGEST:
            hint = "; say --decimal ," if decimal == "auto" and "," in cell else ""
            got = (
                repr(cell)
                if value is None
                else "a missing value"
                if value != value
                else f"{cell!r} beyond float32"
            )
            raise InputError(WHERE, f"column {column!r}: expected a number, got {got}{hint}")
        return value

    def _time(self, track: Track, found: dict[str, str]) -> Times:
        """Return the time (1,) of a sample; without a time column samples are counted."""
        if not self.time:
            return np.concatenate([track.series.times[-1:] + 1, [0]])[:1]
        cell, whole = found[self.time], self.step.unit == "index"
        times, trouble = parse_times(
            [*filter(None, ["0" if whole else track.cell]), cell]
        )  # read as those before it
        if (times.dtype.kind == "i") != whole or (trouble and whole):
            cure = "" if whole else f"; {suggest_dates(int(times[-1]))}"
            raise InputError(
                WHERE, f"column {self.time!r}: expected a row every {self.step}, got {cell!r}{cure}"
            )
        if trouble:
            raise InputError(WHERE, f"column {self.time!r}: {trouble[1]}")
        return times[-1:]

    def _steps(self, track: Track, time: Times, cell: str, offset: str) -> int:
        """Return how many steps a time is behind the last one: 1 where nothing is missing between them."""
        if not len(track.series.times):
            return 1
        last = track.series.times[-1]
        if time[0] <= last:
            what = f"expected times in rising order, got {_after(time, track, cell)}"
            raise InputError(WHERE, f"{what}; it is passed over")
        before, here = positions(np.array([last, time[0]]), self.step.unit, offset).tolist()
        steps, rest = divmod(here - before, self.step.count)
        same = self.step.unit != "months" or are_months_apart(track.series.times, time, offset)
        if rest or not same:
            what = f"expected times that are whole steps of {self.step} apart"
            raise InputError(WHERE, f"{what}, got {_after(time, track, cell)}; it is passed over")
        return int(steps)


def _after(time: Times, track: Track, cell: str) -> str:
    """Return a time and the one before it in words, with offsets as they were given."""
    if track.series.offset:
        return f"{cell} after {track.cell}"
    both = np.concatenate([time, track.series.times[-1:]])
    return " after ".join(format_times(both, offset=track.series.offset))
