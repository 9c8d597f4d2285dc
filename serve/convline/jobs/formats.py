"""Rows as bytes of CSV or JSON lines. Every format writes the same table.

A number is the shortest text that reads back as the same float32. Bytes of a name that are not
UTF-8 become \\udcxx. A missing value is an empty cell in CSV and null in JSON.

In CSV, a text that a spreadsheet would run as a formula gets a leading quote mark ' (CWE-1236),
because file names come from strangers. Such a text starts with = @ tab or CR, or with + or - and
then calls or refers to something: ids such as -A and +B are not changed. A text that already has
the quote mark gets another one, so different texts stay different.
"""

import io
import json
import re
from collections.abc import Callable, Sequence
from contextlib import suppress
from decimal import Decimal
from functools import lru_cache
from operator import add
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from convline.runtime.rows import Block, Cells, Columns, Row, block_of

FORMATS = ("csv", "jsonl", "parquet")
SUFFIXES = tuple(f".{name}" for name in FORMATS)
# + and - begin a formula if a call, a DDE link, or a reference to a sheet, file or table follows.
FORMULA = re.compile(r"'*(?:[=@\t\r]|[+\-].*[(|!#\[])", re.DOTALL)
NEEDS_QUOTES = re.compile(r'[",\n\r]')
# From this many rows on, pyarrow encodes them: it is ten times as fast, and its import takes as
# long as encoding 50,000 rows without it.
MIN_ROWS = 1000
CACHED_TEXTS = 1024  # ids and errors repeat


def format_of(target: str, asked: str | None = None) -> str:
    """Return the format of a table: `asked`, else that of the target's suffix, else csv."""
    suffix = Path(target).suffix.lower()
    return asked or (suffix[1:] if suffix in SUFFIXES else FORMATS[0])


def encode_header(table_format: str, columns: Columns) -> bytes:
    """Return the first bytes of a table's part."""
    return to_csv({name: [name] for name in columns}) if table_format == "csv" else b""


def encode_rows(table_format: str, rows: Sequence[Row] | Block) -> bytes:
    """Return rows as bytes for a table's part. That of a Parquet file holds JSON lines."""
    return to_csv(rows) if table_format == "csv" else to_jsonl(rows)


def to_csv(rows: Sequence[Row] | Block) -> bytes:
    """Return rows as lines of CSV, UTF-8."""
    block = rows if isinstance(rows, dict) else block_of(rows)
    separators = [b"", *[b","] * (len(block) - 1)]
    return _encode(block, _Layout(separators, b"\n", _csv_cell, quote=b""))


def to_jsonl(rows: Sequence[Row] | Block) -> bytes:
    """Return rows as one JSON object a line."""
    block = rows if isinstance(rows, dict) else block_of(rows)
    keys = [json.dumps(name).encode() + b": " for name in block]
    separators = [b"{" + key for key in keys[:1]] + [b", " + key for key in keys[1:]]
    return _encode(block, _Layout(separators, b"}\n", _json_cell, quote=b'"'))


class _Layout(NamedTuple):
    """How the cells of a row are encoded and joined."""

    separators: list[bytes]  # before each cell
    end: bytes
    cell: Callable[[str | None], bytes]  # of a text; the cell of None is also a missing number
    quote: bytes  # around a plain ASCII text


def _encode(block: Block, layout: _Layout) -> bytes:
    lines = _encode_with_pyarrow(block, layout)
    if lines is not None:
        return lines
    columns = [_encode_cells(cells, layout) for cells in block.values()]
    return b"".join(
        b"".join(map(add, layout.separators, row)) + layout.end
        for row in zip(*columns, strict=True)
    )


def _encode_cells(cells: Cells, layout: _Layout) -> list[bytes]:
    if isinstance(cells, tuple):
        words, codes = cells
        encoded = [layout.cell(word) for word in words]
        return [encoded[code] for code in codes.tolist()]
    if not isinstance(cells, np.ndarray):
        return [layout.cell(cell) for cell in cells]
    if cells.dtype.kind == "f":
        missing = layout.cell(None)
        return [missing if text is None else text.encode() for text in shortest(cells)]
    return [layout.cell(cell.decode() or None) for cell in cells.tolist()]


