"""Images in a Parquet file: one column `bytes`, alone or in a struct (datasets use `image.bytes`).

Only the positions of the images are listed. The process that decodes an image reads its row group
and keeps it until it needs another one. The size of a row group is limited. Dictionary encoding is
kept, so an image that every row repeats is in memory once.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from convline.errors import InputError
from convline.runtime.pyarrow_errors import pyarrow_errors

SUFFIX = ".parquet"
MAX_BYTES = 2**30  # of a row group's images, as the footer declares; each worker holds one group


@dataclass(frozen=True, slots=True)  # there is one for each photo
class Cell:
    """The position of an image: a row of the file, which is row `place` of a row group."""

    archive: str
    row: int
    group: int
    place: int

    @property
    def path(self) -> str:
        return f"{self.archive}#{self.row}"

    def read(self) -> bytes:
        """Return the bytes of the image.

        Raises InputError if there are none, or if the file is damaged or has changed.
        """
        with pyarrow_errors(self.archive):
            status = os.stat(self.archive)
            version = status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns
            data = _read_row_group(self.archive, self.group, version)[self.place].as_py()
        if data is None:
            raise InputError(self.path, "expected the bytes of an image, got null")
        return bytes(data)


def cells(path: str) -> Iterator[Cell]:
    """Yield the positions of all rows. Raises InputError without exactly one column of bytes."""
    with pyarrow_errors(path):
        file, _ = _open(path)
        sizes = [file.metadata.row_group(k).num_rows for k in range(file.num_row_groups)]
    row = 0
    for group, size in enumerate(sizes):
        for place in range(size):
            yield Cell(path, row, group, place)
            row += 1


def count_rows(path: str) -> int:
    """Return the number of rows, from the footer."""
    with pyarrow_errors(path):
        from pyarrow import parquet

        return int(parquet.read_metadata(path).num_rows)


def _open(path: str) -> tuple[Any, int]:
    """Return a pyarrow.parquet.ParquetFile and the index of the leaf column with the images."""
    from pyarrow import parquet

    metadata = parquet.read_metadata(path)
    columns = [metadata.schema.column(k) for k in range(metadata.num_columns)]
    found = [
        k
        for k, column in enumerate(columns)
        if column.path.split(".")[-1] == "bytes" and column.max_repetition_level == 0
    ]
    if len(found) != 1 or columns[found[0]].physical_type != "BYTE_ARRAY":
        have = ", ".join(column.path for column in columns)[:300]
        raise InputError(path, f"expected one column `bytes` that holds image files, got {have}")
    dictionary = [columns[found[0]].path]
    return parquet.ParquetFile(path, metadata=metadata, read_dictionary=dictionary), found[0]


@lru_cache(maxsize=1)
def _read_row_group(path: str, group: int, version: tuple[int, ...]) -> Any:
    """Return the images of a row group, a pyarrow array of bytes.

    version: it changes when the file is written again, so that a process that runs for long does
    not return old images from the cache.
    """
    from pyarrow import types

    file, column = _open(path)
    size = file.metadata.row_group(group).column(column).total_uncompressed_size
    if size > MAX_BYTES:
        limit = f"row groups of {MAX_BYTES} bytes at most"
        raise InputError(path, f"expected {limit}, got {size}; write smaller ones")
    table = file.read_row_group(group, columns=[file.schema.column(column).path], use_threads=False)
    while types.is_struct(table.schema.types[0]):
        table = table.flatten()
    return table.column(0)
