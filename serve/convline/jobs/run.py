"""What image and series jobs share: write batches to the table and keep its checkpoints."""

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import IO, NamedTuple

from convline.errors import ServeError
from convline.jobs.checkpoint import Checkpoint, CheckpointFile, Run, chain_hashes
from convline.jobs.output_files import checkpoint_of, part_of
from convline.jobs.writers import open_part
from convline.runtime.rows import Columns


class EncodedBatch(NamedTuple):
    """The result of a worker: the rows of one batch as bytes."""

    encoded: bytes
    rows: int  # of images, the images: one may have several rows
    failed: int
    input_hash: bytes
    decode_s: float
    inference_s: float
    encode_s: float
    low_contrast: int = 0  # images: see `convline.images.sources.lost_contrast`


@dataclass
class Summary:
    """What a job has done so far. Seconds are summed over the workers, except `start_s`."""

    device: str
    batch: int
    workers: str
    # Its rows include those of the interrupted run.
    checkpoint: Checkpoint = field(default_factory=Checkpoint)
    resumed: int = 0  # rows of the interrupted run, or images
    reduced_batch: int = 0  # images that fit in the device's memory, where a batch did not
    start_s: float = 0.0  # wall-clock time until the first batch
    decode_s: float = 0.0
    inference_s: float = 0.0
    write_s: float = 0.0
    low_contrast: int = 0


Watch = Callable[[Summary], None]  # called after each batch


def write_batches(
    target: str, columns: Columns, stdout: IO[bytes], run: Run, batches: Iterable[EncodedBatch],
    summary: Summary, watch: Watch, table_format: str | None,
) -> None:  # fmt: skip
    """Append batches to a table behind the summary's checkpoint, and keep its checkpoint file."""
    start = summary.checkpoint
    with open_part(target, columns, stdout, start.size, start.part, table_format) as part:
        to_stdout = target == "-"
        with nullcontext() if to_stdout else CheckpointFile(target, run, part, start) as file:
            for batch in batches:
                started = time.perf_counter()
                part.append(batch.encoded)
                summary.checkpoint = summary.checkpoint.after(
                    batch.rows, batch.failed, batch.input_hash, part
                )
                if file:
                    file.update(summary.checkpoint)
                summary.low_contrast += batch.low_contrast
                summary.decode_s += batch.decode_s
                summary.inference_s += batch.inference_s
                summary.write_s += batch.encode_s + time.perf_counter() - started
                watch(summary)
    if not to_stdout:
        checkpoint_of(target).unlink(missing_ok=True)


def skip_finished(input_hashes: Iterator[bytes], checkpoint: Checkpoint, target: str) -> None:
    """Consume the input hashes of the finished batches.

    Raises ServeError if these inputs are not those of the interrupted run.
    """
    inputs = ""
    while inputs != checkpoint.inputs:
        batch = next(input_hashes, None)
        if batch is None:
            expected = "expected the inputs that are done to be as they were"
            got = "one added, removed or changed among them"
            cure = "leave --resume out to start anew"
            raise ServeError(f"{part_of(target)}: {expected}, got {got}; {cure}")
        inputs = chain_hashes(inputs, batch)
