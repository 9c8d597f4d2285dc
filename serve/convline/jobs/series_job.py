"""A table of forecasts of any number of files of series."""

import hashlib
import os
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import IO, NamedTuple, TextIO

from convline.errors import InputError
from convline.jobs import checkpoint
from convline.jobs.checkpoint import Mark
from convline.jobs.pool import AHEAD, Crew, in_order, threads
from convline.jobs.run import Chunk, Summary, pass_over, write_chunks
from convline.jobs.writers import Encode, encoding, form_of, is_formula
from convline.runtime.batches import IN_FLIGHT
from convline.runtime.host import usable_cores
from convline.runtime.rows import block_of
from convline.runtime.sources import Source
from convline.terminal_text import printable_line
from convline.timeseries.backtest import (
    Cutoff,
    Forecast,
    cutoff_batches,
    forecast_batch,
    windows_per_run,
)
from convline.timeseries.predict import ForecastTask
from convline.timeseries.series import Series
from convline.timeseries.timestamps import Step


class Group(NamedTuple):
    """What is forecast in one run, or why a file cannot be."""

    seen: bytes  # a hash of the file
    step: Step
    starts: list[Cutoff]
    file: str
    error: str


@dataclass
class SeriesJob:
    """A task on files, and where its rows go."""

    task: ForecastTask
    target: str = "-"
    draws: Callable[[Series, int], bool] = lambda series, cutoff: (
        False
    )  # whether `draw` wants to see it
    draw: Callable[[Forecast], None] = print
    form: str | None = None  # of the table; None: by the suffix of target
    names: dict[str, str] = field(
        default_factory=dict
    )  # of series without ids by file, where its stem is not enough
    reading_s: float = 0.0

    @cached_property
    def encode(self) -> Encode:
        return encoding(form_of(self.target, self.form), self.task.columns)[1]

    def groups(self, files: Iterable[Source], stdin: TextIO | None = None) -> Iterator[Group]:
        """Yield what is run of each file, of which "-" is `stdin`; a file that cannot be read is one group."""
        for source in files:
            name, started = source.path, time.perf_counter()
            called = self.names.get(name)
            seen = b"" if self.target == "-" else file_hash(name, called or "")
            try:
                if source.error is not None:
                    raise InputError(name, source.error)
                table = self.task.reading.read(stdin if name == "-" and stdin else name, called)
            except InputError as error:
                yield Group(seen, Step("index", 1), [], name, error.reason)
                continue
            finally:
                self.reading_s += time.perf_counter() - started
            risky = [one.id for one in table.series if is_formula(one.id)]
            if risky and form_of(self.target, self.form) == "csv":
                table.notes.append(
                    f"ids that a spreadsheet would run have a ' in front in CSV: {printable_line(risky[0])}, ..."
                )
            for note in table.notes + (
                [f"{table.filled} values made by interpolation"] if table.filled else []
            ):
                self.task.notify(f"{name}: {note}")
            for batch in cutoff_batches(self.task.model, table, self.task.horizon, self.task.every):
                yield Group(seen, table.step, batch, name, "")

    def passed(self, groups: Iterator[Group]) -> Iterator[bytes]:
        """Yield the hash of each group that an interrupted run has written; what is drawn of it is forecast again."""
        for group in groups:
            wanted = [start for start in group.starts if self.draws(*start)]
            for origin in (
                forecast_batch(self.task.model, group.step, wanted, self.task.horizon)
                if wanted
                else ()
            ):
                self.draw(origin)
            yield group.seen

    def work(self, group: Group) -> tuple[Chunk, list[Forecast]]:
        """Return the rows of a group, and what is drawn of it; any thread may."""
        started = time.perf_counter()
        origins = forecast_batch(self.task.model, group.step, group.starts, self.task.horizon)
        between = time.perf_counter()
        block = (
            self.task.to_rows(origins)
            if origins
            else block_of([self.task.error_row(group.file, group.error)])
        )
        encoded = self.encode(block)
        failed = sum(bool(origin.error) for origin in origins) if origins else 1
        rows = failed + self.task.horizon * (len(origins) - failed) if origins else 1
        times = (0.0, between - started, time.perf_counter() - between)
        drawn = [origin for origin in origins if self.draws(origin.series, origin.cutoff)]
        return Chunk(encoded, rows, failed, group.seen, *times), drawn


def file_hash(name: str, called: str) -> bytes:
    """Return a hash of a file's names and content; of the names alone if it is no regular file: a pipe is read once."""
    seen, path = hashlib.sha256(os.fsencode(f"{name}\0{called}\0")), Path(name)
    try:
        if path.is_file():
            with path.open("rb") as file:
                seen.update(hashlib.file_digest(file, "sha256").digest())
    except (
        OSError,
        ValueError,
    ):  # what cannot be read is an error row; ValueError: a NUL in the name
        pass
    return seen.digest()


def forecast_files(
    job: SeriesJob,
    files: Iterable[Source],
    stdout: IO[bytes],
    *,
    stdin: TextIO | None = None,
    resume: bool = False,
    watch: Callable[[Summary], None] = lambda summary: None,  # called after each group
) -> Summary:
    """Write the rows of files to the job's target, in order; ServeError says what cannot be done at all."""
    task, model = job.task, job.task.model
    begun = checkpoint.read(job.target) if resume else None
    mark = begun[1] if begun else Mark()
    facts = asdict(task.reading)
    run = {
        "model": model.contract.digest,
        "columns": [*task.columns],
        "horizon": task.horizon,
        "every": task.every,
    }
    run |= {
        f"--{name}": facts[name]
        for name in ("target", "time", "id", "gaps", "delimiter", "decimal")
    }
    run |= {"format": job.form} if job.form else {}
    run |= {"batch": (batch := windows_per_run(model, task.horizon))}
    if begun:
        checkpoint.check_same(job.target, run, begun[0])
    count = usable_cores() if model.kind == "cpu" else IN_FLIGHT
    summary = Summary(model.device, mark, mark.rows, batch, f"{count} threads")
    groups = job.groups(files, stdin)
    pass_over(job.passed(groups), mark, job.target)

    def chunks(crew: Crew) -> Iterator[Chunk]:
        for chunk, drawn in in_order(crew, job.work, groups, AHEAD * count):
            for origin in drawn:
                job.draw(origin)
            yield chunk

    with Crew(lambda: threads(count)) as crew:
        write_chunks(job.target, task.columns, stdout, run, chunks(crew), summary, watch, job.form)
    summary.decode = job.reading_s
    return summary
