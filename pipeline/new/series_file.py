"""Look at a CSV or Parquet file of series: its columns, times, series and gaps.

The file is read as `infer series` and stage data read it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from convline.errors import InputError
from convline.images.decode import SUFFIXES
from convline.model_file.document import Step
from convline.timeseries.raw_table import MISSING, RawTable, parse_number
from convline.timeseries.series import Table, build_table, open_file
from convline.timeseries.timestamps import format_times

from pipeline.core.errors import StageError, hint
from pipeline.core.paths import located
from pipeline.data.season import describe_step
from pipeline.data.series_sources import TIME_NAMES, are_dates, require_header

LIKE_A_DATE = re.compile(r"\d{1,4}[./-]\d{1,2}[./-]\d{1,4}\b")  # 12/31/2024 is read as no time
ROWS_OF_A_SERIES = 10  # a column that tells series apart has as many rows for each, on average
TABLES = (".csv", ".tsv", ".txt", ".parquet")
EXCEL = (".xlsx", ".xls", ".ods")


@dataclass(frozen=True)
class SeriesFile:
    """What was seen in a file of series.

    table: its series with gaps filled. time, id: the columns of times and of series, if there are.
    left_out: the other columns, each with the reason. chosen: whether `table.columns` are not all
    numeric columns, so that the dataset must name them.
    """

    path: Path
    table: Table
    time: str | None
    id: str | None
    left_out: dict[str, str]
    chosen: bool

    @property
    def lengths(self) -> list[int]:
        """The rows of each series, with those that are filled."""
        return [len(one.values) for one in self.table.series]

    @property
    def step(self) -> Step:
        return self.table.step

    @property
    def facts(self) -> list[str]:
        """What was seen, one fact a line."""
        lengths, columns = self.lengths, self.table.columns
        rows = f"{lengths[0]:,}" if min(lengths) == max(lengths) else span(lengths)
        names = ", ".join(columns[:8]) + (f" and {len(columns) - 8} more" if columns[8:] else "")
        found = "; ".join(self.table.notes)
        facts = [
            f"file      {self.path.name}" + (f": {found}" if found else ""),
            f"columns   {len(columns)} to forecast: {names}",
        ]
        if self.left_out:
            named = [f"{name or 'nameless'} ({why})" for name, why in self.left_out.items()]
            facts.append(f"left out  {', '.join(named[:8])}{' ...' if named[8:] else ''}")
        if self.id is None:
            facts.append(f"series    1 of {rows} rows")
        else:
            facts.append(f"series    {len(lengths)}, told apart by {self.id}, of {rows} rows each")
        if self.time is None:
            facts.append("times     none: rows are counted")
        else:
            stamps = np.concatenate([one.times[[0, -1]] for one in self.table.series])
            first, last = format_times(np.array([stamps.min(), stamps.max()]))
            step = describe_step(self.step)
            facts.append(f"times     column {self.time}: every {step}, {first} to {last}")
        filled = self.table.filled
        total = sum(lengths) * len(columns)
        share = f"{filled:,} of {total:,} values are missing; they are filled by interpolation"
        return [*facts, f"gaps      {share if filled else 'none'}"]


def span(lengths: Sequence[int]) -> str:
    return f"{min(lengths):,} to {max(lengths):,}"


def look(file: Path, time: str | None, columns: list[str] | None, id: str | None) -> SeriesFile:
    """Return what is in a file; raise StageError or InputError where it holds no series.

    time, columns, id: names of columns, where the user gives them.
    """
    path = require_table(file)
    raw = open_file(path, keys=[name for name in (time, id, "ds", "unique_id") if name])
    require_header(path, raw.header)
    named = [("--time", time), ("--id", id), *(("--columns", name) for name in columns or ())]
    for option, name in named:
        if name is not None and name not in raw.header:
            cure = hint(name, raw.header)
            raise StageError(f"new: {option}: no column {name!r} in {file}; {cure}")
    time = time or find_time(raw, [*(columns or ()), *([id] if id else [])])
    if time:
        with with_cure("write them so, or name another column with --time"):
            raw.times(time)
    id = id or find_id(raw, time, columns or ())
    keys = [name for name in (time, id) if name]
    others = [name for name in raw.header if name not in keys]
    numeric = raw.numeric(others)
    for name in columns or ():
        refuse_words(raw, name)
    used = columns or choose_values(raw, others, numeric)
    table = build_table(raw, columns=used, time=time, id=id, gaps="interpolate")
    left_out = {
        name: "not asked for" if columns else "counts the rows" if name in numeric else "text"
        for name in others
        if name not in table.columns
    }
    return SeriesFile(path, table, time, id, left_out, table.columns != numeric)


def require_table(file: Path) -> Path:
    """Return the path of the file, here or below DATA_ROOT; StageError for what is no table."""
    path = located(str(file))
    if path.is_dir():
        cure = "name one CSV or Parquet file"
        if any(found.suffix.lower() in SUFFIXES for found in path.rglob("*")):
            cure = f"for images use `--images {file}`"
        raise StageError(f"new: --csv: expected a file, got the folder {file}; {cure}")
    if path.suffix.lower() in EXCEL:
        cure = "save the sheet as CSV (UTF-8)"
        raise StageError(f"new: --csv: expected CSV or Parquet, got the Excel file {file}; {cure}")
    if path.suffix.lower() in SUFFIXES:
        cure = "for images name their folder with --images"
        raise StageError(f"new: --csv: expected CSV or Parquet, got the image {file}; {cure}")
    if not path.exists():
        folder = path.parent
        near = [found.name for found in folder.glob("*") if found.suffix.lower() in TABLES]
        cure = hint(path.name, near) if near else "name a CSV or Parquet file"
        raise StageError(f"new: --csv: there is no file {file}; {cure}")
    if path.stat().st_size == 0:
        raise StageError(f"new: --csv: {file} is empty; expected a header line and rows of numbers")
    return path


def find_time(raw: RawTable, taken: Sequence[str]) -> str | None:
    """Return the column of times: `ds`, or the one whose cells are dates or whose name says so.

    None where there is none; StageError where there are several.
    """
    if "ds" in raw.header:
        return "ds"
    others = [name for name in raw.header if name not in taken]
    numeric = set(raw.numeric(others))
    found = [
        name
        for name in others
        if (name not in numeric or name == raw.header[0]) and looks_like_times(raw, name)
    ] or [name for name in others if name.lower() in TIME_NAMES]
    if len(found) > 1:
        raise StageError(
            f"new: {raw.where}: expected one column of times, got {' and '.join(found)}; name one"
            " with --time"
        )
    return found[0] if found else None


def looks_like_times(raw: RawTable, name: str) -> bool:
    """Return whether a column has dates, of the forms that are read or of others."""
    words = raw.encoded(name)[1]
    return are_dates(raw, name) or bool(LIKE_A_DATE.match(next(filter(None, words), "")))


def find_id(raw: RawTable, time: str | None, taken: Sequence[str]) -> str | None:
    """Return the column that tells series apart: `unique_id`, or the one without which times would
    not rise. None where the file is one series; StageError where several columns could do it.
    """
    if "unique_id" in raw.header:
        return "unique_id"
    if time is None:
        return None
    times, _ = raw.times(time)
    if (times[1:] > times[:-1]).all():
        return None
    others = [name for name in raw.header if name != time and name not in taken]
    numeric = set(raw.numeric(others))
    fitting = [name for name in others if tells_apart(times, *raw.encoded(name))]
    fitting = [name for name in fitting if name not in numeric] or fitting
    if len(fitting) > 1:
        raise StageError(
            f"new: {raw.where}: both {fitting[0]!r} and {fitting[1]!r} could tell the series apart;"
            " name one with --id"
        )
    return fitting[0] if fitting else None


def tells_apart(times: np.ndarray, codes: np.ndarray, words: list[str]) -> bool:
    """Return whether times (rows,) rise within the rows of each word."""
    if "" in words or not 1 < len(words) <= len(codes) / ROWS_OF_A_SERIES:
        return False
    order = np.argsort(codes, kind="stable")
    same = codes[order][1:] == codes[order][:-1]
    return bool((times[order][1:] > times[order][:-1])[same].all())


def choose_values(raw: RawTable, names: list[str], numeric: list[str]) -> list[str]:
    """Return the columns of numbers but one that counts the rows.

    A column of numbers with a word in it is an error, which names the line: it would be left out
    in silence. So is a file without numbers.
    """
    for name in names:
        if name not in numeric and is_mostly_numbers(raw, name):
            refuse_words(raw, name)
    if not numeric:
        got = f"text in {', '.join(map(repr, raw.header))}"
        cure = "give the file that has the values"
        raise StageError(f"new: {raw.where}: expected a column of numbers, got only {got}; {cure}")
    counters = [name for name in numeric if counts_rows(raw.numbers([name])[:, 0])]
    return [name for name in numeric if name not in counters] or numeric


def refuse_words(raw: RawTable, name: str) -> None:
    """Raise StageError with the first cell of a column that is no number."""
    with with_cure("correct it, empty the cell, or name other columns with --columns"):
        raw.numbers([name])


@contextmanager
def with_cure(cure: str) -> Iterator[None]:
    """Raise the StageError of an InputError, with a cure that this command offers."""
    try:
        yield
    except InputError as error:
        raise StageError(f"new: {error}; {cure}") from error


def is_mostly_numbers(raw: RawTable, name: str) -> bool:
    """Return whether more than half of a column's cells that are not empty are numbers."""
    codes, words = raw.encoded(name)
    known = np.array([word.lower() not in MISSING for word in words])[codes]
    number = np.array([parse_number(word, raw.decimal_sign) is not None for word in words])[codes]
    return bool((known & number).sum() * 2 > known.sum())


def counts_rows(values: np.ndarray) -> bool:
    """Return whether a column (rows,) is 0, 1, 2 and so on, or 1, 2, 3: no measurement."""
    return values[0] in (0, 1) and bool((np.diff(values) == 1).all())
