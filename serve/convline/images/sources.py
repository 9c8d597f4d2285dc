"""The images that a user names, in order: by file, folder, archive, Parquet file, glob or list; and their bytes."""

import os
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from convline.errors import InputError
from convline.images import archives, decode, parquet_images
from convline.images.decode import FLAT_RANGE, SUFFIXES, ImageRule, read_image
from convline.images.parquet_images import Cell
from convline.runtime.sources import FileSources, Source

UNREAD = (
    ".heic",
    ".heif",
    ".avif",
    ".jxl",
    ".dng",
    ".cr2",
    ".nef",
    ".arw",
    ".svg",
    ".pdf",
)  # images of other kinds


@dataclass(frozen=True)
class Held:
    """The bytes of a file that was read."""

    data: bytes

    def read(self) -> bytes:
        return self.data


def read_source(source: Source, rule: ImageRule) -> npt.NDArray[np.uint8]:
    """Return the image, uint8 (H, W, C); InputError says why there is none."""
    if source.error is not None:
        raise InputError(source.path, source.error)
    return read_image(source.path if source.member is None else source.member.read(), rule)


def with_bytes(source: Source) -> Source:
    """Return the source with its bytes, so that they are read once, or with the reason why there are none."""
    if source.error is not None or isinstance(source.member, Held):
        return source
    try:
        data = decode.read_bytes(source.path) if source.member is None else source.member.read()
    except InputError as error:
        return source._replace(error=error.reason)
    return source._replace(member=Held(data))


def lost_contrast(source: Source, decoded: npt.NDArray[np.uint8]) -> bool:
    """Return whether the decoded image is almost of one grey though the file's samples are not."""
    if np.ptp(decoded) > FLAT_RANGE:  # nearly all: nothing is read again
        return False
    try:
        file = source.path if source.member is None else source.member.read()
        return decode.lost_contrast(file, decoded)
    except InputError:  # an archive that went away since: the row that it gave stays
        return False


class ImageSources(FileSources):
    """Iterate over image files; an archive gives its files in its own order, a Parquet file its rows."""

    suffixes = SUFFIXES
    packed = (*archives.SUFFIXES, parquet_images.SUFFIX)
    kind = "image files"
    unread = ""  # the suffix of an image in a folder that is of no kind that is read

    def _unpack(self, path: str) -> Iterator[Source]:
        try:
            for part in (
                parquet_images.cells(path)
                if path.lower().endswith(parquet_images.SUFFIX)
                else archives.members(path)
            ):
                if isinstance(part, Cell) or self._takes(os.path.basename(part.name)):
                    yield Source(part.path, None, part)
                else:
                    self._skip(os.path.basename(part.name))
        except InputError as error:
            yield Source(path, error.reason)

    def _expand(self, path: str) -> Iterator[Source]:
        self.unread = ""
        return super()._expand(path)

    def _of_other_kinds(self) -> str:
        cure = f", but {self.unread} files, which are not read; convert them to JPEG or PNG"
        return cure if self.unread else ""

    def _skip(self, name: str) -> None:
        super()._skip(name)
        if not name.startswith(".") and (suffix := os.path.splitext(name)[1].lower()) in UNREAD:
            self.unread = suffix
