"""Checkpoints of a table, so that --resume continues a killed run without lost or repeated rows.

The checkpoint file `<name>.part.journal` is JSON lines. The first line is the run: the model, the
options and the batch size. About once a second a checkpoint follows: the number of finished rows,
the bytes of the part that hold them with their hash, and a hash of the inputs (path and content) of
these rows. The part is flushed to the disk before its checkpoint. --resume cuts off what is behind
the last checkpoint and computes it again.
"""

import hashlib
import json
import os
import time
from pathlib import Path
from typing import Any, NamedTuple

from convline.errors import ServeError
from convline.jobs.output_files import checkpoint_of, new_checkpoint_of, part_of
from convline.jobs.writers import TablePart

INTERVAL_S = 1.0  # between checkpoints: how much work a kill can cost

Run = dict[str, Any]  # what must be equal for --resume: model, columns, options, batch size


class Checkpoint(NamedTuple):
    """What is finished."""

    rows: int = 0  # of images, the images: one may have several rows
    failed: int = 0  # rows of them with an error
    size: int = 0  # bytes of the part
    inputs: str = ""  # hash of the inputs, in hex
    part: str = ""  # hash of the bytes, in hex

    def after(self, rows: int, failed: int, inputs: bytes, part: TablePart) -> "Checkpoint":
        """Return the checkpoint after one more batch; `inputs` is the hash of its inputs."""
        hashed = chain_hashes(self.inputs, inputs)
        return Checkpoint(self.rows + rows, self.failed + failed, part.size, hashed, part.digest())


def chain_hashes(inputs: str, batch: bytes) -> str:
    """Return the hash of all inputs after one more batch, whose hash is `batch`."""
    return hashlib.sha256(inputs.encode() + batch).hexdigest()


def read(target: str) -> tuple[Run, Checkpoint]:
    """Return an interrupted run and its last checkpoint, or ({}, Checkpoint()) if there is none.

    Raises ServeError if the checkpoint file is damaged: a fresh start would lose finished rows.
    """
    path = checkpoint_of(target)
    try:
        first, *lines = path.read_bytes().splitlines(keepends=True)
        run, size = json.loads(first), part_of(target).stat().st_size
        # A kill may cut the last line.
        checkpoints = [Checkpoint(**json.loads(line)) for line in lines if line.endswith(b"\n")]
        types = [type(value) for value in Checkpoint()]
        if any([type(value) for value in checkpoint] != types for checkpoint in checkpoints):
            raise TypeError("a checkpoint has values of other types")
        if not isinstance(run, dict) or type(run.get("batch")) is not int or run["batch"] < 1:
            raise TypeError("the first line has no batch size")
        if not checkpoints or checkpoints[-1].size > size:
            raise ValueError("it counts more bytes than the part has")
    except FileNotFoundError:
        return {}, Checkpoint()
    except (OSError, ValueError, TypeError, RecursionError) as error:
        expected = f"expected the checkpoints of an interrupted run, got something else ({error})"
        raise ServeError(f"{path}: {expected}; remove it to start anew") from error
    return run, checkpoints[-1]


def require_same_run(target: str, run: Run, interrupted: Run) -> None:
    """Raise ServeError if an interrupted run was another one; {} is no interrupted run."""
    for key, value in run.items() if interrupted else ():
        if interrupted.get(key) != value:
            expected = f"expected to go on with {key} {interrupted.get(key)!r} as it was begun"
            cure = "give the same options, or leave --resume out to start anew"
            raise ServeError(f"{part_of(target)}: {expected}, got {value!r}; {cure}")


class CheckpointFile:
    """The checkpoint file of a run, as a context manager: on exit the last checkpoint is written.

    checkpoint: where the run starts, as `read` returns it.
    """

    def __init__(self, target: str, run: Run, part: TablePart, checkpoint: Checkpoint) -> None:
        self.part = part
        self.last = checkpoint._replace(size=part.size, part=part.digest())
        new: Path = new_checkpoint_of(target)
        new.unlink(missing_ok=True)
        self.file = new.open("xb")  # fails if the file is a link
        self._write(run)
        self._write(self.last._asdict())
        os.replace(new, checkpoint_of(target))  # an earlier file is valid until this one is

    def update(self, checkpoint: Checkpoint) -> None:
        """Take over a checkpoint, and write it if the last one is old enough."""
        self.last = checkpoint
        if time.monotonic() - self.written >= INTERVAL_S:
            self._save()

    def __enter__(self) -> "CheckpointFile":
        return self

    def __exit__(self, *_: object) -> None:
        with self.file:
            self._save()

    def _save(self) -> None:
        os.fsync(self.part.file.fileno())
        self._write(self.last._asdict())

    def _write(self, line: dict[str, Any]) -> None:
        self.file.write(json.dumps(line).encode() + b"\n")
        self.file.flush()
        os.fsync(self.file.fileno())
        self.written = time.monotonic()
