"""A CSV or Parquet file in pieces, for files that are larger than memory.

Each piece is a table of successive rows, which names its rows as the whole file does. What is told
by a look at all cells is told by those of the first piece (delimiter, decimal sign), or of each
piece (whether whole numbers are dates).
"""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from convline.errors import InputError
from convline.runtime.pyarrow_errors import pyarrow_errors
from convline.timeseries.csv_reader import DELIMITERS, CsvTable, clean, parse_csv, read_head
from convline.timeseries.parquet_reader import ParquetTable, is_parquet, open_parquet
from convline.timeseries.raw_table import RawTable

LONG = 2**28  # bytes of a file, or of the columns of a Parquet file, that is read in pieces
PIECE = 2**24  # bytes of text, or rows and columns, in a piece
LOOKED = 1000  # rows of a column that show whether it holds times
ROW = 4  # pieces in which a row of text must end


@dataclass(frozen=True)
class ParquetPiece(ParquetTable):
    """Some rows of a Parquet file, the columns of which are in memory. first: the first row.

    rows: their number."""

    first: int = 0
    rows: int = 0

    def place(self, row: int) -> str:
        return super().place(self.first + row)

    def prefetch(self, names: Sequence[str]) -> None:
        """Read further columns of the first piece, which is looked at for columns of times."""
        import pyarrow

        if self.first:
            raise ValueError(f"parquet_pieces: columns {names} have not been asked for")
        with pyarrow_errors(self.where):
            batch = next(open_source(self.where).file.iter_batches(self.rows, columns=[*names]))
            for name in names:
                self.columns[name] = pyarrow.chunked_array([batch.column(name)])

    def _check_size(self, columns: int) -> None:
        """Accept: a piece is never large."""


def is_long(path: Path, keys: Collection[str], columns: Sequence[str] | None = None) -> bool:
    """Return whether a file is read in pieces, with the options of `open_pieces`.

    Of Parquet only the columns that are read count, in 8 bytes a cell; the sizes of column chunks
    are not used: see `ParquetTable._check_size`. Raises InputError where a file cannot be read.
    """
    if not is_parquet(path):
        return path.stat().st_size > LONG
    table = open_parquet(path)
    with pyarrow_errors(table.where):
        used = len(columns_read(table, keys, columns))
        return bool(8 * table.file.metadata.num_rows * used > LONG)


def first_rows(path: Path) -> RawTable:
    """Return the first rows of a Parquet file, of which a column is read when it is asked for."""
    return next(parquet_pieces(path, (), [], LOOKED))


def columns_read(
    table: ParquetTable, keys: Collection[str], columns: Sequence[str] | None
) -> list[str]:
    """Return the names of the columns that are read, in the order of the file."""
    values = {*(table.numeric(table.header) if columns is None else columns)}
    return [name for name in table.header if name in values or name in keys]


def open_pieces(
    path: Path, keys: Collection[str], columns: Sequence[str] | None = None
) -> Iterator[RawTable]:
    """Yield the pieces of a file.

    keys: names of columns that are ids or times. columns: of values; None takes all of numbers.
    """
    if is_parquet(path):
        return parquet_pieces(path, keys, columns, PIECE // 8)
    return csv_pieces(path, keys, PIECE)


def parquet_pieces(
    path: Path, keys: Collection[str], columns: Sequence[str] | None, cells: int
) -> Iterator[ParquetPiece]:
    """Yield pieces of so many cells, with the options of `open_pieces`."""
    import pyarrow

    table, first = open_source(path), 0
    names = columns_read(table, keys, columns)
    with pyarrow_errors(table.where):
        for batch in table.file.iter_batches(max(1, cells // max(1, len(names))), columns=names):
            read = {name: pyarrow.chunked_array([batch.column(name)]) for name in names}
            yield ParquetPiece(
                table.where, table.stem, table.header, [], table.file, read, first, batch.num_rows
            )
            first += batch.num_rows


def open_source(path: str | Path) -> ParquetTable:
    """Open a file so that little of it is in memory at a time."""
    return open_parquet(path, pre_buffer=False, buffer_size=2**20)


def csv_pieces(path: Path, keys: Collection[str], size: int) -> Iterator[CsvTable]:
    """Yield pieces of about so many bytes, cut between lines."""
    where, head, lines, rest = str(path), b"", 0, b""
    delimiter = decimal = "auto"
    with path.open("rb") as file:
        while (text := file.read(size)) or rest.strip():
            rest += text
            end = end_of_lines(rest) if text else len(rest)
            if not end:
                require_end(where, rest, lines, ROW * size)
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
    inside = data.count(b'"', 0, end) % 2
    while end and inside:
        before = data.rfind(b"\n", 0, end - 1) + 1
        inside ^= data.count(b'"', before, end) % 2
        end = before
    kept = len(data[:end].rstrip(b"\r\n"))
    return data.find(b"\n", kept) + 1 if kept else 0


def require_end(where: str, data: bytes, before: int, at_most: int) -> None:
    """Raise InputError where more bytes than `at_most` are no whole row. before: the lines before
    them.
    """
    if len(data) <= at_most:
        return
    line = before + 1 + data.count(b"\n", 0, max(0, data.find(b'"')))
    needed = f"line {line}: expected a row of at most {at_most} bytes"
    got = "a quote that is not closed; close it" if b'"' in data else "no end; end lines with LF"
    raise InputError(where, f"{needed}, got {got}")
