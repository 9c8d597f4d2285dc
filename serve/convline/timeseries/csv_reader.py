"""A CSV file as columns of cells. Its delimiter and decimal sign are given, or found where only one answer fits.

Delimiter `auto`: the one of , ; tab | that cuts the first 20 rows into equally many cells, more than one, quotes
respected; where none does, the one that cuts the header (the row that differs is then named); a file without any has
one column. Decimal `auto`: a point; where the delimiter is no comma, a comma if some cell of some column of numbers is
one only so (1,5), points then being between thousands (1.234). Two answers are an error, and so is 1.234 beside `;`
where no cell decides. What was found other than a comma and a point stands in `notes`.
"""

import csv
import math
import re
import threading
from array import array
from codecs import BOM_UTF8
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from convline.errors import InputError
from convline.timeseries import csv_pyarrow
from convline.timeseries.raw_table import GROUPED, Encoded, encode_words, parse_number
from convline.timeseries.timestamps import Times, common_offset, parse_encoded_times

DELIMITERS = {",": ",", ";": ";", "tab": "\t", "|": "|"}  # what a user types -> the character
SNIFFED_ROWS = 20
KNOWN = 2**16  # different cells of a column that are looked up, so that equal ones share memory
LONGEST_CELL = (
    2**22
)  # characters: a cell that pyarrow takes, within its blocks of 1 MiB, is no error here
ONE_READER = (
    threading.Lock()
)  # csv's limit is of the whole process; parsing holds the interpreter's lock anyway
UTF16 = "UTF-16 or a binary file; save it as UTF-8 (iconv -f UTF-16 -t UTF-8)"
BEGINNINGS = {  # of files that are no CSV
    b"\xff\xfe": UTF16,
    b"\xfe\xff": UTF16,
    b"\x1f\x8b": "a gzip file; decompress it first (gunzip)",
    b"PK\x03\x04": "a zip or Excel file; unpack it, or save it as CSV",
    b"\xd0\xcf\x11\xe0": "an Excel file; save it as CSV",
    b"PAR1": "a Parquet file; let its name end in .parquet",
}
SEP = re.compile(
    rb'"?sep=(.)"?[ ]*\n', re.IGNORECASE
)  # a first line that tells Excel the delimiter
THOUSANDS = re.compile(r"[+-]?[1-9]\d{0,2},\d{3}")  # 1,234 is 1.234 to some and 1234 to others


