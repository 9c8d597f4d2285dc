"""Write a table of any length to a CSV, JSON lines or Parquet file, or to stdout.

Rows are appended to `<name>.part`, which is renamed at the end, so `<name>` is never half a table;
after an error the part remains. Parquet cannot be appended to after a kill, so its part holds JSON
lines, which become Parquet at the end.
"""

import csv
import hashlib
import io
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import IO, Any

from convline.errors import ServeError
from convline.jobs import output_files
from convline.jobs.formats import encode_header, encode_rows, format_of
from convline.jobs.output_files import follow_link, parquet_part_of, part_of
from convline.runtime.rows import Block, Columns, Row

Write = Callable[[Sequence[Row] | Block], None]

HEAD = 2**20  # bytes of a file that show whether it is a table of ours
BLOCK = 2**25  # bytes of JSON lines that become one row group of Parquet; no line is longer


def is_table(path: Path) -> bool:
    """Return whether a file is a table that `infer` wrote, by its first and last columns."""
    with path.open("rb") as file:
        head = file.read(HEAD)
    names: list[str]
    try:
        if head.startswith(b"PAR1"):
            names = _import_pyarrow().parquet.read_schema(path).names
        elif head.startswith(b"{"):
            names = [*json.loads(head.partition(b"\n")[0])]
        else:
            names = next(csv.reader(io.StringIO(head.decode(errors="replace"), newline="")), [])
    except (ValueError, OSError, RecursionError, csv.Error):  # pyarrow raises the first two
        return False
    first = names[:2] in (["unique_id", "ds"], ["path", "label"], ["path", "caption"])
    return first and names[-2:] == ["status", "error"]


class TablePart:
    """The part of a table that is being written: its file, its size in bytes and their hash."""

    def __init__(self, file: IO[bytes]) -> None:
        self.file, self.size, self._hash = file, 0, hashlib.sha256()

    def keep(self, size: int) -> None:
        """Take over the first bytes of the file, which an interrupted run wrote."""
        for start in range(0, size, BLOCK):
            self._hash.update(self.file.read(min(BLOCK, size - start)))
        self.size = size

    def append(self, encoded: bytes) -> None:
        self.file.write(encoded)
        self.file.flush()
        self._hash.update(encoded)
        self.size += len(encoded)

    def digest(self) -> str:
        """Return the SHA-256 of all its bytes, in hex."""
        return self._hash.hexdigest()


@contextmanager
def open_part(
    target: str, columns: Columns, stdout: IO[bytes], keep: int = 0, digest: str = "",
    table_format: str | None = None, *, once: bool = False,
) -> Iterator[TablePart]:  # fmt: skip
    """Yield the part of a target, or stdout for "-"; rename it at the end if there is no error.

    keep: the bytes of an interrupted run's part that remain, whose hash is `digest`; 0 starts
    again. table_format: it replaces that of the suffix. once: the rows cannot be computed again, so
    a part that holds some is an error.
    """
    table_format = format_of(target, table_format)
    header = encode_header(table_format, columns)
    if table_format == "parquet":
        _import_pyarrow()  # fail before the work, not after it
    if target == "-":
        with (
            _to_stdout_as_parquet(stdout, columns)
            if table_format == "parquet"
            else nullcontext(stdout) as file
        ):
            part = TablePart(file)
            part.append(header)
            yield part
        return
    with output_files.open_part(target, is_table) as file:
        if once and not header.startswith(file.read(len(header) + 1)):
            expected = "expected no rows of an earlier stream, got some, which would be lost"
            raise ServeError(f"{part_of(target)}: {expected}; move it or {output_files.CHOOSE}")
        file.seek(0)
        part = TablePart(file)
        part.keep(keep)
        if keep and part.digest() != digest:
            expected = "expected the rows that an interrupted run wrote, got other bytes"
            raise ServeError(f"{part_of(target)}: {expected}; leave --resume out to start anew")
        file.truncate(keep)
        file.seek(keep)
        if not keep:
            part.append(header)
        yield part
        complete = part_of(target)
        if table_format == "parquet":
            complete = parquet_part_of(target)
            with output_files.create_with_mode_of(complete, file) as parquet:
                _convert_to_parquet(part_of(target), parquet, columns)
        os.replace(complete, follow_link(target))
        part_of(target).unlink(missing_ok=True)


@contextmanager
def open_table(
    target: str, columns: Columns, stdout: IO[bytes], table_format: str | None = None,
    *, once: bool = False,
) -> Iterator[Write]:  # fmt: skip
    """Yield a function that appends rows to a file, or to stdout for "-". once: see `open_part`."""
    table_format = format_of(target, table_format)
    opened = open_part(target, columns, stdout, table_format=table_format, once=once)
    with opened as part:
        yield lambda rows: part.append(encode_rows(table_format, rows))


@contextmanager
def _to_stdout_as_parquet(stdout: IO[bytes], columns: Columns) -> Iterator[IO[bytes]]:
    """Yield a temporary file for JSON lines, which is written to stdout as Parquet at the end."""
    with tempfile.TemporaryDirectory(prefix="convline-") as folder:
        lines = Path(folder, "rows.jsonl")
        with lines.open("wb") as file:
            yield file
        with Path(folder, "rows.parquet").open("w+b") as file:
            _convert_to_parquet(lines, file, columns)
            file.seek(0)
            shutil.copyfileobj(file, stdout)
        stdout.flush()


def _convert_to_parquet(lines: Path, target: IO[bytes], columns: Columns) -> None:
    """Write the rows of JSON lines as Parquet, one row group at a time."""
    pyarrow = _import_pyarrow()
    types = {str: pyarrow.string(), float: pyarrow.float64()}
    schema = pyarrow.schema([(name, types[kind]) for name, kind in columns.items()])
    parse = pyarrow.json.ParseOptions(explicit_schema=schema, unexpected_field_behavior="error")
    read = pyarrow.json.ReadOptions(block_size=BLOCK)
    with pyarrow.parquet.ParquetWriter(target, schema) as writer:
        if lines.stat().st_size:
            for rows in pyarrow.json.open_json(lines, read, parse):
                writer.write_batch(rows)


def _import_pyarrow() -> Any:
    try:
        import pyarrow
        import pyarrow.json
        import pyarrow.parquet
    except ImportError as error:
        cure = "pip install 'convline[parquet]', or write .csv or .jsonl"
        raise ServeError(f"pyarrow cannot be imported; {cure}") from error
    return pyarrow
