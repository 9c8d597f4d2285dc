"""The files that a user names, one by one and in order: images or series, by file, folder, archive, glob or list."""

import glob
import os
import select
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np
import numpy.typing as npt

from convline.errors import InputError
from convline.images import archives, parquet_images
from convline.images.archives import Member
from convline.images.decode import (
    FLAT_RANGE,
    SUFFIXES,
    ImageRule,
    lost_contrast,
    read_bytes,
    read_image,
)
from convline.images.parquet_images import Cell

PACKED = (*archives.SUFFIXES, parquet_images.SUFFIX)
SERIES = (".csv", ".tsv", ".parquet")
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
COMPRESSED = (".gz", ".tgz", ".bz2", ".tbz2", ".xz", ".txz", ".zst", ".7z", ".rar")


@dataclass(frozen=True)
class Held:
    """The bytes of a file that was read."""

    data: bytes

    def read(self) -> bytes:
        return self.data


class Source(NamedTuple):
    """One output row to be: a path to decode, or the reason why it is not even tried."""

    path: str
    error: str | None = None
    member: Member | Cell | Held | None = (
        None  # path is then <archive>/<name>, of Parquet <file>#<row>
    )

    def read(self, rule: ImageRule) -> npt.NDArray[np.uint8]:
        """Return the image, uint8 (H, W, C); InputError says why there is none."""
        if self.error is not None:
            raise InputError(self.path, self.error)
        return read_image(self.path if self.member is None else self.member.read(), rule)

    def held(self) -> "Source":
        """Return the source with its bytes, so that they are read once, or with the reason why there are none."""
        if self.error is not None or isinstance(self.member, Held):
            return self
        try:
            data = read_bytes(self.path) if self.member is None else self.member.read()
        except InputError as error:
            return self._replace(error=error.reason)
        return self._replace(member=Held(data))

    def lost_contrast(self, decoded: npt.NDArray[np.uint8]) -> bool:
        """Return whether the decoded image is almost of one grey though the file's samples are not."""
        if np.ptp(decoded) > FLAT_RANGE:  # nearly all: nothing is read again
            return False
        try:
            return lost_contrast(self.path if self.member is None else self.member.read(), decoded)
        except InputError:  # an archive that went away since: the row that it gave stays
            return False


WAIT = Source("", "no more names are there yet")  # by identity: among the names of a live list
IDLE_S = 0.2  # after which a list on stdin is waited for