@dataclass(frozen=True)
class CsvFile:
    """The columns of a file; InputError names line and column.

    `exact` is what the file says, cell by cell. `fast` holds columns that pyarrow has read of a file that leaves
    nothing to decide: numbers (rows,), or codes and words. Where it is not enough `exact` answers, errors above all.
    """

    where: str
    stem: str  # names the series of a file without an id column
    header: list[str]
    data: bytes
    delimiter: str
    decimal: str  # "." | "," | "auto"
    notes: list[str]
    fast: dict[str, Any]
    keys: frozenset[str] = frozenset()  # columns that are no numbers: ids and times

    @cached_property
    def exact(self) -> tuple[list[list[str]], "array[int]"]:
        """The stripped cells of each column, and the line where each row ends."""
        with _long_cells():
            return _read_columns(self.data, self.where, self.delimiter)

    def place(self, row: int) -> str:
        return f"line {self.exact[1][row]}"

    def coded(self, name: str) -> Encoded:
        """Return (codes int64 (rows,), the different cells in order of first appearance)."""
        found = self.fast.get(name)
        return found if isinstance(found, tuple) else encode_words(self._cells(name))

    def times(self, name: str) -> Times:
        """Return datetime64[s] or int64 (rows,)."""
        if isinstance(found := self.fast.get(name), np.ndarray) and found.dtype.kind == "M":
            return found
        times, trouble = parse_encoded_times(*self.coded(name))
        if trouble:
            raise InputError(self.where, f"{self.place(trouble[0])}, column {name!r}: {trouble[1]}")
        return times

    def offset(self, name: str) -> str:
        """Return the offset that a column of times is written with, as `convline.timeseries.timestamps.common_offset` says."""
        return (
            ""
            if isinstance(self.fast.get(name), np.ndarray)
            else common_offset(self.coded(name)[1])
        )

    def numbers(self, names: Sequence[str]) -> npt.NDArray[np.float64]:
        """Return (rows, D), nan where a cell is missing."""
        if all(
            isinstance(found := self.fast.get(name), np.ndarray) and found.dtype.kind == "f"
            for name in names
        ):
            found = [self.fast[name] for name in names]
            return np.stack(found, axis=1) if len(found) > 1 else found[0][:, None]
        decimal, columns = self._decimal, []
        for name in names:
            cells = self._cells(name)
            found = [parse_number(cell, decimal) for cell in cells]
            if None in found:
                row = found.index(None)
                raise InputError(
                    self.where,
                    f"{self.place(row)}, column {name!r}: expected a number, got {cells[row]!r}",
                )
            columns.append(np.array(found, np.float64))
        if decimal == "," and self.decimal == "auto":
            grouped = any("." in cell for name in names for cell in self._cells(name))
            self.notes.append("decimal ',', points between thousands" if grouped else "decimal ','")
        return np.stack(columns, axis=1)

    def numeric(self, names: Sequence[str]) -> list[str]:
        """Return those of the names whose cells hold at least one number and no text."""
        decimal, found = self._decimal, []
        for name in names:
            cells = [parse_number(cell, decimal) for cell in self._cells(name)]
            if None not in cells and not all(
                cell is not None and math.isnan(cell) for cell in cells
            ):
                found.append(name)
        return found

    def _cells(self, name: str) -> list[str]:
        return self.exact[0][self._places[name]]

    @cached_property
    def _places(self) -> dict[str, int]:
        return {
            name: place for place, name in reversed([*enumerate(self.header)])
        }  # the first of equal names

    @cached_property
    def _decimal(self) -> str:
        """The decimal sign of all columns of numbers; InputError where their cells allow two."""
        if self.decimal != "auto" or self.delimiter == ",":
            return "." if self.decimal == "auto" else self.decimal
        cells = [
            cell for name in self._places if name not in self.keys for cell in self._marked(name)
        ]
        commas = [cell for cell in cells if "," in cell]
        points = [cell for cell in cells if "." in cell]
        grouped = all(map(GROUPED.fullmatch, points))
        sure = any(cell.count(".") > 1 for cell in points) or not all(
            map(THOUSANDS.fullmatch, commas)
        )
        if commas and points and not (grouped and sure):
            point = next((cell for cell in points if not GROUPED.fullmatch(cell)), points[0])
            what = (
                f"expected one decimal sign, got {commas[0]!r} and {point!r}; say --decimal , or ."
            )
            raise InputError(self.where, what)
        if commas and not sure:
            raise InputError(
                self.where, f"expected an unmistakable decimal sign, got only cells such as {commas[0]!r}; "
                "say --decimal , or take the commas out",
            )  # fmt: skip
        if not commas and points and grouped and not sure and self.delimiter == ";":
            raise InputError(
                self.where, f"expected an unmistakable decimal sign, got only cells such as {points[0]!r}; "
                "say --decimal . or, if points are between thousands, --decimal ,",
            )  # fmt: skip
        return "," if commas or (points and grouped and sure) else "."

    def _marked(self, name: str) -> list[str]:
        """Return the cells of a column that are numbers with a comma or a point, none where most cells are text."""
        cells = self._cells(name)
        marked = [cell for cell in cells if "," in cell or "." in cell]
        if not marked or 2 * sum(map(_is_number, cells)) <= len(cells):
            return []
        return [*filter(_is_number, marked)]


def _is_number(cell: str) -> bool:
    return parse_number(cell, ".") is not None or parse_number(cell, ",") is not None


def open_csv(
    source: str | Path | IO[str] | IO[bytes],
    delimiter: str = "auto",
    decimal: str = "auto",
    keys: Collection[str] = (),
) -> CsvFile:
    """Read a file with a header line; `delimiter` is a key of DELIMITERS or auto, `decimal` . or , or auto.

    keys: names of columns that will be asked for as ids or times, where there are such: they are then read faster.
    """
    where, data = _read(source)
    if told := SEP.match(data):
        data = b"\n" + data[told.end() :]  # lines keep their numbers
        sign = told[1].decode("latin-1")
        delimiter = (
            next((n for n, s in DELIMITERS.items() if s == sign), "auto")
            if delimiter == "auto"
            else delimiter
        )
    sniffed = delimiter == "auto"
    delimiter = sniff(data, where, decimal) if sniffed else DELIMITERS[delimiter]
    header, first, end = _head(data, delimiter)
    file = CsvFile(
        where=where,
        stem=Path(where).stem if where != "-" else "series",
        header=header,
        data=data,
        delimiter=delimiter,
        decimal=decimal,
        notes=[f"delimiter {delimiter!r}"] if sniffed and delimiter != "," else [],
        fast=csv_pyarrow.columns(data, end, header, first, delimiter, decimal, keys),
        keys=frozenset(keys),
    )
    if not file.fast:
        file.exact  # noqa: B018  (its errors are those of opening)
    return file


