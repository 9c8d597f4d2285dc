"""A CSV file as a table of columns.

Its delimiter and decimal sign are given, or found if only one choice fits.

delimiter `auto`: that of , ; tab | which cuts the first 20 rows into equally many cells, more than
one. If none does, the one that cuts the header: the error then names the row that differs. A file
without any has one column.

decimal `auto`: a point. Beside another delimiter than a comma, it is a comma if a cell of a column
of numbers is a number only so (1,5); points are then between thousands (1.234). Two possible
choices are an error, and so are cells such as 1.234 beside `;` if no other cell decides.

This module is written by hand, on the csv module of Python, because neither pyarrow nor numpy
refuses what is ambiguous, names the line of a wrong cell, or is always installed. Large plain files
are left to `csv_pyarrow`.
"""

import csv
import math
import re
from array import array
from codecs import BOM_UTF8
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import IO, Any

import numpy as np

from convline.errors import InputError, describe_count
from convline.timeseries import csv_pyarrow
from convline.timeseries.raw_table import GROUPED, Array, Encoded, RawTable, parse_number

DELIMITERS = {",": ",", ";": ";", "tab": "\t", "|": "|"}  # what a user types -> the character
SNIFFED_ROWS = 20
UTF16 = "UTF-16 or a binary file; save it as UTF-8 (iconv -f UTF-16 -t UTF-8)"
SIGNATURES = {  # first bytes of files that are no CSV
    b"\xff\xfe": UTF16,
    b"\xfe\xff": UTF16,
    b"\x1f\x8b": "a gzip file; decompress it first (gunzip)",
    b"PK\x03\x04": "a zip or Excel file; unpack it, or save it as CSV",
    b"\xd0\xcf\x11\xe0": "an Excel file; save it as CSV",
    b"PAR1": "a Parquet file; let its name end in .parquet",
}
# A first line that tells Excel the delimiter.
SEP = re.compile(rb'"?sep=(.)"?[ ]*\n', re.IGNORECASE)
NUMBER_OR_TIME = re.compile(r"[+-]?[\d.,]*\d([eE/:T-]|$)")  # how a cell of either begins
THOUSANDS = re.compile(r"[+-]?[1-9]\d{0,2},\d{3}")  # 1,234 is 1.234 to some and 1234 to others


@dataclass(frozen=True)
class CsvTable(RawTable):
    """A CSV file whose cells are split when an exact answer is needed.

    fast: the columns that `csv_pyarrow` has read. keys: the columns that are ids or times. before:
    the lines of the file between its header and the first row, of a later piece of a file.
    """

    data: bytes
    delimiter: str
    decimal: str  # "." | "," | "auto"
    fast: dict[str, Array | Encoded]
    keys: frozenset[str]
    before: int = 0

    @cached_property
    def exact(self) -> tuple[dict[str, Encoded], "array[int]"]:
        """All columns as text, and the line of each row; InputError names the first wrong line."""
        header, columns, lines = _split(self.data, self.where, self.delimiter, self.before)
        pairs = zip(header, columns, strict=True)
        return dict(reversed([*pairs])), lines  # of equal names the first column

    def place(self, row: int) -> str:
        return f"line {self.exact[1][row]}"

    def typed(self, name: str) -> Array | None:
        column = self.fast.get(name)
        return column if isinstance(column, np.ndarray) else None

    def encoded(self, name: str) -> Encoded:
        column = self.fast.get(name)
        return column if isinstance(column, tuple) else self.exact[0][name]

    def numeric(self, names: Sequence[str]) -> list[str]:
        """Return those of the names whose cells hold at least one number and no text."""
        numeric = []
        for name in names:
            numbers = [parse_number(word, self.decimal_sign) for word in self.exact[0][name][1]]
            known = [number for number in numbers if number is not None]
            if len(known) == len(numbers) and not all(map(math.isnan, known)):
                numeric.append(name)
        return numeric

    @cached_property
    def decimal_sign(self) -> str:
        """The decimal sign of all columns of numbers; InputError where their cells allow two."""
        if self.decimal != "auto" or self.delimiter == ",":
            return "." if self.decimal == "auto" else self.decimal
        cells = [
            cell
            for name, column in self.exact[0].items()
            if name not in self.keys
            for cell in _cells_with_a_sign(*column)
        ]
        commas = [cell for cell in cells if "," in cell]
        points = [cell for cell in cells if "." in cell]
        grouped = all(map(GROUPED.fullmatch, points))
        sure = any(cell.count(".") > 1 for cell in points) or not all(
            map(THOUSANDS.fullmatch, commas)
        )
        if commas and points and not (grouped and sure):
            point = next((cell for cell in points if not GROUPED.fullmatch(cell)), points[0])
            got = f"{commas[0]!r} and {point!r}; say --decimal , or ."
            raise InputError(self.where, f"expected one decimal sign, got {got}")
        expected = "expected an unmistakable decimal sign, got only cells such as"
        if commas and not sure:
            cure = "say --decimal , or take the commas out"
            raise InputError(self.where, f"{expected} {commas[0]!r}; {cure}")
        if not commas and points and grouped and not sure and self.delimiter == ";":
            cure = "say --decimal . or, if points are between thousands, --decimal ,"
            raise InputError(self.where, f"{expected} {points[0]!r}; {cure}")
        if commas or (points and grouped and sure):
            self.notes.append("decimal ','" + (", points between thousands" if points else ""))
            return ","
        return "."


