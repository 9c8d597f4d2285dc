"""A DataFrame as columns, read as a Parquet file is: pandas, polars, or whatever else has columns by name.

No such library is imported here; each column becomes an array by `numpy.asarray`. A named index counts as a column.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from convline.errors import InputError
from convline.timeseries.raw_table import Encoded, encode_words, parse_number, text_of
from convline.timeseries.timestamps import Times, common_offset, integer_times, parse_encoded_times

MISSING = frozenset({"None", "<NA>", "NaT", "nan"})  # how libraries write a missing value


@dataclass(frozen=True)
class FrameFile:
    """What CsvFile is, for a DataFrame; InputError names row (from 1) and column."""

    where: str
    stem: str
    header: list[str]
    notes: list[str]
    columns: dict[str, npt.NDArray[Any]]  # (rows,) each

    def place(self, row: int) -> str:
        return f"row {row + 1}"

    def coded(self, name: str) -> Encoded:
        """Return (codes int64 (rows,), the different cells as text in order of first appearance), "" where missing."""
        return encode_words(_texts(self.columns[name]))

    def times(self, name: str) -> Times:
        """Return datetime64[s] or int64 (rows,)."""
        column = self.columns[name]
        if column.dtype.kind in "iu":
            return integer_times(column.astype(np.int64))
        if column.dtype.kind == "M":
            seconds = column.astype("datetime64[s]")
            wrong = np.flatnonzero(np.isnat(column) | (seconds.astype(column.dtype) != column))
            if len(wrong):
                raise self._error(wrong[0], name, f"expected whole seconds, got {column[wrong[0]]}")
            return seconds
        times, trouble = parse_encoded_times(*self.coded(name))
        if trouble:
            raise self._error(trouble[0], name, trouble[1])
        return times

    def offset(self, name: str) -> str:
        """Return the offset that a column of texts is written with; arrays of times have none."""
        return "" if self.columns[name].dtype.kind in "iuM" else common_offset(self.coded(name)[1])

    def numbers(self, names: Sequence[str]) -> npt.NDArray[np.float64]:
        """Return (rows, D), nan where a cell is missing."""
        return np.stack([self._numbers(name) for name in names], axis=1)

    def numeric(self, names: Sequence[str]) -> list[str]:
        """Return those of the names whose columns are of numbers."""
        return [name for name in names if self.columns[name].dtype.kind in "iuf"]

    def _numbers(self, name: str) -> npt.NDArray[np.float64]:
        column = self.columns[name]
        if column.dtype.kind in "iuf":
            values = column.astype(np.float64)
            if np.isinf(values).any():
                raise self._error(
                    int(np.isinf(values).argmax()), name, "expected a finite number, got inf"
                )
            return values
        cells = _texts(column)
        found = [parse_number(cell, ".") for cell in cells]
        if None in found:
            row = found.index(None)
            raise self._error(row, name, f"expected a number, got {cells[row]!r}")
        return np.array([math.nan if value is None else value for value in found])

    def _error(self, row: int, name: str, reason: str) -> InputError:
        return InputError(self.where, f"{self.place(int(row))}, column {name!r}: {reason}")


def is_dataframe(given: object) -> bool:
    """Return whether something is a DataFrame, as far as its methods tell."""
    return hasattr(given, "columns") and hasattr(given, "to_numpy")


def open_frame(frame: Any) -> FrameFile:
    """Return the columns of a DataFrame, those of a named index first; InputError where it has no row."""
    if any(name is not None for name in getattr(getattr(frame, "index", None), "names", [])):
        frame = frame.reset_index()
    header = [str(name) for name in frame.columns]
    repeated = len({*header}) < len(header)  # which is found where the names are checked
    columns = {} if repeated else {str(name): np.asarray(frame[name]) for name in frame.columns}
    if not len(frame):
        raise InputError("DataFrame", "expected rows of numbers, got none")
    return FrameFile(where="DataFrame", stem="series", header=header, notes=[], columns=columns)


def _texts(column: npt.NDArray[Any]) -> list[str]:
    """Return each cell as text, "" where it is missing."""
    return ["" if (text := text_of(cell).strip()) in MISSING else text for cell in column.tolist()]
