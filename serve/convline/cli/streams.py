"""The standard streams of the command: stdout for bytes, streams that are closed, a stdout that is
full."""

import errno
import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import IO, NoReturn, TextIO, cast

from convline.terminal_text import escape_control_characters


def stdout_bytes() -> IO[bytes]:
    """Return stdout for bytes. If it is a terminal, control characters are written as escapes."""
    return _Terminal(sys.stdout.buffer) if sys.stdout.isatty() else sys.stdout.buffer


class _Terminal(io.BytesIO):
    """A terminal's stdout, on which names cannot move the cursor. Each write holds whole rows of
    UTF-8."""

    def __init__(self, stdout: IO[bytes]) -> None:
        super().__init__()
        self.stdout = stdout

    def write(self, data: object) -> int:
        text = bytes(data).decode("utf-8", "backslashreplace")  # type: ignore[call-overload]
        return self.stdout.write(escape_control_characters(text, keep="\n\t").encode())

    def flush(self) -> None:
        self.stdout.flush()


class _ClosedStream:
    """Stands for a standard stream that the caller has closed: an error when it is used, not
    before."""

    encoding, errors, closed = "utf-8", "strict", False

    def __init__(self, name: str) -> None:
        self.name = name
        self.buffer = self

    def isatty(self) -> bool:
        return False

    def flush(self) -> None:
        """Do nothing: nothing was written."""

    def _fail(self, *_: object) -> NoReturn:
        raise OSError(errno.EBADF, "it is closed", self.name)

    read = read1 = readline = write = fileno = _fail


@contextmanager
def open_standard_streams() -> Iterator[None]:
    """Replace closed standard streams while a command runs.

    The file numbers 0 to 2 are opened, because the next file would get a free one and receive what
    is written to the stream.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    before = sys.stdin, sys.stdout, sys.stderr
    sys.stdin = before[0] or cast(TextIO, _ClosedStream("stdin"))
    sys.stdout = before[1] or cast(TextIO, _ClosedStream("stdout"))
    sys.stderr = before[2] or io.StringIO()
    try:
        yield
    finally:
        sys.stdin, sys.stdout, sys.stderr = before


def discard_unwritten_stdout() -> None:
    """Discard what stdout could not take; Python would write it again at exit and print a
    traceback."""
    try:
        sys.stdout.flush()
    except OSError:
        with suppress(OSError, ValueError):  # ValueError: the stream has no file number
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