def _cells_with_a_sign(codes: Array, words: list[str]) -> list[str]:
    """Return a column's numbers with a comma or a point; none if half of its cells are text."""
    if not any("," in word or "." in word for word in words):
        return []
    numbers = [
        parse_number(word, ".") is not None or parse_number(word, ",") is not None for word in words
    ]
    if 2 * np.bincount(codes, weights=np.array(numbers)[codes]).sum() <= len(codes):
        return []
    return [
        word for word, is_number in zip(words, numbers, strict=True)
        if is_number and ("," in word or "." in word)
    ]  # fmt: skip


def open_csv(
    source: str | Path | IO[str] | IO[bytes],
    delimiter: str = "auto",
    decimal: str = "auto",
    keys: Collection[str] = (),
) -> CsvTable:
    """Read a file with a header line.

    delimiter: a key of DELIMITERS, or auto. decimal: . or , or auto. keys: names of columns that
    are ids or times if the file has them; they are then read faster.
    """
    return parse_csv(*_read(source), delimiter, decimal, keys)


def parse_csv(
    where: str,
    data: bytes,
    delimiter: str = "auto",
    decimal: str = "auto",
    keys: Collection[str] = (),
    before: int = 0,
) -> CsvTable:
    """Return the table of UTF-8 whose lines end with LF, with the options of `open_csv`."""
    if sep := SEP.match(data):
        data = b"\n" + data[sep.end() :]  # lines keep their numbers
        if delimiter == "auto":
            signs = {sign: name for name, sign in DELIMITERS.items()}
            delimiter = signs.get(sep[1].decode("latin-1"), "auto")
    is_sniffed = delimiter == "auto"
    delimiter = sniff(data, where, decimal) if is_sniffed else DELIMITERS[delimiter]
    header, first, end = read_head(data, delimiter)
    table = CsvTable(
        where=where,
        stem=Path(where).stem if where != "-" else "series",
        header=header,
        notes=[f"delimiter {delimiter!r}"] if is_sniffed and delimiter != "," else [],
        data=data,
        delimiter=delimiter,
        decimal=decimal,
        fast=csv_pyarrow.read_columns(data, end, header, first, delimiter, decimal, keys),
        keys=frozenset(keys),
        before=before,
    )
    if not table.fast:
        table.exact  # noqa: B018  (whose errors belong to opening)
    return table


def _read(source: str | Path | IO[str] | IO[bytes]) -> tuple[str, bytes]:
    """Return (name for messages, "-" if there is none; UTF-8 whose lines end with LF)."""
    path = source if isinstance(source, str | Path) else getattr(source, "name", None)
    where = str(path) if isinstance(path, str | Path) else "-"
    try:
        content = Path(source).read_bytes() if isinstance(source, str | Path) else source.read()
        data = content.encode() if isinstance(content, str) else content
    except FileNotFoundError as error:
        raise InputError(where, "no such file") from error
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(where, f"the file cannot be read: {reason}") from error
    return where, clean(where, data)


def clean(where: str, data: bytes, before: int = 0) -> bytes:
    """Return UTF-8 without a mark, its lines ended by LF. before: the lines before it in its file.

    InputError tells what else the bytes are.
    """
    data = data.removeprefix(BOM_UTF8)
    try:
        if not data.isascii():
            data.decode()
    except UnicodeDecodeError as error:
        kind = describe_non_utf8(data, error, before)
        raise InputError(where, f"expected UTF-8 text, got {kind}") from error
    if b"\0" in data[: data.find(b"\n") + 1 or None]:
        raise InputError(where, f"expected UTF-8 text, got {UTF16}")
    return data.replace(b"\r\n", b"\n").replace(b"\r", b"\n") if b"\r" in data else data


