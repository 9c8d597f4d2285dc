"""What pyarrow reads of a CSV that leaves nothing to decide: what the exact reader would say, or nothing at all."""

import math
import re
from collections.abc import Collection
from typing import Any

import numpy as np
import numpy.typing as npt

from convline.timeseries.raw_table import MISSING, order_by_appearance, parse_number
from convline.timeseries.timestamps import FIRST

LARGE = 2**20  # bytes of a file from which pyarrow saves more time than its import takes
STAMP = re.compile(r"\d{4}-\d\d-\d\d")


def columns(
    data: bytes,
    start: int,
    header: list[str],
    first: list[str],
    delimiter: str,
    decimal: str,
    keys: Collection[str],
) -> dict[str, Any]:
    """Return columns of a file as pyarrow reads its rows, none where that might not be what `exact` says."""
    if (
        not keys
        or len(data) < LARGE
        or b'"' in data
        or len({*header}) != len(first)
        or len(header) != len(first)
    ):
        return {}
    if (
        decimal == "auto"
        and delimiter != ","
        and (b"," in data or (delimiter == ";" and b"." in data))
    ):
        return {}  # the decimal sign is to be found
    try:
        from pyarrow import ArrowInvalid, dictionary, float64, int32, py_buffer, string, timestamp
        from pyarrow.csv import ConvertOptions, ParseOptions, ReadOptions, read_csv
    except ImportError:
        return {}
    sign = "," if decimal == "," else "."
    cells = dict(zip(header, first, strict=True))
    types = {name: dictionary(int32(), string()) for name in header if name in keys}
    types |= {name: timestamp("s") for name in types if STAMP.match(cells[name].strip())}
    types |= {
        n: float64()
        for n, cell in cells.items()
        if n not in keys and parse_number(cell.strip(), sign) is not None
    }
    if not types:
        return {}
    several = len(header) > 1
    body = (
        data if several else data.rstrip(b"\n")
    )  # of a single column, an empty line is a missing value
    try:
        table = read_csv(
            py_buffer(body).slice(start),
            ReadOptions(column_names=header),
            ParseOptions(delimiter=delimiter, quote_char=False, ignore_empty_lines=several),
            ConvertOptions(
                column_types=types, include_columns=[*types], decimal_point=sign,
                null_values=[*MISSING, *map(str.upper, MISSING), *map(str.title, MISSING)],
            ),
        )  # fmt: skip
    except ArrowInvalid:
        return {}
    found: dict[str, Any] = {}
    for name, kind in types.items():
        column = table.column(name)
        if kind == float64():
            found[name] = plain(column, np.float64, math.nan)
            if np.count_nonzero(~np.isfinite(found[name])) > column.null_count:
                return {}
        elif kind == timestamp("s"):
            if column.null_count:
                return {}
            found[name] = plain(column, np.int64).view("datetime64[s]")
            if found[name].min() < FIRST:
                return {}
        else:
            coded = column.unify_dictionaries()
            codes = np.concatenate([np.from_dlpack(chunk.indices) for chunk in coded.chunks])
            found[name] = order_by_appearance(
                codes, [word.strip() for word in coded.chunk(0).dictionary.to_pylist()]
            )
    return found


def plain(column: Any, kind: type, missing: float = 0) -> npt.NDArray[Any]:
    """Return a pyarrow column of numbers that are as wide as `kind`, `missing` where there is none.

    What pyarrow has for it (to_numpy, fill_null) imports pandas where that is installed, for two seconds.
    """
    chunks, wide = [chunk for chunk in column.chunks if len(chunk)], np.dtype(kind).itemsize
    values = np.concatenate(
        [np.frombuffer(c.buffers()[1], kind, len(c), c.offset * wide) for c in chunks]
    )
    if column.null_count:
        values[np.concatenate([np.from_dlpack(c.is_null().cast("int8")) for c in chunks]) == 1] = (
            missing
        )
    return values
