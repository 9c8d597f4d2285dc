"""Errors and signals as a user sees them: one line on stderr and an exit code, never a traceback.

Errors from outside the code (a full disk, a missing permission, a name that is too long, a closed
stream, too little memory) are turned into a sentence here and nowhere else.
"""

import errno
import os
import signal
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import click

from convline.cli.streams import discard_unwritten_stdout, open_standard_streams
from convline.errors import ServeError
from convline.terminal_text import escape_control_characters

OUTPUT_KEY = "convline.output"  # key of --output in the context's `meta`
SystemFailure = OSError | UnicodeError | MemoryError
DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # errors of writing, which name no file
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


class CommandGroup(click.Group):
    """A group that ends each error in one line and exit code 1, and Ctrl-C and SIGTERM in exit code
    130."""

    def invoke(self, ctx: click.Context) -> Any:
        # Pillow warns about odd metadata and large images; a bad image is an error row anyway.
        warnings.filterwarnings("ignore", module=r"PIL\.")
        with open_standard_streams(), sigterm_as_interrupt():
            try:
                return super().invoke(ctx)
            except KeyboardInterrupt:
                click.echo("interrupted", err=True)
                raise SystemExit(130) from None
            except ServeError as error:
                raise click.ClickException(escape_control_characters(str(error))) from error
            except BrokenPipeError:  # stdout's reader has enough (`| head`): click ends quietly
                raise
            except (OSError, UnicodeError, MemoryError) as error:
                discard_unwritten_stdout()
                output = ctx.meta.get(OUTPUT_KEY, "-")
                text = describe_system_failure(error, output, _resumable_part(output))
                raise click.ClickException(escape_control_characters(text)) from error


def describe_system_failure(error: SystemFailure, output: str, part: str | None) -> str:
    """Return `<where>: <what>; <cure>`.

    output: the file of --output or "-", which an error of writing does not name. part: the file
    that --resume can continue, if there is one.
    """
    if isinstance(error, MemoryError):
        what = "not enough memory"
        cure = "try a smaller --batch, fewer --workers or smaller inputs"
    elif isinstance(error, UnicodeError):
        what = f"expected text in the encoding of the stream, got other text ({error})"
        cure = "set PYTHONUTF8=1"
    else:
        what = f"{_place_of(error, output)}: {error.strerror or error}"
        cure = CURES.get(error.errno or 0, "check that it can be read and written")
    return f"{what}; {cure}" + (f", then continue {part} with --resume" if part else "")


def _place_of(error: OSError, output: str) -> str:
    """Return the name of the file or stream that an error is about."""
    name = error.filename
    if name is None and error.errno in DISK_FULL:
        return "stdout" if output == "-" else output
    if name is None:
        return "a stream"
    return os.fsdecode(name) if isinstance(name, str | bytes | os.PathLike) else f"file {name}"


def _resumable_part(output: str) -> str | None:
    """Return the part of an output that --resume can continue, None if there is none."""
    from convline.jobs.output_files import checkpoint_of, part_of

    return str(part_of(output)) if output != "-" and os.path.exists(checkpoint_of(output)) else None


@contextmanager
def sigterm_as_interrupt() -> Iterator[None]:
    """Raise KeyboardInterrupt at SIGTERM, so that files are closed and temporary folders are
    removed."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():  # Python takes no handlers there
        yield
        return
    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