class ImageSources:
    """Iterate over the sources of `paths`; `skipped` then counts what was passed over inside folders.

    A folder gives its image files recursively, sorted by name, an archive in its own order; hidden names and other
    suffixes are skipped; a Parquet file gives its rows. A link inside a folder is followed to a file in the same folder
    only: one that leads outside is an error row, one to a folder inside is skipped, since the files there are met under
    their own names. A path that is given is always tried.
    live: WAIT comes wherever a list on stdin has no more names for now.
    """

    suffixes: Collection[str] = SUFFIXES
    packed: tuple[str, ...] = PACKED
    kind = "image files"

    def __init__(
        self, paths: Sequence[str], stdin: IO[bytes], *, nul: bool = False, live: bool = False
    ) -> None:
        self.paths = paths
        self.stdin = stdin
        self.separator = b"\0" if nul else b"\n"
        self.live = live
        self.skipped = 0
        self.unread = ""  # the suffix of an image among them that is of no kind that is read

    def __iter__(self) -> Iterator[Source]:
        for path in self.paths:
            if path == "-":
                yield from self._listed()
            elif glob.has_magic(path) and not os.path.lexists(path):
                matches = sorted(glob.glob(path, recursive=True))
                if not matches:
                    yield Source(path, "no file matches this pattern")
                for match in matches:
                    yield from self._expand(match)
            else:
                yield from self._expand(path)

    def _listed(self) -> Iterator[Source]:
        for name in _split(self.stdin, self.separator, self.live):
            if name:
                yield from self._expand(os.fsdecode(name))
            else:
                yield WAIT

    def _expand(self, path: str) -> Iterator[Source]:
        packed = path.lower().endswith(self.packed)
        if not packed and not os.path.isdir(path):
            cure = f"expected {self.kind}, got a compressed file; decompress it first"
            yield Source(
                path, cure if path.lower().endswith(COMPRESSED) and os.path.exists(path) else None
            )
            return
        found, self.unread = False, ""
        for source in (
            self._unpack(path) if packed and not os.path.isdir(path) else self._walk(path)
        ):
            found = True
            yield source
        if not found:
            yield Source(
                path,
                f"the {'archive' if packed else 'folder'} holds no {self.kind}{self._of_other_kinds()}",
            )

    def _of_other_kinds(self) -> str:
        cure = f", but {self.unread} files, which are not read; convert them to JPEG or PNG"
        return cure if self.unread and self.suffixes is SUFFIXES else ""

    def _skip(self, name: str) -> None:
        """Count a file that is passed over."""
        self.skipped += 1
        if not name.startswith(".") and (suffix := os.path.splitext(name)[1].lower()) in UNREAD:
            self.unread = suffix

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

    def _walk(self, root: str) -> Iterator[Source]:
        """Yield the sources below a folder, depth first; a stack, because folders may nest deeper than Python calls."""
        inside = os.path.join(os.path.realpath(root), "")
        waiting: list[str | os.DirEntry[str]] = [root]
        while waiting:
            entry = waiting.pop()
            if isinstance(entry, str) or entry.is_dir(follow_symlinks=False):
                try:
                    with os.scandir(entry) as scan:
                        entries = sorted(scan, key=lambda e: e.name, reverse=True)
                except OSError as error:
                    yield Source(os.fspath(entry), f"the folder cannot be read: {error.strerror}")
                    continue
                visible = [e for e in entries if not e.name.startswith(".")]
                self.skipped += len(entries) - len(visible)
                waiting.extend(visible)
            else:
                yield from self._file(entry, inside)

    def _takes(self, name: str) -> bool:
        return not name.startswith(".") and os.path.splitext(name)[1].lower() in self.suffixes

    def _file(self, entry: os.DirEntry[str], inside: str) -> Iterator[Source]:
        taken = self._takes(entry.name)
        if entry.is_symlink():
            target = os.path.realpath(entry.path)
            leads_outside = not os.path.join(target, "").startswith(inside)
            if leads_outside and (taken or os.path.isdir(target)):
                yield Source(
                    entry.path,
                    "a symbolic link that leads outside of the given folder is not followed",
                )
                return
            taken = taken and not os.path.isdir(target)
        if taken:
            plain = (
                entry.is_file(follow_symlinks=False)
                or os.path.isfile(entry.path)
                or not os.path.exists(entry.path)
            )
            # One that is given by name is tried: it may be <(zcat ...).
            yield Source(
                entry.path, None if plain else "expected a file, got a pipe, socket or device"
            )
        else:
            self._skip(entry.name)


class SeriesSources(ImageSources):
    """Iterate over files of series: as of images, but "-" is a CSV on stdin, and nothing is unpacked."""

    suffixes = SERIES
    packed = ()
    kind = f"series files ({', '.join(SERIES)})"

    def _listed(self) -> Iterator[Source]:
        yield Source("-")


def names_of(paths: Sequence[str]) -> dict[str, str]:
    """Return what names the series of each file that has no ids: its stem, with the folders that tell it from others.

    A file that is given twice has one name; a.csv and a.parquet of one folder keep their suffixes.
    """
    files = {path: Path(os.path.normpath(path)) for path in paths}
    alike: dict[str, list[Path]] = {}
    for file in dict.fromkeys(files.values()):
        alike.setdefault(file.stem, []).append(file)
    names: dict[Path, str] = {}
    for group in alike.values():
        parts = [(file.parent / file.stem).parts for file in group]
        tried = (
            [Path(*one[-depth:]).as_posix() for one in parts]
            for depth in range(1, 1 + max(map(len, parts)))
        )
        distinct = next(
            (some for some in tried if len({*some}) == len(some)),
            [file.as_posix() for file in group],
        )
        names |= dict(zip(group, distinct, strict=True))
    return {path: names[file] for path, file in files.items()}


def _split(stream: IO[bytes], separator: bytes, live: bool) -> Iterator[bytes]:
    """Yield the non-empty parts of a stream as they come, without reading it whole; b"" where one is late."""
    rest = b""
    while True:
        if live and not _has_more(stream):
            yield b""
        chunk = stream.read1(65536) if hasattr(stream, "read1") else stream.read(65536)
        if not chunk:
            break
        *whole, rest = (rest + chunk).split(separator)
        yield from (
            part.removesuffix(b"\r") if separator == b"\n" else part
            for part in whole
            if part.strip(b"\r")
        )
    if rest.strip(b"\r"):
        yield rest


def _has_more(stream: IO[bytes]) -> bool:
    """False where a pipe or terminal has had nothing for IDLE_S; streams that cannot tell are read."""
    try:
        return bool(select.select([stream], [], [], IDLE_S)[0])
    except (OSError, ValueError):
        return True
