"""CSV files to regular float series: the reading of training and of serving, written once.

A file holds one series, or several told apart by an `id` column. Each must be in time order without duplicates; its
step is the most common difference. What is missing (time stamps, or cells that are empty or one of NAN) is an error,
or with gaps="interpolate" is filled linearly in the number of steps and counted. Nothing is filled before the first
or after the last value of a column, and nothing is ever sorted, dropped or averaged in silence.
"""

import csv
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

import numpy as np
import numpy.typing as npt

from serve.errors import InputError
from serve.times import Step, Times, are_month_ends, base_step, format_times, future_times, parse_times, positions

__all__ = ["Series", "Step", "Table", "future_times", "read_csv"]

NAN = frozenset({"", "na", "n/a", "nan", "null", "none"})  # compared in lower case
GAPS = ("error", "interpolate")
MAX_FILL = 100  # a filled series may have this many times its rows: a typo in one year must not ask for 10^9 rows


@dataclass(frozen=True)
class Series:
    """One regular series: times datetime64[s] or int64 (T,), values float64 (T, D), all finite."""

    id: str
    times: Times
    values: npt.NDArray[np.float64]


@dataclass(frozen=True)
class Table:
    """The series of one file in order of first appearance; `filled` counts the values made by interpolation."""

    series: list[Series]
    columns: list[str]
    step: Step
    filled: int


@dataclass(frozen=True)
class _Rows:
    """The rows of one series as they stand in the file: values (T, D) with nan for missing cells."""

    id: str
    lines: list[int]
    times: Times
    values: npt.NDArray[np.float64]


def read_csv(
    source: str | Path | TextIO,
    *,
    columns: Sequence[str] | None = None,
    time: str | None = None,
    id: str | None = None,  # the field's word for it
    gaps: str = "error",
) -> Table:
    """Return the series of a comma-separated file with a header line; InputError names file, line and value.

    `columns` None takes every column but `time` and `id` whose cells are all numbers. `time` None counts rows from 0.
    """
    if gaps not in GAPS:
        raise ValueError(f"read_csv: expected gaps of {', '.join(GAPS)}, got {gaps!r}")
    where, text = _read_text(source)
    header, rows, lines = _read_rows(text, where)
    for name in [n for n in (time, id) if n is not None]:
        _find(header, name, where)
    names = list(columns) if columns is not None else _numeric_columns(header, rows, (time, id))
    if not names:
        raise InputError(where, f"expected a column of numbers, got only {', '.join(header)}")
    values = np.empty((len(rows), len(names)))  # (T of all series, D)
    for column, name in enumerate(names):
        values[:, column] = _parse_column(rows, lines, _find(header, name, where), name, where)
    times = _parse_times(rows, lines, header, time, where) if time is not None else None
    stem = Path(source).stem if isinstance(source, str | Path) else "series"
    ids = [row[_find(header, id, where)] for row in rows] if id is not None else [stem] * len(rows)
    return _regular_table(_split(ids, lines, times, values), names, gaps, where, timed=time is not None)


def _read_text(source: str | Path | TextIO) -> tuple[str, str]:
    """Return (name for messages, text)."""
    where = str(source) if isinstance(source, str | Path) else "-"
    try:
        if isinstance(source, str | Path):
            return where, Path(source).read_text(encoding="utf-8-sig")
        return where, source.read()
    except FileNotFoundError as error:
        raise InputError(where, "no such file") from error
    except UnicodeDecodeError as error:
        raise InputError(where, f"expected UTF-8 text, got byte {error.start} that is none") from error
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(where, f"the file cannot be read: {reason}") from error


def _read_rows(text: str, where: str) -> tuple[list[str], list[list[str]], list[int]]:
    """Return (header, rows of stripped cells, the line of each row); empty lines are skipped."""
    reader = csv.reader(io.StringIO(text.removeprefix("\ufeff"), newline=""), strict=True)
    rows, lines = [], []
    try:
        for row in reader:
            if row:
                rows.append([cell.strip() for cell in row])
                lines.append(reader.line_num)
    except csv.Error as error:
        raise InputError(where, f"line {reader.line_num}: expected comma-separated values, {error}") from error
    if len(rows) < 2:
        raise InputError(where, f"expected a header line and rows of numbers, got {len(rows)} lines")
    header = rows[0]
    repeated = sorted({name for name in header if header.count(name) > 1})
    if repeated:
        raise InputError(where, f"expected different column names, got {repeated[0]!r} twice; rename one")
    for row, line in zip(rows[1:], lines[1:], strict=True):
        if len(row) != len(header):
            raise InputError(where, f"line {line}: expected {len(header)} cells as in the header, got {len(row)}")
    return header, rows[1:], lines[1:]


def _find(header: list[str], name: str, where: str) -> int:
    if name not in header:
        raise InputError(where, f"expected a column {name!r}, got {', '.join(header)}; name one of these")
    return header.index(name)


def _number(cell: str) -> float | None:
    """Return the number of a cell, nan for a missing one, None for text."""
    if cell.lower() in NAN:
        return math.nan
    try:
        value = float(cell)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _numeric_columns(header: list[str], rows: list[list[str]], others: tuple[str | None, ...]) -> list[str]:
    """Return the names of columns with at least one number and no text."""
    found = []
    for index, name in enumerate(header):
        cells = [_number(row[index]) for row in rows] if name not in others else [None]
        if all(cell is not None for cell in cells) and not all(cell is not None and math.isnan(cell) for cell in cells):
            found.append(name)
    return found


