"""A CSV or Parquet file in pieces, for files that are larger than memory.

Each piece is a table of successive rows, which names its rows as the whole file does. What is told
by a look at all cells is told by those of the first piece (delimiter, decimal sign), or of each
piece (whether whole numbers are dates).
"""

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from convline.runtime.pyarrow_errors import pyarrow_errors
from convline.timeseries.csv_reader import DELIMITERS, CsvTable, clean, parse_csv, read_head
from convline.timeseries.parquet_reader import ParquetTable, is_parquet, open_parquet
from convline.timeseries.raw_table import RawTable

LONG = 2**28  # bytes of a file, or of the columns of a Parquet file, that is read in pieces
PIECE = 2**24  # bytes of text, or rows and columns, in a piece


@dataclass(frozen=True)
class ParquetPiece(ParquetTable):
    """Some rows of a Parquet file, all columns of which have been read. first: the first row."""

    first: int = 0

    def place(self, row: int) -> str:
        return super().place(self.first + row)

    def _check_size(self, columns: int) -> None:
        """Accept: a piece is never large."""


def is_long(path: Path) -> bool:
    """Return whether a file is read in pieces."""
    if path.stat().st_size > LONG:
        return True
    if not is_parquet(path):
        return False
    table = open_parquet(path)
    return bool(8 * table.file.metadata.num_rows * len(table.header) > LONG)


def open_pieces(path: Path, keys: Collection[str]) -> Iterator[RawTable]:
    """Yield the pieces of a file. keys: names of columns that are ids or times."""
    return parquet_pieces(path, PIECE // 8) if is_parquet(path) else csv_pieces(path, keys, PIECE)


def parquet_pieces(path: Path, cells: int) -> Iterator[ParquetPiece]:
    """Yield pieces of so many cells."""
    import pyarrow

    table, first = open_parquet(path, pre_buffer=False, buffer_size=2**20), 0
    with pyarrow_errors(table.where):
        for batch in table.file.iter_batches(max(1, cells // len(table.header))):
            columns = {
                name: pyarrow.chunked_array([column])
                for name, column in zip(table.header, batch.columns, strict=True)
            }
            yield ParquetPiece(
                table.where, table.stem, table.header, [], table.file, columns, first
            )
            first += batch.num_rows


def csv_pieces(path: Path, keys: Collection[str], size: int) -> Iterator[CsvTable]:
    """Yield pieces of about so many bytes, cut between lines."""
    where, head, lines, rest = str(path), b"", 0, b""
    delimiter = decimal = "auto"
    with path.open("rb") as file:
        while (text := file.read(size)) or rest.strip():
            rest += text
            end = end_of_lines(rest) if text else len(rest)
            if not end:
                continue
            part, rest = rest[:end], rest[end:]
            data = head + clean(where, part, lines)
            piece = parse_csv(where, data, delimiter, decimal, keys, lines - head.count(b"\n"))
            if not head:
                names = {sign: name for name, sign in DELIMITERS.items()}
                delimiter = names[piece.delimiter]
                decimal = "auto" if delimiter == "," else piece.decimal_sign
                head = piece.data[: read_head(piece.data, piece.delimiter)[2]]
            yield piece
            lines += part.count(b"\n")


def end_of_lines(data: bytes) -> int:
    """Return the byte behind the last line that is not empty and not inside quotes; 0 without one.

    Empty lines belong to the next piece: between others, one is a missing value.
    """
    end = data.rfind(b"\n") + 1
    while end and data.count(b'"', 0, end) % 2:
        end = data.rfind(b"\n", 0, end - 1) + 1
    kept = len(data[:end].rstrip(b"\r\n"))
    return data.find(b"\n", kept) + 1 if kept else 0
