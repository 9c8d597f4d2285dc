"""The boundary between a command and the system: streams that are closed, signals, and errors as one sentence.

What can go wrong outside the code (no room on a disk, no permission, a name that is too long, a closed stream, no
memory, Ctrl-C) ends a command here and nowhere else. A traceback is a bug.
"""

import errno
import io
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import IO, NoReturn, TextIO, cast

OUTSIDE = (OSError, UnicodeError, MemoryError)
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # errors of writing, which name no file
CURES = {
    errno.ENOSPC: "make room there",
    errno.EDQUOT: "make room there",
    errno.EFBIG: "write to another disk",
    errno.ENAMETOOLONG: "choose a shorter name",
    errno.EACCES: "check the permissions",
    errno.EPERM: "check the permissions",
    errno.EROFS: "choose another place",
    errno.EBADF: "open it, or name a file instead",
    errno.EMFILE: "raise the limit of open files (ulimit -n)",
}


def sentence(error: OSError | UnicodeError | MemoryError, output: str, part: str | None) -> str:
    """Return `<where>: <what>; <cure>`; `part` is what --resume can go on with, if anything."""
    if isinstance(error, MemoryError):
        what, cure = (
            "expected enough memory, got none",
            "try a smaller --batch, fewer --workers or smaller inputs",
        )
    elif isinstance(error, UnicodeError):
        what, cure = (
            f"expected text in the encoding of the stream, got other text ({error})",
            "set PYTHONUTF8=1",
        )
    else:
        written = "stdout" if output == "-" else output
        where = (
            error.filename
            if error.filename is not None
            else written
            if error.errno in FULL
            else "a stream"
        )
        name = (
            os.fsdecode(where) if isinstance(where, str | bytes | os.PathLike) else f"file {where}"
        )
        what = f"{name}: {error.strerror or error}"
        cure = CURES.get(error.errno or 0, "check that it can be read and written")
    return f"{what}; {cure}" + (f", then --resume goes on with {part}" if part else "")


def visible(text: str, keep: str = "") -> str:
    """Return text whose control characters are written as escapes, save those of `keep`: a terminal obeys a name's."""
    if text.isprintable():
        return text
    return "".join(
        c if c.isprintable() or c in keep else c.encode("unicode_escape").decode() for c in text
    )


def results() -> IO[bytes]:
    """Return stdout for bytes; on a terminal with control characters shown, elsewhere as they are."""
    return _Terminal(sys.stdout.buffer) if sys.stdout.isatty() else sys.stdout.buffer


class _Terminal(io.BytesIO):
    def __init__(self, stdout: IO[bytes]) -> None:
        super().__init__()
        self.stdout = stdout

    def write(self, data: object) -> int:
        text = bytes(data).decode("utf-8", "backslashreplace")  # type: ignore[call-overload]  # whole rows
        return self.stdout.write(visible(text, keep="\n\t").encode())

    def flush(self) -> None:
        self.stdout.flush()


class _Closed:
    """A standard stream that the caller has closed: its use is an error, not its absence."""

    encoding, errors, closed = "utf-8", "strict", False

    def __init__(self, name: str) -> None:
        self.name = name
        self.buffer = self

    def isatty(self) -> bool:
        return False

    def flush(self) -> None:
        """There is nothing to write."""

    def _fail(self, *_: object) -> NoReturn:
        raise OSError(errno.EBADF, "it is closed", self.name)

    read = read1 = readline = write = fileno = _fail


@contextmanager
def standard_streams() -> Iterator[None]:
    """Put something in the place of closed standard streams: the next file that is opened would get their number."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    before = sys.stdin, sys.stdout, sys.stderr
    sys.stdin = before[0] or cast(TextIO, _Closed("stdin"))
    sys.stdout = before[1] or cast(TextIO, _Closed("stdout"))
    sys.stderr = before[2] or io.StringIO()
    try:
        yield
    finally:
        sys.stdin, sys.stdout, sys.stderr = before


@contextmanager
def terminated() -> Iterator[None]:
    """Make SIGTERM what Ctrl-C is, so that what is open is closed and temporary folders are removed."""

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():  # where Python takes no handlers
        yield
        return
    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def drop_output() -> None:
    """Forget what stdout could not take: Python would try again at its end and print a traceback."""
    try:
        sys.stdout.flush()
    except OSError:
        with suppress(OSError, ValueError):  # ValueError: a stream without a number
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
