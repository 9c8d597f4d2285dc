"""A Parquet file as a table of columns, by pyarrow, the extra `parquet`.

Each column is read when it is asked for, and the number of rows is checked before. pyarrow is
imported inside functions, because the package works without it.

Numbers are columns of integers, floats or decimals. Times are integers, dates, timestamps (those
with a time zone are in UTC) or text as in a CSV. Ids may have any type and become text.
"""

import io
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from convline.errors import InputError
from convline.runtime.pyarrow_errors import pyarrow_errors
from convline.timeseries.raw_table import Array, Encoded, RawTable, order_by_appearance, text_of
from convline.timeseries.timestamps import Times

# Bytes of the columns asked for, 8 a cell: a file of kilobytes can hold 10^12 equal rows.
MAX_BYTES = 2**31
NOT_A_TIME = np.datetime64("NaT").astype(np.int64)


@dataclass(frozen=True)
class ParquetTable(RawTable):
    file: Any  # pyarrow.parquet.ParquetFile
    columns: dict[str, Any] = field(default_factory=dict)  # those that were read

    def prefetch(self, names: Sequence[str]) -> None:
        self._check_size(len(names))
        with pyarrow_errors(self.where):
            table = self.file.read(columns=[*names])
            self.columns.update({name: table.column(name) for name in names})

    def typed(self, name: str) -> Array | None:
        from pyarrow import timestamp, types

        column = self._column(name)
        kind = column.type
        with pyarrow_errors(self.where):
            if types.is_integer(kind) and not column.null_count:
                return to_array(column, np.dtype(str(kind)))
            if self.numeric([name]):
                return to_array(column.cast("float64", safe=False), np.float64, math.nan)
            if types.is_date(kind):
                column = column.cast(timestamp("s"))
            elif not types.is_timestamp(kind):
                return None
            unit = column.type.unit
            return to_array(column.cast("int64"), np.int64, NOT_A_TIME).view(f"datetime64[{unit}]")

    def encoded(self, name: str) -> Encoded:
        import pyarrow

        column = self._column(name)
        with pyarrow_errors(self.where):
            coded = column if hasattr(column.chunk(0), "dictionary") else column.dictionary_encode()
            column = coded.unify_dictionaries()
            words = [*map(text_of, column.chunk(0).dictionary.to_pylist()), ""]
            codes = pyarrow.chunked_array([chunk.indices.cast("int64") for chunk in column.chunks])
            return order_by_appearance(to_array(codes, np.int64, len(words) - 1), words)

    def times(self, name: str) -> tuple[Times, str]:
        times, offset = super().times(name)
        return times, "Z" if getattr(self._column(name).type, "tz", None) else offset

    def numbers(self, names: Sequence[str]) -> npt.NDArray[np.float64]:
        self._check_size(len(names))
        for name in names:
            if not self.numeric([name]):
                kind = self.file.schema_arrow.field(name).type
                reason = f"column {name!r}: expected numbers, got {kind}; cast it"
                raise InputError(self.where, reason)
        return super().numbers(names)

    def numeric(self, names: Sequence[str]) -> list[str]:
        from pyarrow import types

        kinds = {name: self.file.schema_arrow.field(name).type for name in names}
        tests = (types.is_integer, types.is_floating, types.is_decimal)
        return [name for name, kind in kinds.items() if any(test(kind) for test in tests)]

    def _column(self, name: str) -> Any:
        if name not in self.columns:
            self.prefetch([name])
        return self.columns[name]

    def _check_size(self, columns: int) -> None:
        """Raise InputError where that many columns would be more than MAX_BYTES.

        The sizes of column chunks are not used: pyarrow 26 aborts the process for them on a damaged
        footer.
        """
        size = 8 * self.file.metadata.num_rows * columns
        if size > MAX_BYTES:
            reason = f"expected at most {MAX_BYTES} bytes of data, got {size}; split the file"
            raise InputError(self.where, reason)


def is_parquet(source: Any) -> bool:
    """Return whether a path ends in .parquet, or an open binary file begins as Parquet does."""
    if isinstance(source, str | Path):
        return Path(source).suffix.lower() == ".parquet"
    if isinstance(source, io.TextIOBase) or not source.seekable():
        return False
    start = source.tell()
    head = source.read(4)
    source.seek(start)
    return bool(head == b"PAR1")


def open_parquet(source: Any, **options: Any) -> ParquetTable:
    """Open a path or an open binary file, and read the names and types of its columns.

    options: of pyarrow's ParquetFile.
    """
    is_path = isinstance(source, str | Path)
    where = str(source if is_path else getattr(source, "name", "series.parquet"))
    with pyarrow_errors(where):
        from pyarrow import parquet

        if is_path and not os.path.isfile(source):  # Path.is_file raises where a name is too long
            reason = "expected a file, got a folder; name a file"
            raise InputError(where, reason if os.path.exists(source) else "no such file")
        # Text stays encoded: one long word that every row repeats is then in memory once.
        schema = parquet.read_schema(source)
        texts = [column.name for column in schema if str(column.type).endswith("string")]
        file = parquet.ParquetFile(source, read_dictionary=texts, **options)
    if file.metadata.num_rows == 0:
        raise InputError(where, "expected rows of numbers, got none")
    return ParquetTable(where, Path(where).stem, schema.names, [], file)


def to_array(column: Any, kind: npt.DTypeLike, missing: Any = 0) -> Array:
    """Return a pyarrow column as an array (rows,) of a type of equal width, nulls as `missing`.

    pyarrow's own to_numpy and fill_null import pandas where that is installed, which takes two
    seconds.
    """
    chunks, width = [chunk for chunk in column.chunks if len(chunk)], np.dtype(kind).itemsize
    values = np.concatenate(
        [np.frombuffer(c.buffers()[1], kind, len(c), c.offset * width) for c in chunks]
    )
    if column.null_count:
        nulls = np.concatenate([np.from_dlpack(c.is_null().cast("int8")) for c in chunks])
        values[nulls == 1] = missing
    return values
