"""Forecast any number of files of series into a table, and resume an interrupted run."""

import hashlib
import os
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import IO, NamedTuple, TextIO

from convline.errors import InputError
from convline.jobs import checkpoint
from convline.jobs.formats import encode_rows, format_of, is_formula
from convline.jobs.pool import thread_pool
from convline.jobs.run import EncodedBatch, Summary, Watch, skip_finished, write_batches
from convline.model_file.document import Step
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


class Batch(NamedTuple):
    """The forecasts of one run of the model, or a file that cannot be read."""

    input_hash: bytes  # of the file
    step: Step
    starts: list[Cutoff]  # empty for an error
    file: str
    error: str


@dataclass
class SeriesJob:
    """A forecast task on files, and where its rows go."""

    task: ForecastTask
    target: str = "-"
    table_format: str | None = None  # None: that of the target's suffix
    draws: Callable[[Series, int], bool] = lambda series, cutoff: False  # whether to call `draw`
    draw: Callable[[Forecast], None] = print
    # By file, the name of a series without an id, where the file's stem is ambiguous.
    names: dict[str, str] = field(default_factory=dict)
    read_s: float = 0.0

    @cached_property
    def format(self) -> str:
        return format_of(self.target, self.table_format)

    def batches(self, files: Iterable[Source], stdin: TextIO | None = None) -> Iterator[Batch]:
        """Yield the batches of each file, of which "-" is `stdin`."""
        task = self.task
        for source in files:
            path, started = source.path, time.perf_counter()
            name = self.names.get(path)
            input_hash = b"" if self.target == "-" else hash_file(path, name or "")
            try:
                if source.error is not None:
                    raise InputError(path, source.error)
                table = task.reading.read(stdin if path == "-" and stdin else path, name)
            except InputError as error:
                yield Batch(input_hash, Step("index", 1), [], path, error.reason)
                continue
            finally:
                self.read_s += time.perf_counter() - started
            notes, formulas = table.notes, [one.id for one in table.series if is_formula(one.id)]
            if formulas and self.format == "csv":
                changed = "ids that a spreadsheet would run have a ' in front in CSV"
                notes = [*notes, f"{changed}: {printable_line(formulas[0])}, ..."]
            if table.filled:
                notes = [*notes, f"{table.filled} values made by interpolation"]
            for note in notes:
                task.notify(f"{path}: {note}")
            for starts in cutoff_batches(task.model, table, task.horizon, task.every):
                yield Batch(input_hash, table.step, starts, path, "")

    def hash_finished(self, batches: Iterator[Batch]) -> Iterator[bytes]:
        """Yield the input hash of each batch; forecast again what is drawn."""
        for batch in batches:
            starts = [start for start in batch.starts if self.draws(*start)]
            if starts:
                task = self.task
                for forecast in forecast_batch(task.model, batch.step, starts, task.horizon):
                    self.draw(forecast)
            yield batch.input_hash

    def process(self, batch: Batch) -> tuple[EncodedBatch, list[Forecast]]:
        """Return the encoded rows of a batch, and the forecasts to draw."""
        task, started = self.task, time.perf_counter()
        forecasts = forecast_batch(task.model, batch.step, batch.starts, task.horizon)
        inference_ended = time.perf_counter()
        if forecasts:
            block = task.to_rows(forecasts)
            failed = sum(bool(forecast.error) for forecast in forecasts)
            rows = failed + task.horizon * (len(forecasts) - failed)
        else:
            block, failed, rows = block_of([task.error_row(batch.file, batch.error)]), 1, 1
        encoded = encode_rows(self.format, block)
        times = 0.0, inference_ended - started, time.perf_counter() - inference_ended
        drawn = [forecast for forecast in forecasts if self.draws(forecast.series, forecast.cutoff)]
        return EncodedBatch(encoded, rows, failed, batch.input_hash, *times), drawn


def hash_file(path: str, name: str) -> bytes:
    """Return a SHA-256 of a file's path, its series' name and its content.

    A file that is not regular counts without content, because a pipe can be read only once.
    """
    names_and_content = hashlib.sha256(os.fsencode(f"{path}\0{name}\0"))
    # A file that cannot be read becomes an error row later. ValueError: a NUL in the path.
    with suppress(OSError, ValueError):
        if os.path.isfile(path):
            with Path(path).open("rb") as file:
                names_and_content.update(hashlib.file_digest(file, "sha256").digest())
    return names_and_content.digest()


def forecast_files(
    job: SeriesJob,
    files: Iterable[Source],
    stdout: IO[bytes],
    *,
    stdin: TextIO | None = None,
    resume: bool = False,
    watch: Watch = lambda summary: None,
) -> Summary:
    """Write the forecasts of all files, in order. Raises ServeError if the job cannot be done."""
    task, model = job.task, job.task.model
    interrupted, start = checkpoint.read(job.target) if resume else ({}, checkpoint.Checkpoint())
    reading = asdict(task.reading)
    options = ("target", "time", "id", "gaps", "delimiter", "decimal")
    run = {
        "model": model.file.digest,
        "columns": [*task.columns],
        "horizon": task.horizon,
        "every": task.every,
        **{f"--{option}": reading[option] for option in options},
        **({"format": job.table_format} if job.table_format else {}),
        "batch": windows_per_run(model, task.horizon),
    }
    checkpoint.require_same_run(job.target, run, interrupted)
    count = usable_cores() if model.kind == "cpu" else IN_FLIGHT
    summary = Summary(model.device, run["batch"], f"{count} threads", start, start.rows)
    batches = job.batches(files, stdin)
    skip_finished(job.hash_finished(batches), start, job.target)
    with thread_pool(count) as pool:

        def encoded() -> Iterator[EncodedBatch]:
            for batch, drawn in pool.map_in_order(job.process, batches):
                for forecast in drawn:
                    job.draw(forecast)
                yield batch

        write_batches(
            job.target, task.columns, stdout, run, encoded(), summary, watch, job.table_format
        )
    summary.decode_s = job.read_s
    return summary
