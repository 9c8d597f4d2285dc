"""The columns of a table before they are series, whatever holds them: CSV, Parquet or a DataFrame.

A reader subclasses `RawTable` and hands over each column either typed (an array) or as text that is
encoded (codes and words). What is common is here: times, numbers, and errors that name the row.

Numbers of text are read by hand, not by numpy or pyarrow: `1_000`, `inf` and thousands that could
be decimals must be errors, and a missing cell has several spellings.
"""

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from convline.errors import InputError
from convline.timeseries.timestamps import LARGEST, Times, common_offset, integer_times, parse_times

Array = npt.NDArray[Any]
# Codes (rows,) and the different words that they stand for, in order of first appearance.
Encoded = tuple[Array, list[str]]

MISSING = frozenset({"", "na", "n/a", "nan", "null", "none"})  # compared in lower case
GROUPED = re.compile(r"[+-]?[1-9]\d{0,2}(\.\d{3})+(,\d*)?")  # 1.234.567,8: points between thousands


@dataclass(frozen=True)
class RawTable:
    """Named columns of equally many rows.

    where: the file's path, for messages. stem: names the series of a table without ids. notes: what
    was found in the file without being told, such as its delimiter.
    """

    where: str
    stem: str
    header: list[str]
    notes: list[str]

    @property
    def decimal_sign(self) -> str:
        """The decimal sign of numbers that are text."""
        return "."

    def typed(self, name: str) -> Array | None:
        """Return a column of integers, floats or datetime64 (rows,), nulls as nan or NaT.

        None if the column is text.
        """
        raise NotImplementedError

    def encoded(self, name: str) -> Encoded:
        """Return a column of any type as text, "" where a cell is missing."""
        raise NotImplementedError

    def numeric(self, names: Sequence[str]) -> list[str]:
        """Return those of the names whose columns hold numbers."""
        raise NotImplementedError

    def prefetch(self, names: Sequence[str]) -> None:
        """Read columns that will be asked for, if that is faster for all at once."""

    def place(self, row: int) -> str:
        """Return the place of a row in words, as its author counts."""
        return f"row {row + 1}"

    def error(self, row: int | np.integer[Any], reason: str, name: str | None = None) -> InputError:
        column = "" if name is None else f", column {name!r}"
        return InputError(self.where, f"{self.place(int(row))}{column}: {reason}")

    def times(self, name: str) -> tuple[Times, str]:
        """Return times datetime64[s] in UTC or int64 (rows,), and their `common_offset`.

        InputError names the first cell that is no time.
        """
        values = self.typed(name)
        if values is not None and values.dtype.kind in "iu":
            wrong = np.flatnonzero((values < -LARGEST) | (values > LARGEST))
            if len(wrong):
                reason = f"expected times from -2^62 to 2^62, got {values[wrong[0]]}"
                raise self.error(wrong[0], reason, name)
            return integer_times(values.astype(np.int64)), ""
        if values is not None and values.dtype.kind == "M":
            if (missing := np.isnat(values)).any():
                raise self.error(missing.argmax(), "expected a time, got a missing value", name)
            seconds = values.astype("datetime64[s]")
            wrong = np.flatnonzero(seconds.astype(values.dtype) != values)
            if len(wrong):
                raise self.error(wrong[0], f"expected whole seconds, got {values[wrong[0]]}", name)
            return seconds, ""
        codes, words = self.encoded(name)
        times, trouble = parse_times(words)
        if trouble:
            raise self.error((codes == trouble[0]).argmax(), trouble[1], name)
        return times[codes], common_offset(words)

    def numbers(self, names: Sequence[str]) -> npt.NDArray[np.float64]:
        """Return float64 (rows, D), nan where a cell is missing.

        InputError names the first cell that is no number.
        """
        first = self._numbers(names[0])
        if len(names) == 1:
            return first[:, None]
        values = np.empty((len(first), len(names)))
        values[:, 0] = first
        for place, name in enumerate(names[1:], start=1):
            values[:, place] = self._numbers(name)
        return values

    def _numbers(self, name: str) -> npt.NDArray[np.float64]:
        typed = self.typed(name)
        if typed is not None and typed.dtype.kind in "iuf":
            values = typed.astype(np.float64, copy=False)
            infinite = np.isinf(values)
            if infinite.any():
                row = int(infinite.argmax())
                raise self.error(row, f"expected a finite number, got {values[row]}", name)
            return values
        codes, words = self.encoded(name)
        numbers = [parse_number(word, self.decimal_sign) for word in words]
        if None in numbers:
            wrong = numbers.index(None)
            reason = f"expected a number, got {words[wrong]!r}"
            raise self.error((codes == wrong).argmax(), reason, name)
        return np.array(numbers, np.float64)[codes]


def parse_number(cell: str, decimal: str) -> float | None:
    """Return the number of a cell, nan for a missing one, None for text such as 1_000 and inf.

    decimal: the sign "." or ","; beside a comma, points between thousands are left out.
    """
    if cell.lower() in MISSING:
        return math.nan
    if decimal == "," and "." in cell:
        if not GROUPED.fullmatch(cell):
            return None
        cell = cell.replace(".", "")
    if "_" in cell:
        return None
    try:
        value = float(cell.replace(decimal, "."))
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def encode_words(cells: Sequence[str]) -> Encoded:
    """Return the codes of cells, and the different cells in order of first appearance."""
    index: dict[str, int] = {}
    codes = np.fromiter(
        (index.setdefault(cell, len(index)) for cell in cells), np.int64, len(cells)
    )
    return codes, [*index]


def order_by_appearance(codes: Array, words: Iterable[str]) -> Encoded:
    """Return what `encode_words` returns; the words may have any order, repeat or be unused."""
    named = [*words]
    first = np.full(len(named), len(codes))
    first[codes[::-1]] = np.arange(len(codes))[::-1]  # of equal places the last assignment stays
    order = np.argsort(first, kind="stable")[: np.count_nonzero(first < len(codes))]
    ranks, ordered = encode_words([named[place] for place in order.tolist()])
    rank = np.zeros(len(named), np.int64)
    rank[order] = ranks
    return codes if np.array_equal(rank, np.arange(len(ordered))) else rank[codes], ordered


def text_of(cell: Any) -> str:
    """Return a cell of any type as text; some libraries write text to Parquet as bytes of UTF-8."""
    return cell.decode("utf-8", "surrogateescape") if isinstance(cell, bytes) else str(cell)
