"""Rows to a table, written as they come: CSV, JSON lines or Parquet, by the suffix or as asked.

The same rows give the same table in each form: a number is the shortest text that reads back as the same float32, names
that are not UTF-8 show their odd bytes as \\udcxx, a missing value is an empty cell or null. A file is written as
`convline.jobs.target` says, so `<name>` is never half a table; after an error the part stays for a look. The part of a Parquet
file is JSON lines, since Parquet itself cannot be appended to after a kill; it becomes Parquet at the end.
In CSV alone a text that a spreadsheet would run as a formula gets a ' in front (CWE-1236): file names come from
strangers. That is one that starts with = @ tab or CR, or with + or - and then calls or refers to something: ids such as
-A and +B stay as they are. One that has such a ' already gets another, so that different texts stay different.
"""

import csv
import hashlib
import io
import json
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from decimal import Decimal
from functools import lru_cache
from operator import add
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from convline.errors import ServeError
from convline.jobs import target as targets
from convline.jobs.target import HEAD, part_of, real
from convline.runtime.rows import Block, Cells, Columns, Row, block_of

Write = Callable[[Sequence[Row] | Block], None]
Encode = Callable[[Sequence[Row] | Block], bytes]

FORMS = ("csv", "jsonl", "parquet")
SUFFIXES = tuple(f".{form}" for form in FORMS)
GROUP = 2**25  # bytes of lines that are a group of Parquet; no line is longer
FORMULA = re.compile(
    r"'*(?:[=@\t\r]|[+\-].*[(|!#\[])", re.DOTALL
)  # a call, DDE, another sheet, file or table
QUOTED = re.compile(r'[",\n]')
LONGEST = 4096  # bytes of a cell that many rows may repeat
DIGITS, MOST = (
    24,
    2**30,
)  # bytes of a number and its quotes, at most; of lines that are joined at once
FEW_ROWS, MANY_ROWS = (
    100,
    1000,
)  # fewer are as fast one by one; from the second on pyarrow is imported for them
REPEATED = 1024  # texts that are kept as they are written: ids and errors come again


def is_table(path: Path) -> bool:
    """Return whether a file holds a table of this module: its first columns and its last are those of all of them."""
    with path.open("rb") as file:
        head = file.read(HEAD)
    names: list[str]
    try:
        if head.startswith(b"PAR1"):
            names = _pyarrow().parquet.read_schema(path).names
        elif head.startswith(b"{"):
            names = [*json.loads(head.partition(b"\n")[0])]
        else:
            names = next(csv.reader(io.StringIO(head.decode(errors="replace"), newline="")), [])
    except (
        ValueError,
        OSError,
        RecursionError,
        csv.Error,
    ):  # pyarrow's errors are of the first two
        return False
    return names[:2] in (["unique_id", "ds"], ["path", "label"]) and names[-2:] == [
        "status",
        "error",
    ]


def form_of(target: str, asked: str | None = None) -> str:
    """Return the form of a table: what was asked, else what the suffix of the target says, else csv."""
    suffix = Path(target).suffix.lower()
    return asked or (suffix[1:] if suffix in SUFFIXES else FORMS[0])


def encoding(form: str, columns: Columns) -> tuple[bytes, Encode]:
    """Return (what a part starts with, the function from rows to the bytes that follow); any process may call it."""
    if form in ("jsonl", "parquet"):
        return b"", to_jsonl
    return to_csv({name: [name] for name in columns}), to_csv


def to_csv(rows: Sequence[Row] | Block) -> bytes:
    """Return rows as lines of CSV, UTF-8."""
    block = rows if isinstance(rows, dict) else block_of(rows)
    form = Form([b"", *[b","] * (len(block) - 1)], b"\n", _csv_bytes, b"", b"")
    if (lines := _joined(block, form)) is not None:
        return lines
    text = io.StringIO(newline="")
    # Before Python 3.13 the csv module leaves a lone CR unquoted, and readers then see a new row there.
    writers = [
        csv.writer(text, lineterminator="\n", quoting=how)
        for how in (csv.QUOTE_MINIMAL, csv.QUOTE_ALL)
    ]
    for row in zip(*[texts(cells, _csv_cell) for cells in block.values()], strict=True):
        writers[any("\r" in cell for cell in row)].writerow(row)
    return text.getvalue().encode()


