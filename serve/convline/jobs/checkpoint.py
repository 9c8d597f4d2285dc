"""How far a table has come: a file beside its part, so that a killed run goes on with nothing twice or missing.

`<name>.part.journal` is JSON lines: what the run is (model, options, batch size), then about each second a mark: the
rows that are done, the bytes of the part that hold them and their hash, and a hash over the inputs they were made of
(path and content). The part is on the disk before its mark is; what lies beyond the last mark is cut off and made anew.
"""

import hashlib
import json
import os
import time
from pathlib import Path
from typing import IO, Any, NamedTuple

from convline.errors import ServeError
from convline.jobs.target import part_of
from convline.jobs.writers import Part

SECONDS = 1.0  # between marks: as much work as a kill can cost


class Mark(NamedTuple):
    """What is done: rows, how many of them failed, bytes of the part, and the hashes of inputs and bytes so far."""

    rows: int = 0
    failed: int = 0
    size: int = 0
    inputs: str = ""
    part: str = ""

    def after(self, rows: int, failed: int, seen: bytes, part: Part) -> "Mark":
        """Return the mark once a batch is written to the part whose inputs have the hash `seen`."""
        return Mark(
            self.rows + rows,
            self.failed + failed,
            part.size,
            chained(self.inputs, seen),
            part.digest(),
        )


def chained(inputs: str, seen: bytes) -> str:
    """Return the hash of inputs with one more batch of them, whose hash is `seen`."""
    return hashlib.sha256(inputs.encode() + seen).hexdigest()


def journal_of(target: str) -> Path:
    return Path(f"{part_of(target)}.journal")


def read(target: str) -> tuple[dict[str, Any], Mark] | None:
    """Return what an interrupted run was and its last mark, or None where there was none.

    ServeError where a journal is there that cannot be one: to start anew would write over what was done.
    """
    path = journal_of(target)
    try:
        first, *lines = path.read_bytes().splitlines(keepends=True)
        run, size = json.loads(first), part_of(target).stat().st_size
        marks = [
            Mark(**json.loads(line)) for line in lines if line.endswith(b"\n")
        ]  # a kill may cut the last line
        kinds = {name: type(value) for name, value in Mark()._asdict().items()}
        if any(
            type(value) is not kinds[name]
            for mark in marks
            for name, value in mark._asdict().items()
        ):
            raise TypeError("its marks have other values")
        if not isinstance(run, dict) or type(run.get("batch")) is not int or run["batch"] < 1:
            raise TypeError("its first line has no batch size")
        if not marks or marks[-1].size > size:
            raise ValueError("it speaks of more than the part holds")
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, RecursionError) as error:
        what = f"expected the journal of an interrupted run, got something else ({error})"
        raise ServeError(f"{path}: {what}; remove it to start anew") from error
    return run, marks[-1]


def check_same(target: str, run: dict[str, Any], earlier: dict[str, Any]) -> None:
    """Raise ServeError where the run that is asked for is not the one that was interrupted."""
    for key, value in run.items():
        if earlier.get(key) != value:
            raise ServeError(
                f"{part_of(target)}: expected to go on with {key} {earlier.get(key)!r} as it was begun, got {value!r}; "
                "give the same options, or leave --resume out to start anew"
            )


class Journal:
    """Write the marks of one run; after a kill it starts from the `mark` that `read` gave."""

    def __init__(self, target: str, run: dict[str, Any], mark: Mark) -> None:
        self.path = journal_of(target)
        fresh = Path(f"{self.path}.new")
        fresh.unlink(missing_ok=True)
        self.file: IO[bytes] = fresh.open("xb")  # never through a link
        self._write(run)
        self._write(mark._asdict())
        os.replace(fresh, self.path)  # an earlier journal holds until this one is whole
        self.last = time.monotonic()

    def note(self, part: Part, mark: Mark, *, now: bool = False) -> None:
        """Write a mark where the last one is old enough, or at once."""
        if now or time.monotonic() - self.last >= SECONDS:
            os.fsync(part.file.fileno())
            self._write(mark._asdict())
            self.last = time.monotonic()

    def close(self) -> None:
        self.file.close()

    def _write(self, line: dict[str, Any]) -> None:
        self.file.write(json.dumps(line).encode() + b"\n")
        self.file.flush()
        os.fsync(self.file.fileno())