def describe_non_utf8(data: bytes, error: UnicodeDecodeError, before: int = 0) -> str:
    """Return what bytes that are not UTF-8 seem to be, and the cure."""
    for signature, kind in SIGNATURES.items():
        if data.startswith(signature):
            return kind
    line = before + data.count(b"\n", 0, error.start) + 1
    cure = "save it as UTF-8 (of Latin-1: iconv -f LATIN1 -t UTF-8)"
    return f"the byte 0x{data[error.start]:02x} in line {line}; {cure}"


def _rows(data: bytes, delimiter: str) -> Any:
    """Return csv's reader of the lines of a text, which is not copied."""

    def lines() -> Iterator[str]:
        start = 0
        while start < len(data):
            end = data.find(b"\n", start) + 1 or len(data)
            yield data[start:end].decode()
            start = end

    return csv.reader(lines(), delimiter=delimiter, strict=True)


def sniff(data: bytes, where: str, decimal: str) -> str:
    """Return the one delimiter that fits the first rows; InputError where several do."""
    widths = {sign: _widths(data, sign) for sign in DELIMITERS.values() if sign != decimal}
    cut = [sign for sign, cells in widths.items() if cells and cells[0] > 1]
    even = [sign for sign in cut if len({*widths[sign]}) == 1]
    choices = even or cut or [*widths][:1]
    if len(choices) > 1:
        got = f"{choices[0]!r} and {choices[1]!r}; say --delimiter"
        raise InputError(where, f"expected one delimiter that fits, got {got}")
    return choices[0]


def _widths(data: bytes, delimiter: str) -> list[int]:
    """Return the cell count of each of the first rows; it ends with 0 where quotes do not fit."""
    widths: list[int] = []
    try:
        rows = filter(None, _rows(data, delimiter))
        widths.extend(len(row) for row in islice(rows, SNIFFED_ROWS))
    except csv.Error:
        widths.append(0)
    return widths


def read_head(data: bytes, delimiter: str) -> tuple[list[str], list[str], int]:
    """Return (header, first row, the byte where the header ends), empty if quotes do not fit."""
    reader, end = _rows(data, delimiter), 0
    try:
        header: list[str] = next(filter(None, reader), [])
        for _ in range(reader.line_num):
            end = data.find(b"\n", end) + 1 or len(data)
        return [cell.strip() for cell in header], next(filter(None, reader), []), end
    except csv.Error:
        return [], [], 0


def _split(
    data: bytes, where: str, delimiter: str, before: int = 0
) -> tuple[list[str], list[Encoded], "array[int]"]:
    """Return (header, columns of stripped cells, the line in which each row ends).

    before: is added to the lines.

    Empty lines, and lines of blanks, are skipped; in a file of one column, one between others is a
    missing value.
    """
    reader, lines = _rows(data.rstrip(b"\n"), delimiter), array("q")
    header: list[str] = []
    try:
        header = [cell.strip() for cell in next(filter(None, reader), [])]
        codes: list[array[int]] = [array("q") for _ in header]
        words: list[dict[str, int]] = [{} for _ in header]
        for row in reader:
            if len(header) > 1 and len(row) < 2 and not "".join(row).strip():
                continue
            if len(row or [""]) != len(header):
                line = before + reader.line_num
                raise InputError(where, _explain_width(line, header, row, words))
            lines.append(before + reader.line_num)
            for column, index, cell in zip(codes, words, row or [""], strict=True):
                column.append(index.setdefault(cell.strip(), len(index)))
    except csv.Error as error:
        reason = f"line {before + reader.line_num}: expected cells between {delimiter!r}, {error}"
        raise InputError(where, reason) from error
    if not lines:
        got = "only the header" if header else "no line"
        raise InputError(where, f"expected a header line and rows of numbers, got {got}")
    columns = [
        (np.frombuffer(column, np.int64), [*index])
        for column, index in zip(codes, words, strict=True)
    ]
    return header, columns, lines


def _explain_width(
    line: int, header: list[str], row: list[str], words: Sequence[Collection[str]]
) -> str:
    """Return why a row has not as many cells as the header; words: the cells of rows before it.

    A file without a number so far, such as Markdown or prose, is no table. Nor is one that begins
    with lines of one cell: these are notes above the header.
    """
    expected = f"expected {describe_count(len(header), 'cell')} as in the header, got {len(row)}"
    numbers = [bool(NUMBER_OR_TIME.match(cell.strip())) for cell in row]
    before = any(NUMBER_OR_TIME.match(word) for cells in words for word in cells)
    if all(numbers) or (len(header) > 1 and (before or any(numbers))):
        return f"line {line}: {expected}"
    cure = "give a CSV file, or remove the lines above its header"
    return f"expected a header line and rows of numbers, got text (line {line}: {expected}); {cure}"