def to_jsonl(rows: Sequence[Row] | Block) -> bytes:
    """Return rows as one JSON object a line."""
    block = rows if isinstance(rows, dict) else block_of(rows)
    marks = [
        f"{', ' if place else '{'}{json.dumps(name)}: ".encode() for place, name in enumerate(block)
    ]
    if (lines := _joined(block, Form(marks, b"}\n", _json_bytes, b'"', b"null"))) is not None:
        return lines
    columns = [map(str.encode, texts(cells, _json_cell)) for cells in block.values()]
    # Names of columns are the user's, so no template is made of them: a % in one is a character like any other.
    return b"".join([b"".join(map(add, marks, row)) + b"}\n" for row in zip(*columns, strict=True)])


class Form(NamedTuple):
    """How rows are written: what stands before each cell and at the end, and the cells that are not numbers."""

    marks: list[bytes]
    end: bytes
    word: Callable[
        [str | None], bytes | None
    ]  # of a text; None where the row must be written by itself
    quote: bytes  # around plain ASCII
    missing: bytes  # for a number or plain ASCII that is not there


def _joined(block: Block, form: Form) -> bytes | None:
    """Return rows as pyarrow joins their cells; None where they are few, of a cell that cannot be, or without pyarrow.

    Faster by several times than cells one by one; it imports pyarrow, which takes as long as writing 50,000 rows does.
    """
    rows = min(
        (len(cells[1] if isinstance(cells, tuple) else cells) for cells in block.values()),
        default=0,
    )
    if rows < (FEW_ROWS if "pyarrow" in sys.modules else MANY_ROWS):
        return None
    try:
        import pyarrow
        from pyarrow import compute
    except ImportError:
        return None
    text, nothing = pyarrow.binary(), scalar(b"")
    parts: list[Any] = []
    longest = 0  # bytes of a line, at most
    for mark, cells in zip(form.marks, block.values(), strict=True):
        if not isinstance(cells, np.ndarray):
            words, codes = cells if isinstance(cells, tuple) else (cells, np.arange(rows))
            made = [form.word(word) for word in words]
            sure = [word for word in made if word is not None]
            length = max(map(len, sure), default=0)
            if len(sure) < len(made) or length > LONGEST:
                return None
            column = binary(b"".join(sure), np.array([*map(len, sure)], np.int64))
            column = column.take(plain_array(pyarrow.int64(), codes))
            longest += length
        elif cells.dtype.kind == "f":
            numbers = single(cells)
            column = (
                plain_array(pyarrow.float32(), numbers, np.isfinite(numbers))
                .cast(pyarrow.string())
                .view(text)
            )
        else:
            lengths = np.char.str_len(cells)
            column = binary(cells.tobytes().translate(None, b"\0"), lengths, lengths > 0)
            longest += cells.itemsize
            if form.quote:
                quote = scalar(form.quote)
                column = compute.binary_join_element_wise(
                    quote, column, quote, nothing
                )  # of null null
        parts += [scalar(mark), column]
        longest += len(mark) + DIGITS
    if rows * longest > MOST:
        return None
    parts += [scalar(form.end), nothing]
    lines = compute.binary_join_element_wise(
        *parts, null_handling="replace", null_replacement=form.missing
    )
    return bytes(lines.buffers()[2])


def binary(
    data: bytes, lengths: npt.NDArray[np.int64], known: npt.NDArray[np.bool_] | None = None
) -> Any:
    """Return a pyarrow array of binary cells that lie one behind the other in `data`, null where not known."""
    import pyarrow

    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    buffers = [_validity(known), pyarrow.py_buffer(offsets), pyarrow.py_buffer(data)]
    return pyarrow.Array.from_buffers(pyarrow.binary(), len(lengths), buffers)


