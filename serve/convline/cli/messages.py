"""What commands write to stderr: notes, progress on a terminal, the summary line."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import click

from convline.errors import describe_count
from convline.terminal_text import escape_control_characters

QUIET_KEY = "convline.quiet"  # key of --quiet in the context's `meta`


def note(text: str) -> None:
    """Write a line on stderr, unless --quiet was given."""
    if not is_quiet():
        click.echo(escape_control_characters(text), err=True)


def is_quiet() -> bool:
    """Return whether --quiet was given to the command that runs."""
    context = click.get_current_context(silent=True)
    return bool(context and context.meta.get(QUIET_KEY))


class StatusLine:
    """A line on a terminal that is overwritten; nothing is written elsewhere, nor with --quiet."""

    def __init__(self) -> None:
        self.visible = sys.stderr.isatty() and not is_quiet()

    def show(self, text: str) -> None:
        if self.visible:
            click.echo(f"\r{text}\033[K", err=True, nl=False)

    def clear(self) -> None:
        self.show("")


class Progress(StatusLine):
    """A status line that counts rows, five times a second at most."""

    def __init__(self, unit: str) -> None:
        super().__init__()
        self.unit = unit
        self.started = self.last = time.monotonic()

    def count(self, rows: int, failed: int) -> None:
        now = time.monotonic()
        if self.visible and now - self.last > 0.2:
            rate = rows / (now - self.started)
            self.show(f"{rows:,} {self.unit}, {failed:,} failed, {rate:,.0f}/s")
            self.last = now


@contextmanager
def advice_on_interrupt(advice: str) -> Iterator[None]:
    """After Ctrl-C or SIGTERM, once the files are closed, print where the finished rows are; exit
    code 130."""
    try:
        yield
    except KeyboardInterrupt:
        line = f"interrupted; {advice}" if advice else "interrupted"
        click.echo(escape_control_characters(line), err=True)
        raise SystemExit(130) from None


def resume_advice(output: str) -> str:
    """Return what an interrupted run of images or series should print; "" for stdout."""
    from convline.jobs.output_files import part_of

    if output == "-":
        return ""
    return f"{part_of(output)} holds the finished rows; continue with --resume"


def note_skipped_and_resumed(skipped: int, resumed: int) -> None:
    """Print how many files of folders were skipped, and how many rows an interrupted run had
    written."""
    if skipped:
        files = describe_count(skipped, "file")
        note(f"skipped {files} in folders: hidden, links, or with another suffix")
    if resumed:
        note(f"{describe_count(resumed, 'row')} taken from the interrupted run")


def finish(
    rows: int, failed: int, unit: str, *, started: float, device: str, strict: bool, output: str,
    resumed: int = 0,
) -> None:  # fmt: skip
    """Print the summary line and choose the exit code.

    started: time.perf_counter() at the start. resumed: rows of an interrupted run, which do not
    count for the rate. Exit code 3 with --strict if a row failed; 1 if every row failed, because a
    script must notice that there is no result. No row at all (an empty list on stdin) is no
    failure.
    """
    seconds = time.perf_counter() - started
    rate = (rows - resumed) / max(seconds, 1e-9)
    note(f"{rows - failed} ok, {failed} error, {seconds:.2f} s, {rate:.0f} {unit}/s on {device}")
    all_failed = failed == rows > 0
    if all_failed:
        table = "the table" if output == "-" else output
        click.echo(f"Error: every row failed; see column `error` of {table}", err=True)
    if failed and (strict or all_failed):
        raise SystemExit(3 if strict else 1)