def _parse_column(rows: list[list[str]], lines: list[int], index: int, name: str, where: str) -> list[float]:
    values = []
    for row, line in zip(rows, lines, strict=True):
        value = _number(row[index])
        if value is None:
            raise InputError(where, f"line {line}, column {name!r}: expected a number, got {row[index]!r}")
        values.append(value)
    return values


def _parse_times(rows: list[list[str]], lines: list[int], header: list[str], time: str, where: str) -> Times:
    times, trouble = parse_times([row[header.index(time)] for row in rows])
    if trouble:
        row, reason = trouble
        raise InputError(where, f"line {lines[row]}, column {time!r}: {reason}")
    return times


def _split(ids: list[str], lines: list[int], times: Times | None, values: npt.NDArray[np.float64]) -> list[_Rows]:
    """Return the rows of each id, ids in order of first appearance."""
    members: dict[str, list[int]] = {}
    for row, name in enumerate(ids):
        members.setdefault(name, []).append(row)
    return [
        _Rows(
            id=name,
            lines=[lines[row] for row in own],
            times=times[own] if times is not None else np.arange(len(own), dtype=np.int64),
            values=values[own],
        )
        for name, own in members.items()
    ]


def _regular_table(found: list[_Rows], columns: list[str], gaps: str, where: str, *, timed: bool) -> Table:
    for rows in found:
        _check_order(rows, where)
    steps = {rows.id: base_step(rows.times) for rows in found if len(rows.times) > 1}
    if timed and not steps:
        raise InputError(where, "expected at least two rows to know the step between them, got one")
    step = next(iter(steps.values()), Step("index", 1))
    for name, other in steps.items():
        if other != step:
            raise InputError(where, f"expected one step for all series, got {step} and {other} (series {name!r})")
    series, filled = [], 0
    for rows in found:
        regular, made = _fill(rows, step, columns, gaps, where)
        series.append(regular)
        filled += made
    return Table(series, columns, step, filled)


def _check_order(rows: _Rows, where: str) -> None:
    """Raise InputError at the first time that is not later than the one before it."""
    wrong = np.flatnonzero(np.diff(rows.times) <= np.zeros((), np.diff(rows.times).dtype))
    if len(wrong):
        row = int(wrong[0]) + 1
        time, before = format_times(rows.times[[row, row - 1]])
        what = "a duplicate" if time == before else f"{time} after {before}"
        raise InputError(
            where,
            f"line {rows.lines[row]}: expected times in rising order, got {what} ({time}) in series {rows.id!r}; "
            "sort the file, or name the id column",
        )


def _fill(rows: _Rows, step: Step, columns: list[str], gaps: str, where: str) -> tuple[Series, int]:
    """Return the series on its regular grid, and the number of values that interpolation made."""
    place = positions(rows.times, step.unit)
    offset = place - place[0]
    off_grid = np.flatnonzero(offset % step.count)
    if len(off_grid):
        row = int(off_grid[0])
        raise InputError(
            where,
            f"line {rows.lines[row]}: expected times that are whole steps of {step} apart, "
            f"got {format_times(rows.times)[row]} in series {rows.id!r}",
        )
    grid = offset // step.count  # (rows,) the place of each row, in steps
    steps = int(grid[-1]) + 1
    if gaps == "error":
        _check_complete(rows, grid, step, columns, where)
    if steps > MAX_FILL * len(grid):
        raise InputError(where, f"expected at most {MAX_FILL} steps a row to fill, got {steps} for {len(grid)} rows")
    values = np.empty((steps, len(columns)))
    for column, name in enumerate(columns):
        known = ~np.isnan(rows.values[:, column])
        if not (known[0] and known[-1]):
            line = rows.lines[0 if not known[0] else -1]
            raise InputError(
                where, f"line {line}, column {name!r}: expected a number in the first and last row, got none; remove it"
            )
        values[:, column] = np.interp(np.arange(steps), grid[known], rows.values[known, column])
    made = values.size - int((~np.isnan(rows.values)).sum())
    return Series(rows.id, _grid_times(rows, grid, steps, step), values), made


def _check_complete(rows: _Rows, grid: npt.NDArray[np.int64], step: Step, columns: list[str], where: str) -> None:
    """Raise InputError at the first missing cell or time stamp."""
    empty = np.argwhere(np.isnan(rows.values))
    if len(empty):
        row, column = empty[0]
        raise InputError(
            where,
            f"line {rows.lines[row]}, column {columns[column]!r}: expected a number, got a missing value; "
            "fill it, or allow interpolation (gaps: interpolate)",
        )
    jumps = np.flatnonzero(np.diff(grid) != 1)
    if len(jumps):
        before, after = format_times(rows.times[jumps[0] : jumps[0] + 2])
        raise InputError(
            where,
            f"line {rows.lines[jumps[0] + 1]}: expected a row every {step}, got {after} after {before} "
            f"in series {rows.id!r}; add the rows, or allow interpolation (gaps: interpolate)",
        )


def _grid_times(rows: _Rows, grid: npt.NDArray[np.int64], steps: int, step: Step) -> Times:
    """Return all times of the grid, those of the file kept as they are."""
    later = future_times(rows.times[0], step, steps - 1, month_end=are_month_ends(rows.times))
    times = np.concatenate([rows.times[:1], later])
    times[grid] = rows.times
    return times