def scalar(data: bytes) -> Any:
    """Return bytes as pyarrow's; pyarrow.scalar() and pyarrow.array() would import pandas, for a second or two."""
    return binary(data, np.array([len(data)]))[0]


def plain_array(
    kind: Any, values: npt.NDArray[Any], known: npt.NDArray[np.bool_] | None = None
) -> Any:
    """Return a pyarrow array of numbers, null where not known."""
    import pyarrow

    values = np.ascontiguousarray(values, kind.to_pandas_dtype())
    return pyarrow.Array.from_buffers(
        kind, len(values), [_validity(known), pyarrow.py_buffer(values)]
    )


def _validity(known: npt.NDArray[np.bool_] | None) -> Any:
    import pyarrow

    return (
        None
        if known is None or known.all()
        else pyarrow.py_buffer(np.packbits(known, bitorder="little"))
    )


def single(numbers: npt.NDArray[np.floating[Any]]) -> npt.NDArray[np.float32]:
    """Return numbers as float32, which is what a model answers; beyond it they are infinite."""
    with np.errstate(over="ignore"):
        return numbers.astype(np.float32)


def shortest(numbers: npt.NDArray[np.floating[Any]]) -> list[str | None]:
    """Return the shortest text that reads back as each number's float32, as pyarrow writes it; None if not finite."""
    found = single(numbers)
    # numpy finds the digits, nine at most; %g writes them.
    written = ("%.9g " * len(found) % tuple(map(float, found.astype("S").tolist()))).split()
    known = np.isfinite(found).tolist()
    return [
        (_exponent(t) if "e" in t else t) if finite else None
        for t, finite in zip(written, known, strict=True)
    ]


def _exponent(text: str) -> str:
    """Return a number that %g writes with an exponent as pyarrow does: 0.00001, 1e-7, 1e+10."""
    if -7 < Decimal(text).adjusted() < 10:
        return f"{Decimal(text):f}"
    digits, _, power = text.partition("e")
    return f"{digits}e{int(power):+d}"


def texts(cells: Cells, word: Callable[[str | None], str]) -> list[str]:
    """Return each cell of a column, those that are no numbers by `word`."""
    if isinstance(cells, np.ndarray) and cells.dtype.kind == "f":
        return [word(None) if figure is None else figure for figure in shortest(cells)]
    if isinstance(cells, tuple):
        known = [word(cell) for cell in cells[0]]
        return [known[code] for code in cells[1].tolist()]
    words = (
        [cell.decode() or None for cell in cells.tolist()]
        if isinstance(cells, np.ndarray)
        else cells
    )
    made = {cell: word(cell) for cell in {*words}}
    return [made[cell] for cell in words]


class Part:
    """A table that is being written: bytes go at its end, `size` counts them."""

    def __init__(self, file: IO[bytes]) -> None:
        self.file, self.size, self._hash = file, 0, hashlib.sha256()

    def keep(self, size: int) -> None:
        """Take the first bytes that the file holds for those of this part."""
        for start in range(0, size, GROUP):
            self._hash.update(self.file.read(min(GROUP, size - start)))
        self.size = size

    def append(self, encoded: bytes) -> None:
        self.file.write(encoded)
        self.file.flush()
        self._hash.update(encoded)
        self.size += len(encoded)

    def digest(self) -> str:
        """Return the hash of all its bytes."""
        return self._hash.hexdigest()


