"""The fast way to read a large, plain CSV file: by pyarrow, where that is installed.

On 5 million rows it is 28 times as fast as `csv_reader` alone (results/series.md). It is used only
where the result cannot differ from that of `csv_reader`, whose tests compare both; in all other
cases nothing is returned.
"""

import math
import re
from collections.abc import Collection
from typing import Any

import numpy as np

from convline.timeseries.parquet_reader import to_array
from convline.timeseries.raw_table import MISSING, Array, Encoded, order_by_appearance, parse_number

LARGE = 2**20  # bytes of a file from which pyarrow saves more time than its import takes
DATE = re.compile(r"\d{4}-\d\d-\d\d")
FIRST_YEAR = np.datetime64("0001-01-01")  # of Python's calendar
THOUSANDS = re.compile(rb"\.\d{3}\.")  # a point that is no decimal sign


def read_columns(
    data: bytes,
    start: int,
    header: list[str],
    first: list[str],
    delimiter: str,
    decimal: str,
    keys: Collection[str],
) -> dict[str, Array | Encoded]:
    """Return columns: numbers float64 (rows,), times datetime64[s] (rows,), other keys encoded.

    data: UTF-8 with LF ends of lines. start: the byte behind the header. first: the cells of the
    first row, from which the types are guessed. keys: names of the columns that are ids or times.
    """
    if not keys or len(data) < LARGE or b'"' in data:
        return {}
    if not len({*header}) == len(header) == len(first):
        return {}
    if decimal == "auto" and _leaves_sign_open(data, delimiter):
        return {}
    try:
        from pyarrow import ArrowInvalid, py_buffer
        from pyarrow.csv import ConvertOptions, ParseOptions, ReadOptions, read_csv
    except ImportError:
        return {}
    sign = "," if decimal == "," else "."
    types = _guess_types(header, first, keys, sign)
    if not types:
        return {}
    several = len(header) > 1
    # An empty line of a single column is a missing value, but not behind the last row.
    body = data if several else data.rstrip(b"\n")
    try:
        table = read_csv(
            py_buffer(body).slice(start),
            ReadOptions(column_names=header),
            ParseOptions(delimiter=delimiter, quote_char=False, ignore_empty_lines=several),
            ConvertOptions(
                column_types=types,
                include_columns=[*types],
                decimal_point=sign,
                null_values=[*MISSING, *map(str.upper, MISSING), *map(str.title, MISSING)],
            ),
        )
    except ArrowInvalid:
        return {}
    columns = {name: _to_column(table.column(name)) for name in types}
    complete = {name: column for name, column in columns.items() if column is not None}
    return complete if len(complete) == len(columns) else {}


def _guess_types(
    header: list[str], first: list[str], keys: Collection[str], sign: str
) -> dict[str, Any]:
    """Return pyarrow's type of each column that is a key or holds numbers, by its first cell."""
    from pyarrow import dictionary, float64, int32, string, timestamp

    types = {}
    for name, cell in zip(header, first, strict=True):
        if name in keys:
            is_date = DATE.match(cell.strip())
            types[name] = timestamp("s") if is_date else dictionary(int32(), string())
        elif parse_number(cell.strip(), sign) is not None:
            types[name] = float64()
    return types


def _to_column(column: Any) -> Array | Encoded | None:
    """Return a pyarrow column in numpy's form; None if a value is not finite or not a time."""
    from pyarrow import types

    if types.is_floating(column.type):
        numbers = to_array(column, np.float64, math.nan)
        return None if np.count_nonzero(~np.isfinite(numbers)) > column.null_count else numbers
    if types.is_timestamp(column.type):
        times = to_array(column, np.int64).view("datetime64[s]")
        return None if column.null_count or times.min() < FIRST_YEAR else times
    chunks = column.unify_dictionaries().chunks
    codes = np.concatenate([np.from_dlpack(chunk.indices) for chunk in chunks])
    words = map(str.strip, chunks[0].dictionary.to_pylist())
    return order_by_appearance(codes, words)


def _leaves_sign_open(data: bytes, delimiter: str) -> bool:
    """Return whether the decimal sign is told only by a look at all cells, as `csv_reader` does."""
    if delimiter == ",":
        return False
    points = delimiter == ";" and b"." in data
    return points or b"," in data or THOUSANDS.search(data) is not None
