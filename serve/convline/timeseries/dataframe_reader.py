"""A DataFrame of pandas, polars or a similar library as a table of columns.

No such library is imported here: each column becomes an array by `numpy.asarray`. A named index
counts as a column.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from convline.errors import InputError
from convline.timeseries.raw_table import Array, Encoded, RawTable, encode_words, text_of

MISSING = frozenset({"None", "<NA>", "NaT", "nan"})  # how libraries write a missing value


@dataclass(frozen=True)
class DataFrameTable(RawTable):
    columns: dict[str, Array]  # (rows,) each

    def typed(self, name: str) -> Array | None:
        column = self.columns[name]
        return column if column.dtype.kind in "iufM" else None

    def encoded(self, name: str) -> Encoded:
        texts = (text_of(cell).strip() for cell in self.columns[name].tolist())
        return encode_words(["" if text in MISSING else text for text in texts])

    def numeric(self, names: Sequence[str]) -> list[str]:
        return [name for name in names if self.columns[name].dtype.kind in "iuf"]


def is_dataframe(source: object) -> bool:
    """Return whether an object is a DataFrame, judged by its methods."""
    return hasattr(source, "columns") and hasattr(source, "to_numpy")


def open_dataframe(frame: Any) -> DataFrameTable:
    """Return the columns of a DataFrame, a named index first; InputError if it has no row."""
    if any(name is not None for name in getattr(getattr(frame, "index", None), "names", [])):
        frame = frame.reset_index()
    if not len(frame):
        raise InputError("DataFrame", "expected rows of numbers, got none")
    header = [str(name) for name in frame.columns]
    # A repeated name would give a frame, not an array; `build_table` refuses it.
    repeated = len({*header}) < len(header)
    columns = {} if repeated else {str(name): np.asarray(frame[name]) for name in frame.columns}
    return DataFrameTable("DataFrame", "series", header, [], columns)
