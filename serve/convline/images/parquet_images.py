"""Images as bytes in a Parquet file: its one column `bytes`, by itself or in a struct, as data sets have `image.bytes`.

A row is read where it is decoded, with its row group, which is kept until another is asked for: the list holds places
alone. Row groups are bounded; text stays coded, so that one image which every row repeats is in memory once.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from convline.errors import InputError, ServeError

SUFFIX = ".parquet"
MAX_BYTES = 2**30  # of a row group's images, as its footer says; each worker holds one


@dataclass(frozen=True)
class Cell:
    """Where an image lies: a row of the file, which is the `place`-th of a row group."""

    archive: str
    row: int
    group: int
    place: int

    @property
    def path(self) -> str:
        return f"{self.archive}#{self.row}"

    def read(self) -> bytes:
        """Return the bytes; InputError where there are none, or the file is damaged or has changed."""
        with _errors(self.archive):
            data = _images(self.archive, self.group, _version(self.archive))[self.place].as_py()
        if data is None:
            raise InputError(self.path, "expected the bytes of an image, got null")
        return bytes(data)


def cells(path: str) -> Iterator[Cell]:
    """Yield the rows of a file; InputError where it is no Parquet or has not one column of bytes."""
    with _errors(path):
        file, _ = _open(path)
        sizes = [file.metadata.row_group(k).num_rows for k in range(file.num_row_groups)]
    row = 0
    for group, size in enumerate(sizes):
        for place in range(size):
            yield Cell(path, row, group, place)
            row += 1


def _open(path: str) -> tuple[Any, int]:
    """Return a pyarrow.parquet.ParquetFile and which of its leaves holds the images."""
    from pyarrow import parquet

    about = parquet.read_metadata(path)
    leaves = [about.schema.column(k) for k in range(about.num_columns)]
    named = [
        leaf
        for leaf in leaves
        if leaf.path.split(".")[-1] == "bytes" and leaf.max_repetition_level == 0
    ]
    if len(named) != 1 or named[0].physical_type != "BYTE_ARRAY":
        have = ", ".join(leaf.path for leaf in leaves)[:300]
        raise InputError(path, f"expected one column `bytes` that holds image files, got {have}")
    return parquet.ParquetFile(path, metadata=about, read_dictionary=[named[0].path]), leaves.index(
        named[0]
    )


def _version(path: str) -> tuple[int, ...]:
    """Return what changes when a file is written anew: a process that lives long must not answer with old images."""
    status = os.stat(path)
    return status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


@lru_cache(maxsize=1)
def _images(path: str, group: int, version: tuple[int, ...]) -> Any:
    """Return the images of a row group, a pyarrow array of bytes; `version` is that of the file."""
    from pyarrow import types

    file, leaf = _open(path)
    size = file.metadata.row_group(group).column(leaf).total_uncompressed_size
    if size > MAX_BYTES:
        raise InputError(
            path,
            f"expected row groups of {MAX_BYTES} bytes at most, got {size}; write smaller ones",
        )
    table = file.read_row_group(group, columns=[file.schema.column(leaf).path], use_threads=False)
    while types.is_struct(table.schema.types[0]):
        table = table.flatten()
    return table.column(0)


@contextmanager
def _errors(path: str) -> Iterator[None]:
    """pyarrow's errors, of which some are OSError, ValueError or KeyError, as one InputError."""
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise ServeError(
            f"{path}: pyarrow cannot be imported; pip install 'convline[parquet]'"
        ) from error
    try:
        yield
    except (pyarrow.ArrowException, OSError, ValueError, LookupError) as error:
        raise InputError(
            path, f"the file cannot be read: {' '.join(str(error).split())[:300]}"
        ) from error
