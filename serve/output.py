"""Rows to a table, written as they come: CSV, JSON lines or Parquet by the suffix, CSV to stdout.

The same rows give the same table in each form: numbers keep 6 significant digits, names that are not UTF-8 show their
odd bytes as \\udcxx, a missing value is an empty cell or null. A file is written as `<name>.part` and renamed when it
is whole, so `<name>` is never half a table; after an error the part stays for a look.
In CSV alone a text that a spreadsheet would run as a formula (it starts with = + - @ tab or CR, and is no plain
number) gets a ' in front (CWE-1236): file names come from strangers.
"""

import csv
import io
import json
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from serve.errors import ServeError

Row = dict[str, str | float | None]
Columns = dict[str, type]  # name -> str or float, in order
Write = Callable[[Sequence[Row]], None]

SUFFIXES = (".csv", ".jsonl", ".parquet")
ROWS_PER_GROUP = 16384  # of Parquet: few enough to stay small in memory, enough for its columns to compress
FORMULA = re.compile(r"[=+\-@\t\r]")
NUMBER = re.compile(r"[+-]?\d+(\.\d+)?$")


@contextmanager
def open_table(target: str, columns: Columns, stdout: IO[bytes]) -> Iterator[Write]:
    """Give a function that appends rows to the file `target`, or to stdout where it is "-"."""
    if target == "-":
        with _csv(stdout, columns) as write:
            yield write
        return
    form = {".csv": _csv, ".jsonl": _jsonl, ".parquet": _parquet}[Path(target).suffix.lower()]
    part = Path(target + ".part")
    try:
        if Path(target).is_dir():
            raise ServeError(f"{target}: expected a file to write, got a folder; name a file in it")
        file = part.open("wb")
    except OSError as error:
        raise ServeError(f"{part}: cannot be written ({error.strerror}); make the folder or choose another") from error
    with file, form(file, columns) as write:
        yield write
    os.replace(part, target)


@contextmanager
def _csv(file: IO[bytes], columns: Columns) -> Iterator[Write]:
    text = io.TextIOWrapper(file, encoding="utf-8", newline="", write_through=True)
    plain = csv.writer(text, lineterminator="\n")
    # Before Python 3.13 the csv module leaves a lone CR unquoted, and readers then see a new row there.
    quoted = csv.writer(text, lineterminator="\n", quoting=csv.QUOTE_ALL)

    def write(rows: Sequence[Row]) -> None:
        for row in rows:
            cells = [_csv_cell(value) for value in _clean(row).values()]
            (quoted if any("\r" in cell for cell in cells) else plain).writerow(cells)
        text.flush()

    try:
        plain.writerow([_csv_cell(name) for name in columns])
        yield write
    finally:
        text.detach()  # the stream is not ours to close


def _csv_cell(value: str | float | None) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.6g}"
    return f"'{value}" if FORMULA.match(value) and not NUMBER.match(value) else value


@contextmanager
def _jsonl(file: IO[bytes], columns: Columns) -> Iterator[Write]:
    def write(rows: Sequence[Row]) -> None:
        file.writelines(json.dumps(_clean(row), allow_nan=False).encode() + b"\n" for row in rows)
        file.flush()

    yield write


@contextmanager
def _parquet(file: IO[bytes], columns: Columns) -> Iterator[Write]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise ServeError(
            "pyarrow cannot be imported; pip install 'convline[parquet]', or write .csv or .jsonl"
        ) from error
    types = {str: pyarrow.string(), float: pyarrow.float64()}
    schema = pyarrow.schema([(name, types[kind]) for name, kind in columns.items()])
    waiting: list[Mapping[str, Any]] = []
    with pyarrow.parquet.ParquetWriter(file, schema) as writer:

        def write_group() -> None:
            writer.write_table(pyarrow.Table.from_pylist(waiting, schema))
            waiting.clear()

        def write(rows: Sequence[Row]) -> None:
            waiting.extend(map(_clean, rows))
            if len(waiting) >= ROWS_PER_GROUP:
                write_group()

        yield write
        write_group()


def _clean(row: Row) -> Row:
    """Return the row with 6 significant digits and text that is valid Unicode, alike for every form."""
    return {name: _clean_value(value) for name, value in row.items()}


def _clean_value(value: str | float | None) -> str | float | None:
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode()
    return float(f"{value:.6g}") if value is not None else None