@contextmanager
def open_part(
    target: str, columns: Columns, stdout: IO[bytes], keep: int = 0, digest: str = "", form: str | None = None,
    *, once: bool = False,
) -> Iterator[Part]:  # fmt: skip
    """Give the part of `target`, or stdout where it is "-"; rename it at the end, or leave it after an error.

    keep: bytes of an earlier run's part that stay, whose hash is `digest`; 0 starts anew. form: in place of what the
    suffix says. once: the rows of an earlier part cannot be made again, so one that holds any is an error.
    """
    form = form_of(target, form)
    head, _ = encoding(form, columns)
    if form == "parquet":
        _pyarrow()  # before an hour of work, not after it
    if target == "-":
        with _columnar(stdout, columns) if form == "parquet" else nullcontext(stdout) as file:
            part = Part(file)
            part.append(head)
            yield part
        return
    with targets.open_part(target, is_table) as file:
        if once and not head.startswith(file.read(len(head) + 1)):
            what = "expected no rows of an earlier stream, got some, which would be lost"
            raise ServeError(f"{part_of(target)}: {what}; move it or {targets.CHOOSE}")
        part = Part(file)
        part.keep(keep)
        if keep and part.digest() != digest:
            what = "expected the rows that an interrupted run wrote, got other bytes"
            raise ServeError(f"{part_of(target)}: {what}; leave --resume out to start anew")
        file.truncate(keep)
        file.seek(keep)
        if not keep:
            part.append(head)
        yield part
        whole = part_of(target)
        if form == "parquet":
            whole = targets.second_part_of(target)
            with targets.open_like(whole, file) as columnar:
                _to_parquet(part_of(target), columnar, columns)
        os.replace(whole, real(target))
        part_of(target).unlink(missing_ok=True)


@contextmanager
def _columnar(stdout: IO[bytes], columns: Columns) -> Iterator[IO[bytes]]:
    """Give a temporary file for JSON lines, which goes to stdout as Parquet at the end."""
    with tempfile.TemporaryDirectory(prefix="convline-") as folder:
        lines, whole = Path(folder, "rows.jsonl"), Path(folder, "rows.parquet")
        with lines.open("wb") as file:
            yield file
        with whole.open("w+b") as file:
            _to_parquet(lines, file, columns)
        with whole.open("rb") as file:
            shutil.copyfileobj(file, stdout)
        stdout.flush()


@contextmanager
def open_table(
    target: str, columns: Columns, stdout: IO[bytes], form: str | None = None, *, once: bool = False
) -> Iterator[Write]:
    """Give a function that appends rows to the file `target`, or to stdout where it is "-".

    once: as `open_part` says.
    """
    _, encode = encoding(form_of(target, form), columns)
    with open_part(target, columns, stdout, form=form, once=once) as part:
        yield lambda rows: part.append(encode(rows))


def _csv_cell(word: str | None) -> str:
    text = _unicode(word or "")
    return f"'{text}" if is_formula(text) else text


def is_formula(text: str) -> bool:
    """Return whether a spreadsheet that opens a CSV might run a text."""
    return FORMULA.match(text) is not None


@lru_cache(REPEATED)
def _csv_bytes(word: str | None) -> bytes | None:
    cell = _csv_cell(word)
    quoted = '"' + cell.replace('"', '""') + '"' if QUOTED.search(cell) else cell
    return None if "\r" in cell else quoted.encode()


@lru_cache(REPEATED)
def _json_bytes(word: str | None) -> bytes:
    return _json_cell(word).encode()


def _json_cell(word: str | None) -> str:
    return json.dumps(word if word is None else _unicode(word))


def _unicode(text: str) -> str:
    """Return a text with bytes that are no UTF-8 shown, alike for every form."""
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode()


def _to_parquet(lines: Path, target: IO[bytes], columns: Columns) -> None:
    """Write the rows of JSON lines as Parquet, a group at a time."""
    pyarrow = _pyarrow()
    types = {str: pyarrow.string(), float: pyarrow.float64()}
    schema = pyarrow.schema([(name, types[kind]) for name, kind in columns.items()])
    parse = pyarrow.json.ParseOptions(explicit_schema=schema, unexpected_field_behavior="error")
    with pyarrow.parquet.ParquetWriter(target, schema) as writer:
        if lines.stat().st_size:
            for rows in pyarrow.json.open_json(
                lines, pyarrow.json.ReadOptions(block_size=GROUP), parse
            ):
                writer.write_batch(rows)


def _pyarrow() -> Any:
    try:
        import pyarrow
        import pyarrow.json
        import pyarrow.parquet
    except ImportError as error:
        cure = "pip install 'convline[parquet]', or write .csv or .jsonl"
        raise ServeError(f"pyarrow cannot be imported; {cure}") from error
    return pyarrow
