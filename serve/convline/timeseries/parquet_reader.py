"""A Parquet file as columns, each read when it is asked for; pyarrow is imported here and nowhere at the top.

Numbers are columns of integers, floats or decimals. Times are integers, dates, timestamps (those with a time zone as
UTC) or text as in a CSV. Ids are anything, as text. The number of rows is checked before they are read.
"""

import io
import math
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from convline.errors import InputError, ServeError
from convline.timeseries.csv_pyarrow import plain
from convline.timeseries.raw_table import Encoded, order_by_appearance, text_of
from convline.timeseries.timestamps import Times, common_offset, integer_times, parse_encoded_times

MAX_BYTES = (
    2**31
)  # of the columns asked for, 8 a cell: a file of kilobytes can hold 10^12 equal rows


@dataclass(frozen=True)
class ParquetFile:
    """What CsvFile is, for Parquet; InputError names row (from 1) and column."""

    where: str
    stem: str
    header: list[str]
    notes: list[str]
    file: Any  # pyarrow.parquet.ParquetFile
    read: dict[str, Any] = field(default_factory=dict)  # columns

    def ahead(self, names: Sequence[str]) -> None:
        """Read columns that will be asked for, side by side."""
        self._check_size(len(names))
        with _pyarrow_errors(self.where):
            table = self.file.read(columns=[*names])
            self.read.update({name: table.column(name) for name in names})

    def place(self, row: int) -> str:
        return f"row {row + 1}"

    def coded(self, name: str) -> Encoded:
        """Return (codes int64 (rows,), the different cells as text in order of first appearance), "" where missing."""
        import pyarrow

        column = self._column(name)
        with _pyarrow_errors(self.where):
            coded = column if hasattr(column.chunk(0), "dictionary") else column.dictionary_encode()
            column = coded.unify_dictionaries()
            words = [*map(text_of, column.chunk(0).dictionary.to_pylist()), ""]
            codes = pyarrow.chunked_array([chunk.indices.cast("int64") for chunk in column.chunks])
            return order_by_appearance(plain(codes, np.int64, len(words) - 1), words)

    def times(self, name: str) -> Times:
        """Return datetime64[s] or int64 (rows,)."""
        from pyarrow import ArrowInvalid, timestamp, types

        column = self._column(name)
        if column.null_count:
            missing = int(plain(column.is_null().cast("int8"), np.int8).argmax())
            raise self._error(missing, name, "expected a time, got a missing value")
        if types.is_integer(column.type):
            with _pyarrow_errors(self.where):
                return integer_times(plain(column.cast("int64"), np.int64))
        if not (types.is_timestamp(column.type) or types.is_date(column.type)):
            times, trouble = parse_encoded_times(*self.coded(name))
            if trouble:
                raise self._error(trouble[0], name, trouble[1])
            return times
        try:
            seconds = column.cast(
                timestamp("s", column.type.tz if types.is_timestamp(column.type) else None)
            )
        except ArrowInvalid:
            exact = column.to_numpy()
            row = int((exact.astype("datetime64[s]") != exact).argmax())
            raise self._error(row, name, f"expected whole seconds, got {exact[row]}") from None
        return plain(seconds.cast("int64"), np.int64).view("datetime64[s]")

    def offset(self, name: str) -> str:
        """Return the offset that times are written with; Z for those of a type with a time zone, which are UTC."""
        from pyarrow import types

        kind = self._column(name).type
        if types.is_timestamp(kind):
            return "Z" if kind.tz else ""
        return (
            ""
            if types.is_integer(kind) or types.is_date(kind)
            else common_offset(self.coded(name)[1])
        )

    def numbers(self, names: Sequence[str]) -> npt.NDArray[np.float64]:
        """Return (rows, D), nan where a cell is missing."""
        self._check_size(len(names))
        values = np.empty((self.file.metadata.num_rows, len(names)))
        for place, name in enumerate(names):
            if self.numeric([name]) != [name]:
                kind = self.file.schema_arrow.field(name).type
                raise InputError(
                    self.where, f"column {name!r}: expected numbers, got {kind}; cast it"
                )
            with _pyarrow_errors(self.where):
                values[:, place] = plain(
                    self._column(name).cast("float64", safe=False), np.float64, math.nan
                )
            wrong = np.flatnonzero(np.isinf(values[:, place]))
            if len(wrong):
                raise self._error(
                    wrong[0], name, f"expected a number, got {values[wrong[0], place]}"
                )
        return values

    def numeric(self, names: Sequence[str]) -> list[str]:
        """Return those of the names whose columns are of numbers."""
        from pyarrow import types

        kinds = {name: self.file.schema_arrow.field(name).type for name in names}
        tests = (types.is_integer, types.is_floating, types.is_decimal)
        return [name for name, kind in kinds.items() if any(test(kind) for test in tests)]

    def _column(self, name: str) -> Any:
        if name not in self.read:
            self.ahead([name])
        return self.read[name]

    def _check_size(self, columns: int) -> None:
        """Raise InputError where that many columns would be more than MAX_BYTES.

        The sizes of column chunks are not asked for: on a damaged footer pyarrow 26 then aborts the process.
        """
        size = 8 * self.file.metadata.num_rows * columns
        if size > MAX_BYTES:
            raise InputError(
                self.where,
                f"expected at most {MAX_BYTES} bytes of data, got {size}; split the file",
            )

    def _error(self, row: int, name: str, reason: str) -> InputError:
        return InputError(self.where, f"{self.place(row)}, column {name!r}: {reason}")


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


def open_parquet(source: Any) -> ParquetFile:
    """Read what a path or an open file says of itself: names and types of its columns, the number of its rows."""
    path = Path(
        source if isinstance(source, str | Path) else str(getattr(source, "name", "series.parquet"))
    )
    try:
        from pyarrow import parquet
    except ImportError as error:
        raise ServeError(
            f"{path}: pyarrow cannot be imported; pip install 'convline[parquet]'"
        ) from error
    where = str(path)
    if isinstance(source, str | Path) and not os.path.isfile(
        path
    ):  # pathlib's own raises where a name is too long
        raise InputError(
            where,
            "expected a file, got a folder; name a file"
            if os.path.exists(path)
            else "no such file",
        )
    with _pyarrow_errors(where):
        # Text stays coded: one long word that every row repeats is then in memory once.
        schema = parquet.read_schema(source)
        file = parquet.ParquetFile(
            source, read_dictionary=[f.name for f in schema if str(f.type).endswith("string")]
        )
    if file.metadata.num_rows == 0:
        raise InputError(where, "expected rows of numbers, got none")
    return ParquetFile(where=where, stem=path.stem, header=schema.names, notes=[], file=file)


@contextmanager
def _pyarrow_errors(where: str) -> Iterator[None]:
    """pyarrow's errors, of which some are OSError or ValueError, as one InputError."""
    import pyarrow

    try:
        yield
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        raise InputError(
            where, f"the file cannot be read: {' '.join(str(error).split())[:300]}"
        ) from error
