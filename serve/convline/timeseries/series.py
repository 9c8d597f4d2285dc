"""Files to regular float series: the reading of training and of serving, written once.

A file holds one series, or several told apart by an `id` column. Each must be in time order without duplicates; its
step is the most common difference. What is missing (time stamps, or cells that are empty or one of NAN) is an error,
or with gaps="interpolate" is filled linearly in the number of steps and counted. Nothing is filled before the first
or after the last value of a column, and nothing is ever sorted, dropped or averaged in silence.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import IO, Any, TextIO

import numpy as np
import numpy.typing as npt

from convline.errors import InputError
from convline.timeseries.csv_reader import CsvFile, open_csv
from convline.timeseries.dataframe_reader import FrameFile, is_dataframe, open_frame
from convline.timeseries.parquet_reader import ParquetFile, is_parquet, open_parquet
from convline.timeseries.timestamps import (
    LARGEST,
    Step,
    Times,
    are_dates,
    find_period_jump,
    find_step,
    format_times,
    future_times,
    month_day,
    offsets_of,
    positions,
)

__all__ = ["Series", "Step", "Table", "build_table", "future_times", "open_file", "read_csv"]

File = CsvFile | ParquetFile | FrameFile
Frame = Any  # a DataFrame: `convline.timeseries.dataframe_reader` asks for its methods alone
Raw = str | Path | IO[str] | IO[bytes] | Frame  # what can be opened
GAPS = ("error", "interpolate")
INTERPOLATE = "--gaps interpolate; in a recipe gaps: interpolate"
AS_NUMBERS = "dates written as numbers; write them as dates, such as 2024-03-31 (of a quarter or month, its first day)"
LOCAL = (
    "; if they are local days over a change of clocks, write the dates without a time and an offset"
)
MAX_FILL = 100  # a filled series may have this many times its rows: a typo in one year must not ask for 10^9 rows


@dataclass(frozen=True)
class Series:
    """One regular series: times datetime64[s] in UTC or int64 (T,), values float64 (T, D), all finite."""

    id: str
    times: Times
    values: npt.NDArray[np.float64]
    offset: str = (
        ""  # with which times are written, as `convline.timeseries.timestamps.common_offset` says
    )

    # Asked for at every rolling origin, so worked out once.
    @cached_property
    def month_day(self) -> int:
        return month_day(self.times, self.offset)

    def after(self, row: int, step: Step, n: int) -> Times:
        """Return the n times after that of a row."""
        return future_times(self.times[row], step, n, day=self.month_day, offset=self.offset)

    @cached_property
    def dates(self) -> bool:
        return are_dates(self.times) and not self.offset

    @cached_property
    def fits(self) -> bool:
        """Whether a network can take every value: float32."""
        return bool((np.abs(self.values) <= np.finfo(np.float32).max).all())


@dataclass(frozen=True)
class Table:
    """The series of one file in order of first appearance; `filled` counts the values made by interpolation.

    `notes` say what was found in the file and not told: its delimiter, its decimal sign.
    """

    series: list[Series]
    columns: list[str]
    step: Step
    filled: int
    notes: list[str]


@dataclass(frozen=True)
class _Rows:
    """The rows of one series as they stand in the file: values (T, D) with nan for missing cells."""

    id: str
    at: Sequence[int] | npt.NDArray[np.int64]  # the place of each in the file
    times: Times
    values: npt.NDArray[np.float64]
    offset: str
    time: str | None  # the column


def read_csv(
    source: str | Path | TextIO,
    *,
    columns: Sequence[str] | None = None,
    time: str | None = None,
    id: str | None = None,  # the field's word for it
    gaps: str = "error",
) -> Table:
    """Return the series of a CSV file with a header line; InputError names file, line and value.

    `columns` None takes every column but `time` and `id` whose cells are all numbers. `time` None counts rows from 0.
    """
    return build_table(open_csv(source), columns=columns, time=time, id=id, gaps=gaps)


def open_file(
    source: Raw, delimiter: str = "auto", decimal: str = "auto", keys: Collection[str] = ()
) -> File:
    """Open a DataFrame or Parquet as what it is, anything else as CSV, where `keys` may be ids or times."""
    if is_dataframe(source):
        return open_frame(source)
    if is_parquet(source):
        return open_parquet(source)
    return open_csv(source, delimiter, decimal, keys)


def build_table(
    file: File, *, columns: Sequence[str] | None, time: str | None, id: str | None, gaps: str
) -> Table:
    """Return the series of an open file, with the options of `read_csv`."""
    if gaps not in GAPS:
        raise ValueError(f"table_of: expected gaps of {', '.join(GAPS)}, got {gaps!r}")
    check_names(
        file.where, file.header, [name for name in (time, id, *(columns or ())) if name is not None]
    )
    names = (
        list(columns)
        if columns is not None
        else file.numeric([n for n in file.header if n not in (time, id)])
    )
    if not names:
        raise InputError(
            file.where, f"expected a column of numbers, got only {', '.join(file.header)}"
        )
    if isinstance(file, ParquetFile):
        file.ahead([*{*names, *([time] if time else []), *([id] if id else [])}])
    values = file.numbers(names)  # (T of all series, D)
    times = file.times(time) if time is not None else None
    if times is not None and times.dtype.kind == "i":
        _check_whole(file, times)
    offset = file.offset(time) if time is not None else ""
    codes, ids = (
        file.coded(id) if id is not None else (np.zeros(len(values), np.int64), [file.stem])
    )
    if "" in ids:
        row = int((codes == ids.index("")).argmax())
        raise InputError(
            file.where, f"{file.place(row)}, column {id!r}: expected an id, got a missing value"
        )
    return _regular_table(
        _split(codes, ids, times, values, offset, time), names, gaps, file, timed=time is not None
    )


def _check_whole(file: File, times: Times) -> None:
    """Raise InputError at a whole number so large that differences of times would not fit in 64 bits."""
    wrong = np.flatnonzero((times < -LARGEST) | (times > LARGEST))
    if len(wrong):
        row = int(wrong[0])
        raise InputError(
            file.where, f"{file.place(row)}: expected times from -2^62 to 2^62, got {times[row]}"
        )


def check_names(where: str, header: list[str], names: list[str]) -> None:
    """Raise InputError where a name is not one column of a header."""
    counts = Counter(header)  # of thousands of columns, each may be asked for
    repeated = sorted(name for name, count in counts.items() if count > 1)
    if repeated:
        raise InputError(
            where, f"expected different column names, got {repeated[0]!r} twice; rename one"
        )
    for name in names:
        if name not in counts:
            have = ", ".join(header)
            raise InputError(where, f"expected a column {name!r}, got {have}; name one of these")


def _split(
    codes: npt.NDArray[np.int64],
    ids: list[str],
    times: Times | None,
    values: npt.NDArray[np.float64],
    offset: str,
    time: str | None,
) -> Iterator[_Rows]:
    """Yield the rows of each id, ids in order of first appearance."""
    counts = np.bincount(codes, minlength=len(ids))
    together = bool((codes[1:] >= codes[:-1]).all())  # as most files have them: no row moves
    small = np.min_scalar_type(len(ids))  # few bits are sorted by counting
    order = range(len(codes)) if together else np.argsort(codes.astype(small), kind="stable")
    for name, end, count in zip(ids, np.cumsum(counts).tolist(), counts.tolist(), strict=True):
        at = order[end - count : end]
        own = slice(end - count, end) if together else at
        stamps = times[own] if times is not None else np.arange(count, dtype=np.int64)
        yield _Rows(name, at, stamps, values[own], offset, time)


def _regular_table(
    split: Iterable[_Rows], columns: list[str], gaps: str, file: File, *, timed: bool
) -> Table:
    found = [*split]
    for rows in found:
        _check_order(rows, file)
    steps = {rows.id: find_step(rows.times, rows.offset) for rows in found if len(rows.times) > 1}
    if timed and not steps:
        raise InputError(
            file.where, "expected at least two rows to know the step between them, got one"
        )
    step = next(iter(steps.values()), Step("index", 1))
    for name, other in steps.items():
        if other != step:
            raise InputError(
                file.where,
                f"expected one step for all series, got {step} and {other} (series {name!r})",
            )
    series, filled = [], 0
    for rows in found:
        regular, made = _fill(rows, step, columns, gaps, file)
        series.append(regular)
        filled += made
    return Table(series, columns, step, filled, file.notes)


def _check_order(rows: _Rows, file: File) -> None:
    """Raise InputError at the first time that is not later than the one before it."""
    wrong = np.flatnonzero(rows.times[1:] <= rows.times[:-1])
    if len(wrong):
        row = int(wrong[0]) + 1
        time, before = _written(rows, [row, row - 1], file)
        what = "a duplicate" if rows.times[row] == rows.times[row - 1] else f"{time} after {before}"
        raise InputError(
            file.where,
            f"{file.place(rows.at[row])}: expected times in rising order, got {what} ({time}) in series {rows.id!r}; "
            "sort the file, name the id column, or give local times their offset from UTC",
        )


def _fill(rows: _Rows, step: Step, columns: list[str], gaps: str, file: File) -> tuple[Series, int]:
    """Return the series on its regular grid, and the number of values that interpolation made."""
    place = positions(rows.times, step.unit, rows.offset)
    if (place[1:] - place[:-1] == step.count).all() and not np.isnan(rows.values).any():
        return Series(rows.id, rows.times, rows.values, rows.offset), 0
    if step.unit == "index":
        _check_counted(rows, step, gaps, file)
    offset = place - place[0]
    off_grid = np.flatnonzero(offset % step.count)
    if len(off_grid):
        row = int(off_grid[0])
        cure = LOCAL if _changes_clocks(rows, file) else ""
        raise InputError(
            file.where,
            f"{file.place(rows.at[row])}: expected times that are whole steps of {step} apart, "
            f"got {_written(rows, [row], file)[0]} in series {rows.id!r}; put them on one grid{cure}",
        )
    grid = offset // step.count  # (rows,) the place of each row, in steps
    steps = int(grid[-1]) + 1
    if gaps == "error":
        _check_complete(rows, grid, step, columns, file)
    if steps > MAX_FILL * len(grid):
        raise InputError(
            file.where,
            f"expected at most {MAX_FILL} steps a row to fill, got {steps} for {len(grid)} rows",
        )
    values = np.empty((steps, len(columns)))
    for column, name in enumerate(columns):
        known = ~np.isnan(rows.values[:, column])
        if not (known[0] and known[-1]):
            line = file.place(rows.at[0 if not known[0] else -1])
            raise InputError(
                file.where,
                f"{line}, column {name!r}: expected a number in the first and last row, got none; remove it",
            )
        values[:, column] = np.interp(np.arange(steps), grid[known], rows.values[known, column])
    made = values.size - int((~np.isnan(rows.values)).sum())
    return Series(rows.id, _grid_times(rows, grid, steps, step), values, rows.offset), made


def _check_counted(rows: _Rows, step: Step, gaps: str, file: File) -> None:
    """Raise InputError where whole numbers seem to be dates: what stands between 20244 and 20251 is no time at all."""
    if (row := find_period_jump(rows.times, step.count, 1 if gaps == "error" else 2)) is not None:
        got = f"{rows.times[row]} after {rows.times[row - 1]}"
        raise InputError(
            file.where,
            f"{file.place(rows.at[row])}: expected a row every {step}, got {got} in series {rows.id!r}, "
            f"which look like {AS_NUMBERS}",
        )


def _check_complete(
    rows: _Rows, grid: npt.NDArray[np.int64], step: Step, columns: list[str], file: File
) -> None:
    """Raise InputError at the first missing cell or time stamp."""
    empty = np.argwhere(np.isnan(rows.values))
    if len(empty):
        row, column = empty[0]
        raise InputError(
            file.where,
            f"{file.place(rows.at[row])}, column {columns[column]!r}: expected a number, got a missing value; "
            f"fill it, or allow interpolation ({INTERPOLATE})",
        )
    jumps = np.flatnonzero(np.diff(grid) != 1)
    if len(jumps):
        before, after = _written(rows, [jumps[0], jumps[0] + 1], file)
        raise InputError(
            file.where,
            f"{file.place(rows.at[jumps[0] + 1])}: expected a row every {step}, got {after} after {before} "
            f"in series {rows.id!r}; add the rows, or allow interpolation ({INTERPOLATE})",
        )


def _changes_clocks(rows: _Rows, file: File) -> bool:
    """True where times of a file are written with several offsets, as local ones are over a change of clocks."""
    return (
        rows.offset == "Z"
        and not isinstance(file, ParquetFile)
        and len(offsets_of(_words(rows, file))) > 1
    )


def _words(rows: _Rows, file: File) -> list[str]:
    return file.coded(str(rows.time))[1]


def _written(rows: _Rows, places: Sequence[int], file: File) -> list[str]:
    """Return the times of some rows as they stand in the file where its offsets change, else as forecasts give them."""
    if not _changes_clocks(rows, file):
        return format_times(rows.times[places], offset=rows.offset)
    codes, words = file.coded(str(rows.time))
    return [words[codes[rows.at[place]]] for place in places]


def _grid_times(rows: _Rows, grid: npt.NDArray[np.int64], steps: int, step: Step) -> Times:
    """Return all times of the grid, those of the file kept as they are."""
    day = month_day(rows.times, rows.offset)
    later = future_times(rows.times[0], step, steps - 1, day=day, offset=rows.offset)
    times = np.concatenate([rows.times[:1], later])
    times[grid] = rows.times
    return times
