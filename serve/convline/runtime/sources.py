"""The files that a user names, one by one and in order: by file, folder, glob or list."""

import glob
import os
import select
from collections.abc import Collection, Iterator, Sequence
from typing import IO, NamedTuple, Protocol

COMPRESSED = (".gz", ".tgz", ".bz2", ".tbz2", ".xz", ".txz", ".zst", ".7z", ".rar")


class Member(Protocol):
    """A file inside another one."""

    def read(self) -> bytes: ...


class Source(NamedTuple):
    """One output row to be: a path to read, or the reason why it is not even tried."""

    path: str
    error: str | None = None
    member: Member | None = None  # path is then <archive>/<name>, of Parquet <file>#<row>


WAIT = Source("", "no more names are there yet")  # by identity: among the names of a live list
IDLE_S = 0.2  # after which a list on stdin is waited for


class FileSources:
    """Iterate over the sources of `paths`; `skipped` counts the files in folders that were skipped.

    A folder yields its files recursively, sorted by name, without hidden names and other
    suffixes. A symbolic link inside a folder is followed to a file in that folder only. One that
    leads outside is an error row. One to a folder inside is skipped, because its files are found
    anyway. A path that the user names is always tried.
    live: yield WAIT whenever a list on stdin has no more names yet.
    """

    suffixes: Collection[str]
    packed: tuple[str, ...] = ()  # suffixes of files that hold others, which `_unpack` yields
    kind: str  # of the files, in words

    def __init__(
        self, paths: Sequence[str], stdin: IO[bytes], *, nul: bool = False, live: bool = False
    ) -> None:
        self.paths = paths
        self.stdin = stdin
        self.separator = b"\0" if nul else b"\n"
        self.live = live
        self.skipped = 0

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
        found = False
        for source in (
            self._unpack(path) if packed and not os.path.isdir(path) else self._walk(path)
        ):
            found = True
            yield source
        if not found:
            yield Source(
                path,
                f"the {'archive' if packed else 'folder'} holds no {self.kind}"
                f"{self._of_other_kinds()}",
            )

    def _unpack(self, path: str) -> Iterator[Source]:
        raise NotImplementedError

    def _of_other_kinds(self) -> str:
        """Return which files of other kinds a folder holds, and the cure: the end of an error."""
        return ""

    def _skip(self, name: str) -> None:
        """Count a file that is passed over."""
        self.skipped += 1

    def _walk(self, root: str) -> Iterator[Source]:
        """Yield the sources below a folder, depth first.

        It uses a stack, because folders may nest deeper than Python can recurse.
        """
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


def _split(stream: IO[bytes], separator: bytes, live: bool) -> Iterator[bytes]:
    """Yield the non-empty parts of a stream as they arrive; b"" if `live` and none has arrived."""
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
    """Return whether a stream has data within IDLE_S; True for one that cannot be polled."""
    try:
        return bool(select.select([stream], [], [], IDLE_S)[0])
    except (OSError, ValueError):
        return True