def _encode_with_pyarrow(block: Block, layout: _Layout) -> bytes | None:
    """Return the lines as pyarrow joins their cells; None for few rows or without pyarrow."""
    rows = min(
        (len(cells[1] if isinstance(cells, tuple) else cells) for cells in block.values()),
        default=0,
    )
    if rows < MIN_ROWS:
        return None
    try:
        import pyarrow
        from pyarrow import compute
    except ImportError:
        return None
    columns: list[Any] = []
    for cells in block.values():
        if not isinstance(cells, np.ndarray):
            words, codes = cells if isinstance(cells, tuple) else (cells, np.arange(rows))
            encoded = [layout.cell(word) for word in words]
            lengths = np.array([*map(len, encoded)], np.int64)
            column = _texts(b"".join(encoded), lengths).take(_numbers(pyarrow.int64(), codes))
        elif cells.dtype.kind == "f":
            values = to_float32(cells)
            column = _numbers(pyarrow.float32(), values, np.isfinite(values))
        else:
            lengths = np.char.str_len(cells)
            column = _texts(cells.tobytes().translate(None, b"\0"), lengths, lengths > 0)
            if layout.quote:  # a missing cell stays null: pyarrow joins it to null
                quote = _text(layout.quote)
                column = compute.binary_join_element_wise(quote, column, quote, _text(b""))
        columns.append(column)
    if not layout.quote:
        with suppress(pyarrow.ArrowInvalid):  # a cell has quotes
            return _write_csv(columns)
    parts: list[Any] = []
    for separator, column in zip(layout.separators, columns, strict=True):
        parts += [_text(separator), column.cast(pyarrow.large_string())]
    parts += [_text(layout.end), _text(b"")]
    lines = compute.binary_join_element_wise(
        *parts, null_handling="replace", null_replacement=layout.cell(None)
    )
    return bytes(lines.buffers()[2])


def _write_csv(columns: list[Any]) -> bytes:
    """Return lines by pyarrow's CSV writer, the fastest way; ArrowInvalid for cells with quotes."""
    import pyarrow
    from pyarrow import csv

    batch = pyarrow.RecordBatch.from_arrays(columns, names=[*map(str, range(len(columns)))])
    lines = io.BytesIO()
    csv.write_csv(batch, lines, csv.WriteOptions(include_header=False, quoting_style="none"))
    return lines.getvalue()


# pyarrow.array() and pyarrow.scalar() import pandas where it is installed, which takes a second or
# two. The next four functions make the same arrays from buffers.


def _array(kind: Any, known: npt.NDArray[np.bool_] | None, length: int, *buffers: Any) -> Any:
    """Return an array of a pyarrow type, null where not known."""
    import pyarrow

    validity = None
    if known is not None and not known.all():
        validity = pyarrow.py_buffer(np.packbits(known, bitorder="little"))
    return pyarrow.Array.from_buffers(kind, length, [validity, *map(pyarrow.py_buffer, buffers)])


def _texts(
    data: bytes, lengths: npt.NDArray[np.int64], known: npt.NDArray[np.bool_] | None = None
) -> Any:
    """Return a large_string array of cells that follow each other in `data`."""
    import pyarrow

    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    return _array(pyarrow.large_string(), known, len(lengths), offsets, data)


def _text(data: bytes) -> Any:
    return _texts(data, np.array([len(data)]))[0]


def _numbers(
    kind: Any, values: npt.NDArray[Any], known: npt.NDArray[np.bool_] | None = None
) -> Any:
    values = np.ascontiguousarray(values, kind.to_pandas_dtype())
    return _array(kind, known, len(values), values)


def to_float32(numbers: npt.NDArray[np.floating[Any]]) -> npt.NDArray[np.float32]:
    """Return numbers as float32, the type of a model's outputs; larger ones become infinite."""
    with np.errstate(over="ignore"):
        return numbers.astype(np.float32)


def shortest(numbers: npt.NDArray[np.floating[Any]]) -> list[str | None]:
    """Return for each number the shortest text that reads back as its float32, as pyarrow does.

    None stands for a number that is not finite.
    """
    values = to_float32(numbers)
    # numpy finds the digits, at most nine; %g writes them without trailing zeros.
    texts = ("%.9g " * len(values) % tuple(map(float, values.astype("S").tolist()))).split()
    return [
        (_arrow_exponent(text) if "e" in text else text) if finite else None
        for text, finite in zip(texts, np.isfinite(values).tolist(), strict=True)
    ]


def _arrow_exponent(text: str) -> str:
    """Return a number with an exponent as pyarrow writes it: 0.00001, 1e-7, 1e+10."""
    if -7 < Decimal(text).adjusted() < 10:
        return f"{Decimal(text):f}"
    digits, _, power = text.partition("e")
    return f"{digits}e{int(power):+d}"


def is_formula(text: str) -> bool:
    """Return whether a spreadsheet that opens a CSV might run a text."""
    return FORMULA.match(text) is not None


@lru_cache(CACHED_TEXTS)
def _csv_cell(text: str | None) -> bytes:
    cell = _escape_bytes(text or "")
    if is_formula(cell):
        cell = f"'{cell}"
    if NEEDS_QUOTES.search(cell):
        cell = '"' + cell.replace('"', '""') + '"'
    return cell.encode()


@lru_cache(CACHED_TEXTS)
def _json_cell(text: str | None) -> bytes:
    return json.dumps(text if text is None else _escape_bytes(text)).encode()


def _escape_bytes(text: str) -> str:
    """Return a text whose bytes that are not UTF-8 are escapes."""
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode()
