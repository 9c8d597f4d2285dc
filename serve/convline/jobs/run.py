"""What both kinds of job share: rows to the file as they come, a journal to go on from after a kill."""

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO, Any, NamedTuple

from convline.errors import ServeError
from convline.jobs import checkpoint
from convline.jobs.checkpoint import Journal, Mark, chained
from convline.jobs.target import part_of
from convline.jobs.writers import Part, open_part
from convline.runtime.rows import Columns


class Chunk(NamedTuple):
    """What a worker makes of one batch: the bytes of its rows, and what the journal and the summary need."""

    encoded: bytes
    rows: int
    failed: int
    seen: bytes
    decode: float  # seconds, as the next two
    inference: float
    encoding: float
    flat: int = 0  # images that came out almost of one grey though their files' samples are not


@dataclass
class Summary:
    """What was done: for the progress line and the last one."""

    device: str
    mark: Mark  # rows and failed rows, those of an interrupted run among them
    resumed: int  # rows of the interrupted run
    batch: int
    workers: str
    parts: int = 0  # images run at once, where a batch did not fit in the device's memory
    start: float = (
        0.0  # seconds until the first batch: the session, and the batch size where it was measured
    )
    decode: float = 0.0  # seconds, summed over the workers, as the next two
    inference: float = 0.0
    writing: float = 0.0
    flat: int = 0  # images that came out almost of one grey though their files' samples are not


def write_chunks(
    output: str,
    columns: Columns,
    stdout: IO[bytes],
    run: dict[str, Any],
    chunks: Iterable[Chunk],
    summary: Summary,
    watch: Callable[[Summary], None],
    form: str | None = None,
) -> None:
    """Append chunks to a table behind the summary's mark, and note in its journal how far it is."""
    mark = summary.mark
    opened = open_part(output, columns, stdout, mark.size, mark.part, form)
    with opened as part, noted(output, run, mark, part) as note:
        for chunk in chunks:
            started = time.perf_counter()
            part.append(chunk.encoded)
            summary.mark = summary.mark.after(chunk.rows, chunk.failed, chunk.seen, part)
            note(summary.mark)
            summary.flat += chunk.flat
            summary.decode += chunk.decode
            summary.inference += chunk.inference
            summary.writing += chunk.encoding + time.perf_counter() - started
            watch(summary)
    if output != "-":
        checkpoint.journal_of(output).unlink(missing_ok=True)


def pass_over(prints: Iterator[bytes], mark: Mark, target: str) -> None:
    """Take the hashes of what an interrupted run has done; ServeError where they are not those of the same inputs."""
    inputs = ""
    while inputs != mark.inputs:
        if not (one := next(prints, b"")):
            raise ServeError(
                f"{part_of(target)}: expected the inputs that are done to be as they were, got one added, removed or "
                "changed among them; leave --resume out to start anew"
            )
        inputs = chained(inputs, one)


@contextmanager
def noted(
    target: str, run: dict[str, Any], mark: Mark, part: Part
) -> Iterator[Callable[[Mark], None]]:
    """Give a function that notes marks in the journal of a file, none for stdout; the last is noted on the way out."""
    if target == "-":
        yield lambda mark: None
        return
    last = mark._replace(size=part.size, part=part.digest())
    book = Journal(target, run, last)

    def note(mark: Mark) -> None:
        nonlocal last
        last = mark
        book.note(part, mark)

    try:
        yield note
    finally:
        try:
            book.note(part, last, now=True)
        finally:
            book.close()
