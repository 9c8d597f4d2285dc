"""List the image files that a user names, also those in archives and Parquet files; read them."""

import os
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image

from convline.errors import InputError
from convline.images import archives, decode, parquet_images
from convline.images.decode import FLAT_RANGE, SUFFIXES
from convline.images.parquet_images import Cell
from convline.model_file.document import ImageRule
from convline.runtime.sources import FileSources, Source

UNSUPPORTED_SUFFIXES = (
    ".heic", ".heif", ".avif", ".jxl", ".dng", ".cr2", ".nef", ".arw", ".svg", ".pdf",
)  # fmt: skip


@dataclass(frozen=True)
class FileContents:
    """The bytes of a file that was read already."""

    data: bytes

    def read(self) -> bytes:
        return self.data


def read_source(source: Source, rule: ImageRule) -> decode.SizedImage:
    """Return the image at the rule's size. Raises InputError if it cannot be read."""
    if source.error is not None:
        raise InputError(source.path, source.error)
    return decode.read_sized(_path_or_bytes(source), rule)


def read_original(source: Source, rule: ImageRule) -> Image.Image:
    """Return the upright image at its own size. Raises InputError if it cannot be read."""
    return decode.read_full_size(_path_or_bytes(source), rule.background)


def with_bytes(source: Source) -> Source:
    """Return the source with its bytes in memory, or with the error that reading them raised."""
    if source.error is not None or isinstance(source.member, FileContents):
        return source
    try:
        data = source.member.read() if source.member else decode.read_bytes(source.path)
    except InputError as error:
        return source._replace(error=error.reason)
    return source._replace(member=FileContents(data))


def lost_contrast(source: Source, decoded: npt.NDArray[np.uint8]) -> bool:
    """Return whether the decoded image is almost of one grey but its file's samples are not."""
    if np.ptp(decoded) > FLAT_RANGE:  # true of nearly all images: nothing is read again
        return False
    try:
        return decode.lost_contrast(_path_or_bytes(source), decoded)
    except InputError:  # the archive was removed meanwhile; the image's row stays as it is
        return False


def _path_or_bytes(source: Source) -> str | bytes:
    return source.member.read() if source.member else source.path


class ImageSources(FileSources):
    """Iterate over image files, the members of archives and the rows of Parquet files."""

    suffixes = SUFFIXES
    packed = (*archives.SUFFIXES, parquet_images.SUFFIX)
    kind = "image files"
    unsupported = ""  # a suffix of skipped files that hold images of a format that is not read

    def _unpack(self, path: str) -> Iterator[Source]:
        is_parquet = path.lower().endswith(parquet_images.SUFFIX)
        try:
            for member in parquet_images.cells(path) if is_parquet else archives.members(path):
                if isinstance(member, Cell) or self._takes(os.path.basename(member.name)):
                    yield Source(member.path, None, member)
                else:
                    self._skip(os.path.basename(member.name))
        except InputError as error:
            yield Source(path, error.reason)

    def _expand(self, path: str) -> Iterator[Source]:
        self.unsupported = ""
        return super()._expand(path)

    def _of_other_kinds(self) -> str:
        cure = f", but {self.unsupported} files, which are not read; convert them to JPEG or PNG"
        return cure if self.unsupported else ""

    def _skip(self, name: str) -> None:
        super()._skip(name)
        suffix = os.path.splitext(name)[1].lower()
        if not name.startswith(".") and suffix in UNSUPPORTED_SUFFIXES:
            self.unsupported = suffix
