"""A table of columns to regular float series: training and serving read their files by this code.

A table holds one series, or several told apart by an `id` column. Each must be in time order
without duplicates; its step is the most common difference of times. What is missing (times, or
cells that are empty) is an error, or with gaps="interpolate" it is filled linearly in the number of
steps and counted. Nothing is filled before the first or after the last value of a column, and
nothing is sorted, dropped or averaged without a word.
"""

from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import IO, Any, TextIO

import numpy as np
import numpy.typing as npt

from convline.errors import InputError
from convline.model_file.document import Step
from convline.timeseries.csv_reader import open_csv
from convline.timeseries.dataframe_reader import is_dataframe, open_dataframe
from convline.timeseries.parquet_reader import is_parquet, open_parquet
from convline.timeseries.raw_table import RawTable
from convline.timeseries.timestamps import (
    Times,
    are_dates,
    find_offsets,
    find_period_jump,
    find_step,
    format_times,
    future_times,
    month_day,
    positions,
)

DataFrame = Any  # of any library: `convline.timeseries.dataframe_reader` uses its methods alone
TableSource = str | Path | IO[str] | IO[bytes] | DataFrame
GAPS = ("error", "interpolate")
INTERPOLATE = "allow interpolation (--gaps interpolate; in a recipe gaps: interpolate)"
DATES_AS_NUMBERS = (
    "dates written as numbers; write them as dates, such as 2024-03-31 "
    "(of a quarter or month, its first day)"
)
LOCAL = (
    "; if they are local days over a change of clocks, write the dates without a time and an offset"
)
# A filled series may have this many times its rows: a typo in one year must not ask for 10^9 rows.
MAX_FILL = 100


@dataclass(frozen=True)
class Series:
    """A regular series: times datetime64[s] in UTC or int64 (T,), values float64 (T, D), finite.

    offset: the UTC offset that its times are written with; see `timestamps.common_offset`.
    """

    id: str
    times: Times
    values: npt.NDArray[np.float64]
    offset: str = ""

    # These are cached because each cutoff of a backtest needs them.
    @cached_property
    def month_day(self) -> int:
        return month_day(self.times, self.offset)

    def after(self, row: int, step: Step, n: int) -> Times:
        """Return the n times after that of a row."""
        return future_times(self.times[row], step, n, day=self.month_day, offset=self.offset)

    @cached_property
    def dates(self) -> bool:
        """Whether its times are written as dates alone."""
        return are_dates(self.times) and not self.offset

    @cached_property
    def fits(self) -> bool:
        """Whether every value fits in float32, which a network reads."""
        return bool((np.abs(self.values) <= np.finfo(np.float32).max).all())


@dataclass(frozen=True)
class Table:
    """The series of one file in order of first appearance; `filled` counts the values made by
    interpolation.

    notes: what was found in the file without being told, such as its delimiter or its decimal sign.
    """

    series: list[Series]
    columns: list[str]
    step: Step
    filled: int
    notes: list[str]


@dataclass(frozen=True)
class _Rows:
    """The rows of one series as they stand in the file: values (T, D) with nan for missing cells.

    at: the row of each in the file (T,). time: the column of times.
    """

    file: RawTable
    id: str
    at: Sequence[int] | npt.NDArray[np.int64]
    times: Times
    values: npt.NDArray[np.float64]
    offset: str
    time: str | None

    def error(self, row: int, reason: str, column: str | None = None) -> InputError:
        return self.file.error(self.at[row], reason, column)

    @cached_property
    def changes_clocks(self) -> bool:
        """Whether times are text with several offsets, as over a change of clocks."""
        if self.offset != "Z" or self.file.typed(str(self.time)) is not None:
            return False
        return len(find_offsets(self.file.encoded(str(self.time))[1])) > 1

    def written(self, *rows: int) -> list[str]:
        """Return the times of some rows as the file has them if its offsets change, else as
        forecasts have them.
        """
        if not self.changes_clocks:
            return format_times(self.times[[*rows]], offset=self.offset)
        codes, words = self.file.encoded(str(self.time))
        return [words[codes[self.at[row]]] for row in rows]


def read_csv(
    source: str | Path | TextIO,
    *,
    columns: Sequence[str] | None = None,
    time: str | None = None,
    id: str | None = None,
    gaps: str = "error",
) -> Table:
    """Return the series of a CSV file with a header line, with the options of `build_table`."""
    return build_table(open_csv(source), columns=columns, time=time, id=id, gaps=gaps)