def _read(source: str | Path | IO[str] | IO[bytes]) -> tuple[str, bytes]:
    """Return (name for messages, "-" where it has none, UTF-8 whose lines end with LF)."""
    path = source if isinstance(source, str | Path) else getattr(source, "name", None)
    where = str(path) if isinstance(path, str | Path) else "-"
    try:
        found = Path(source).read_bytes() if isinstance(source, str | Path) else source.read()
        data = found.encode() if isinstance(found, str) else found
        data = data.removeprefix(BOM_UTF8)
        if not data.isascii():
            data.decode()
    except FileNotFoundError as error:
        raise InputError(where, "no such file") from error
    except UnicodeDecodeError as error:
        raise InputError(
            where, f"expected UTF-8 text, got {describe_non_utf8(data, error)}"
        ) from error
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(where, f"the file cannot be read: {reason}") from error
    if b"\0" in data.partition(b"\n")[0]:
        raise InputError(where, f"expected UTF-8 text, got {UTF16}")
    return where, data.replace(b"\r\n", b"\n").replace(b"\r", b"\n") if b"\r" in data else data


def describe_non_utf8(data: bytes, error: UnicodeDecodeError) -> str:
    """Return what bytes that are not UTF-8 seem to be, and the cure."""
    for beginning, kind in BEGINNINGS.items():
        if data.startswith(beginning):
            return kind
    line = data.count(b"\n", 0, error.start) + 1
    return f"the byte 0x{data[error.start]:02x} in line {line}; save it as UTF-8 (of Latin-1: iconv -f LATIN1 -t UTF-8)"


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
    candidates = [sign for sign in DELIMITERS.values() if sign != decimal]
    widths = {sign: _widths(data, sign) for sign in candidates}
    cut = [sign for sign in candidates if widths[sign] and widths[sign][0] > 1]
    even = [sign for sign in cut if len({*widths[sign]}) == 1]
    found = even or cut or candidates[:1]
    if len(found) > 1:
        raise InputError(
            where,
            f"expected one delimiter that fits, got {found[0]!r} and {found[1]!r}; say --delimiter",
        )
    return found[0]


@contextmanager
def _long_cells() -> Iterator[None]:
    """Let cells be as long as LONGEST_CELL, and csv's limit be what it was afterwards."""
    with ONE_READER:
        before = csv.field_size_limit(LONGEST_CELL)
        try:
            yield
        finally:
            csv.field_size_limit(before)


def _widths(data: bytes, delimiter: str) -> list[int]:
    """Return the cells of each of the first rows, the last one 0 where quotes do not fit."""
    widths: list[int] = []
    try:
        with _long_cells():
            widths.extend(
                len(row) for row in islice(filter(None, _rows(data, delimiter)), SNIFFED_ROWS)
            )
    except csv.Error:
        widths.append(0)
    return widths


def _head(data: bytes, delimiter: str) -> tuple[list[str], list[str], int]:
    """Return (header, the row behind it, the byte where the header ends); empty where `exact` names the trouble."""
    try:
        reader, end = _rows(data, delimiter), 0
        with _long_cells():
            header: list[str] = next(filter(None, reader), [])
            for _ in range(reader.line_num):
                end = data.find(b"\n", end) + 1 or len(data)
            return [cell.strip() for cell in header], next(filter(None, reader), []), end
    except csv.Error:
        return [], [], 0


def _read_columns(data: bytes, where: str, delimiter: str) -> tuple[list[list[str]], "array[int]"]:
    """Return (the stripped cells of each column, the line of each row).

    Empty lines, and lines of blanks, are skipped; in a file of one column, one between others is a missing value.
    """
    reader, lines = _rows(data.rstrip(b"\n"), delimiter), array("q")
    columns: list[list[str]] = []
    known: list[dict[str, str]] = []  # equal cells are in memory once, as long as a column has few
    try:
        for header in filter(None, reader):
            columns, known = [[] for _ in header], [{} for _ in header]
            break
        for row in reader:
            if len(columns) > 1 and len(row) < 2 and not "".join(row).strip():
                continue
            if len(row or [""]) != len(columns):
                raise InputError(
                    where,
                    f"line {reader.line_num}: expected {len(columns)} cells as in the header, got {len(row)}",
                )
            lines.append(reader.line_num)
            for column, words, cell in zip(columns, known, row or [""], strict=True):
                cell = cell.strip()
                column.append(
                    words.setdefault(cell, cell) if len(words) < KNOWN else words.get(cell, cell)
                )
    except csv.Error as error:
        raise InputError(
            where, f"line {reader.line_num}: expected cells between {delimiter!r}, {error}"
        ) from error
    if not lines:
        raise InputError(
            where, f"expected a header line and rows of numbers, got {len(columns[:1])} lines"
        )
    return columns, lines
