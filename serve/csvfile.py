"""A CSV file as columns of cells. Its delimiter and decimal sign are given, or found where only one answer fits.

Delimiter `auto`: the one of , ; tab | that cuts the first 20 rows into equally many cells, more than one, quotes
respected; where none does, the one that cuts the header (the row that differs is then named); a file without any has
one column. Decimal `auto`: a point; a comma where the delimiter is another and some cell is a number only so (1,5).
Two answers are an error. What was found other than a comma and a point stands in `notes`.
"""

import csv
import io
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TextIO

import numpy as np
import numpy.typing as npt

from serve.errors import InputError
from serve.times import Times, parse_times

NAN = frozenset({"", "na", "n/a", "nan", "null", "none"})  # compared in lower case
DELIMITERS = {",": ",", ";": ";", "tab": "\t", "|": "|"}  # what a user types -> the character
SNIFFED_ROWS = 20
THOUSANDS = re.compile(r"[+-]?[1-9]\d{0,2},\d{3}")  # 1,234 is 1.234 to some and 1234 to others


@dataclass(frozen=True)
class CsvFile:
    """The rows of a file as stripped cells, each with the line where it ends; InputError names line and column."""

    where: str
    stem: str  # names the series of a file without an id column
    header: list[str]
    rows: list[list[str]]
    lines: list[int]
    delimiter: str
    decimal: str  # "." | "," | "auto"
    notes: list[str]

    def place(self, row: int) -> str:
        return f"line {self.lines[row]}"

    def texts(self, name: str) -> list[str]:
        index = self.header.index(name)
        return [row[index] for row in self.rows]

    def times(self, name: str) -> Times:
        """Return datetime64[s] or int64 (rows,)."""
        times, trouble = parse_times(self.texts(name))
        if trouble:
            raise InputError(self.where, f"{self.place(trouble[0])}, column {name!r}: {trouble[1]}")
        return times

    def numbers(self, names: Sequence[str]) -> npt.NDArray[np.float64]:
        """Return (rows, D), nan where a cell is missing."""
        values = np.empty((len(self.rows), len(names)))
        decimal = self._decimal_of(names)
        for column, name in enumerate(names):
            for row, cell in enumerate(self.texts(name)):
                value = _number(cell, decimal)
                if value is None:
                    raise InputError(self.where, f"{self.place(row)}, column {name!r}: expected a number, got {cell!r}")
                values[row, column] = value
        if decimal == "," and self.decimal == "auto":
            self.notes.append("decimal ','")
        return values

    def numeric(self, names: Sequence[str]) -> list[str]:
        """Return those of the names whose cells hold at least one number and no text."""
        decimal, found = self._decimal_of(names), []
        for name in names:
            cells = [_number(cell, decimal) for cell in self.texts(name)]
            if None not in cells and not all(cell is not None and math.isnan(cell) for cell in cells):
                found.append(name)
        return found

    def _decimal_of(self, names: Sequence[str]) -> str:
        """Return the decimal sign of some columns; InputError where their cells allow two."""
        if self.decimal != "auto" or self.delimiter == ",":
            return "." if self.decimal == "auto" else self.decimal
        cells = [cell for name in names for cell in self.texts(name)]
        commas = [cell for cell in cells if "," in cell and _number(cell, ",") is not None]
        if not commas:
            return "."
        points = [cell for cell in cells if "." in cell and _number(cell, ".") is not None]
        if points:
            raise InputError(
                self.where, f"expected one decimal sign, got {commas[0]!r} and {points[0]!r}; say --decimal , or ."
            )
        if all(THOUSANDS.fullmatch(cell) for cell in commas):
            raise InputError(
                self.where, f"expected an unmistakable decimal sign, got only cells such as {commas[0]!r}; "
                "say --decimal , or take the commas out",
            )  # fmt: skip
        return ","


def open_csv(source: str | Path | TextIO, delimiter: str = "auto", decimal: str = "auto") -> CsvFile:
    """Read a file with a header line; `delimiter` is a key of DELIMITERS or auto, `decimal` . or , or auto."""
    where, text = _read_text(source)
    sniffed = delimiter == "auto"
    delimiter = _sniff(text, where, decimal) if sniffed else DELIMITERS[delimiter]
    rows, lines = _read_rows(text, where, delimiter)
    return CsvFile(
        where=where,
        stem=Path(source).stem if isinstance(source, str | Path) else "series",
        header=rows[0],
        rows=rows[1:],
        lines=lines[1:],
        delimiter=delimiter,
        decimal=decimal,
        notes=[f"delimiter {delimiter!r}"] if sniffed and delimiter != "," else [],
    )


def _read_text(source: str | Path | TextIO) -> tuple[str, str]:
    """Return (name for messages, text)."""
    where = str(source) if isinstance(source, str | Path) else "-"
    try:
        if isinstance(source, str | Path):
            return where, Path(source).read_text(encoding="utf-8-sig")
        return where, source.read().removeprefix("\ufeff")
    except FileNotFoundError as error:
        raise InputError(where, "no such file") from error
    except UnicodeDecodeError as error:
        raise InputError(where, f"expected UTF-8 text, got byte {error.start} that is none") from error
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(where, f"the file cannot be read: {reason}") from error


def _sniff(text: str, where: str, decimal: str) -> str:
    """Return the one delimiter that fits the first rows; InputError where several do."""
    candidates = [sign for sign in DELIMITERS.values() if sign != decimal]
    widths = {sign: _widths(text, sign) for sign in candidates}
    cut = [sign for sign in candidates if widths[sign] and widths[sign][0] > 1]
    even = [sign for sign in cut if len({*widths[sign]}) == 1]
    found = even or cut or candidates[:1]
    if len(found) > 1:
        raise InputError(where, f"expected one delimiter that fits, got {found[0]!r} and {found[1]!r}; say --delimiter")
    return found[0]


def _widths(text: str, delimiter: str) -> list[int]:
    """Return the cells of each of the first rows, the last one 0 where quotes do not fit."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    widths: list[int] = []
    try:
        widths.extend(len(row) for row in islice(filter(None, reader), SNIFFED_ROWS))
    except csv.Error:
        widths.append(0)
    return widths


def _read_rows(text: str, where: str, delimiter: str) -> tuple[list[list[str]], list[int]]:
    """Return (rows of stripped cells, the header first; the line of each).

    Empty lines are skipped; in a file of one column, one between others is a missing value.
    """
    reader = csv.reader(io.StringIO(text.rstrip("\r\n"), newline=""), delimiter=delimiter, strict=True)
    rows: list[list[str]] = []
    lines: list[int] = []
    try:
        for row in reader:
            if row or (rows and len(rows[0]) == 1):
                rows.append([cell.strip() for cell in row or [""]])
                lines.append(reader.line_num)
    except csv.Error as error:
        raise InputError(where, f"line {reader.line_num}: expected cells between {delimiter!r}, {error}") from error
    if len(rows) < 2:
        raise InputError(where, f"expected a header line and rows of numbers, got {len(rows)} lines")
    for row, line in zip(rows[1:], lines[1:], strict=True):
        if len(row) != len(rows[0]):
            raise InputError(where, f"line {line}: expected {len(rows[0])} cells as in the header, got {len(row)}")
    return rows, lines


def _number(cell: str, decimal: str) -> float | None:
    """Return the number of a cell, nan for a missing one, None for text; 1_000 and inf are text."""
    if cell.lower() in NAN:
        return math.nan
    if "_" in cell or (decimal == "," and "." in cell):
        return None
    try:
        value = float(cell.replace(decimal, "."))
    except ValueError:
        return None
    return value if math.isfinite(value) else None