def open_file(
    source: TableSource, delimiter: str = "auto", decimal: str = "auto", keys: Collection[str] = ()
) -> RawTable:
    """Open a DataFrame, a Parquet file, or else a CSV file, with the options of `open_csv`."""
    if is_dataframe(source):
        return open_dataframe(source)
    if is_parquet(source):
        return open_parquet(source)
    return open_csv(source, delimiter, decimal, keys)


def build_table(
    file: RawTable,
    *,
    columns: Sequence[str] | None,
    time: str | None,
    id: str | None,
    gaps: str,
    name: str | None = None,
    step: Step | None = None,
) -> Table:
    """Return the series of an open file; InputError names file, row and value.

    columns: None takes every column except `time` and `id` whose cells are all numbers. time: None
    counts rows from 0. name: of a series without an id; None takes the stem of the file's name.
    step: where it is known, of an earlier piece of the file; else the times tell it.
    """
    if gaps not in GAPS:
        raise ValueError(f"build_table: expected gaps of {', '.join(GAPS)}, got {gaps!r}")
    keys = [name for name in (time, id) if name is not None]
    names = choose_columns(file, columns, keys)
    file.prefetch([*{*names, *keys}])
    split = [*_split(file, file.numbers(names), time, id, name or file.stem)]
    for rows in split:
        _check_order(rows)
    step = step or _common_step(split)
    filled = [_fill(rows, step, names, gaps) for rows in split]
    return Table(
        [series for series, _ in filled], names, step, sum(n for _, n in filled), file.notes
    )


def choose_columns(file: RawTable, columns: Sequence[str] | None, keys: list[str]) -> list[str]:
    """Return the columns of values, as `build_table` says; InputError where there are none."""
    check_names(file.where, file.header, [*keys, *(columns or ())])
    if columns is None:
        columns = file.numeric([column for column in file.header if column not in keys])
    if not columns:
        got = f"got only {', '.join(file.header)}"
        raise InputError(file.where, f"expected a column of numbers, {got}")
    return list(columns)


def check_names(where: str, header: list[str], names: list[str]) -> None:
    """Raise InputError where a name is not exactly one column of a header."""
    counts = Counter(header)  # of thousands of columns, each may be asked for
    repeated = sorted(name for name, count in counts.items() if count > 1)
    if repeated:
        got = f"got {repeated[0]!r} twice; rename one"
        raise InputError(where, f"expected different column names, {got}")
    for name in names:
        if name not in counts:
            have = ", ".join(header)
            raise InputError(where, f"expected a column {name!r}, got {have}; name one of these")


def _split(
    file: RawTable, values: npt.NDArray[np.float64], time: str | None, id: str | None, only: str
) -> Iterator[_Rows]:
    """Yield the rows of each id, ids in order of first appearance.

    values: (rows of the file, D). only: names the one series of a file without ids.
    """
    times, offset = (None, "") if time is None else file.times(time)
    codes, ids = (np.zeros(len(values), np.int64), [only]) if id is None else file.encoded(id)
    if "" in ids:
        row = (codes == ids.index("")).argmax()
        raise file.error(row, "expected an id, got a missing value", id)
    counts = np.bincount(codes, minlength=len(ids))
    is_sorted = bool((codes[1:] >= codes[:-1]).all())  # as in most files: no row moves
    small = np.min_scalar_type(len(ids))  # numpy sorts small integers by counting
    order = range(len(codes)) if is_sorted else np.argsort(codes.astype(small), kind="stable")
    for name, end, count in zip(ids, np.cumsum(counts).tolist(), counts.tolist(), strict=True):
        at = order[end - count : end]
        rows = slice(end - count, end) if is_sorted else at
        stamps = np.arange(count, dtype=np.int64) if times is None else times[rows]
        yield _Rows(file, name, at, stamps, values[rows], offset, time)


def _check_order(rows: _Rows) -> None:
    """Raise InputError at the first time that is not later than the one before it."""
    wrong = np.flatnonzero(rows.times[1:] <= rows.times[:-1])
    if len(wrong):
        row = int(wrong[0]) + 1
        time, before = rows.written(row, row - 1)
        got = "a duplicate" if rows.times[row] == rows.times[row - 1] else f"{time} after {before}"
        raise rows.error(
            row,
            f"expected times in rising order, got {got} ({time}) in series {rows.id!r}; sort the "
            "file, name the id column (--id; in a recipe id:), or give local times their offset "
            "from UTC",
        )


def _common_step(split: list[_Rows]) -> Step:
    """Return the one step of all series; InputError where they differ, or where times show none."""
    steps = {rows.id: find_step(rows.times, rows.offset) for rows in split if len(rows.times) > 1}
    where = split[0].file.where
    if split[0].time is not None and not steps:
        reason = "expected at least two rows to know the step between them, got one"
        raise InputError(where, reason)
    step = next(iter(steps.values()), Step("index", 1))
    for name, other in steps.items():
        if other != step:
            got = f"got {step} and {other} (series {name!r})"
            raise InputError(where, f"expected one step for all series, {got}")
    return step


def _fill(rows: _Rows, step: Step, columns: list[str], gaps: str) -> tuple[Series, int]:
    """Return the series on its regular grid, and the number of values that interpolation made."""
    position = positions(rows.times, step.unit, rows.offset)
    is_regular = bool((position[1:] - position[:-1] == step.count).all())
    if is_regular and not np.isnan(rows.values).any():
        return Series(rows.id, rows.times, rows.values, rows.offset), 0
    if step.unit == "index":
        _check_no_dates(rows, step, gaps)
    grid, rest = np.divmod(position - position[0], step.count)  # (rows,) the steps to each row
    if rest.any():
        row = int(np.flatnonzero(rest)[0])
        got = f"got {rows.written(row)[0]} in series {rows.id!r}"
        cure = "put them on one grid" + (LOCAL if rows.changes_clocks else "")
        raise rows.error(row, f"expected times that are whole steps of {step} apart, {got}; {cure}")
    steps = int(grid[-1]) + 1
    if gaps == "error":
        _check_complete(rows, grid, step, columns)
    if steps > MAX_FILL * len(grid):
        got = f"got {steps} for {len(grid)} rows"
        raise InputError(rows.file.where, f"expected at most {MAX_FILL} steps a row to fill, {got}")
    values = np.empty((steps, len(columns)))
    for column, name in enumerate(columns):
        known = ~np.isnan(rows.values[:, column])
        if not (known[0] and known[-1]):
            reason = "expected a number in the first and last row, got none; remove it"
            raise rows.error(-1 if known[0] else 0, reason, name)
        values[:, column] = np.interp(np.arange(steps), grid[known], rows.values[known, column])
    day = month_day(rows.times, rows.offset)
    later = future_times(rows.times[0], step, steps - 1, day=day, offset=rows.offset)
    times = np.concatenate([rows.times[:1], later])
    times[grid] = rows.times  # monthly stamps of the file stay as they are
    made = values.size - int((~np.isnan(rows.values)).sum())
    return Series(rows.id, times, values, rows.offset), made


def _check_no_dates(rows: _Rows, step: Step, gaps: str) -> None:
    """Raise InputError if whole numbers seem to be dates: nothing is between 20244 and 20251."""
    row = find_period_jump(rows.times, step.count, 1 if gaps == "error" else 2)
    if row is not None:
        got = f"got {rows.times[row]} after {rows.times[row - 1]} in series {rows.id!r}"
        raise rows.error(
            row, f"expected a row every {step}, {got}, which look like {DATES_AS_NUMBERS}"
        )


def _check_complete(
    rows: _Rows, grid: npt.NDArray[np.int64], step: Step, columns: list[str]
) -> None:
    """Raise InputError at the first missing cell or time."""
    missing = np.argwhere(np.isnan(rows.values))
    if len(missing):
        row, column = missing[0]
        reason = f"expected a number, got a missing value; fill it, or {INTERPOLATE}"
        raise rows.error(row, reason, columns[column])
    jumps = np.flatnonzero(np.diff(grid) != 1)
    if len(jumps):
        row = int(jumps[0]) + 1
        before, after = rows.written(row - 1, row)
        got = f"got {after} after {before} in series {rows.id!r}"
        reason = f"expected a row every {step}, {got}; add the rows, or {INTERPOLATE}"
        raise rows.error(row, reason)
