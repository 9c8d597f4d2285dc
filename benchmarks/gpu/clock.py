"""Run steps one after another, each in its own process with its own limit, and write the JSON after
each of them.

A step is a function that yields (name, fact) pairs. Its process appends each pair to a file at
once, so that a step which hangs, is killed or raises loses only what it had not said yet. Its
`status` is done, failed, killed, timed out or not run.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from convline.errors import ServeError
from convline.runtime.session import session_errors

from pipeline.core.errors import StageError
from pipeline.core.files import write_json

ROOT = Path(__file__).parents[2]
LEAVE = 0.92  # of its limit after which a step begins nothing more
LINES = 40  # of what a step printed that are kept where it printed a traceback
Facts = Iterator[tuple[str, Any]]


@dataclass(frozen=True)
class Here:
    """What a step is told."""

    device: str  # cuda | cpu
    until: float  # time.time() from which on it begins nothing more
    carried: Path

    @property
    def full(self) -> bool:
        """True on a GPU; on the CPU a step takes less of everything."""
        return self.device == "cuda"

    def late(self) -> bool:
        return time.time() > self.until


@dataclass(frozen=True)
class Planned:
    """A step to be run: where its function is, its limit in seconds, the device if not the one
    that was asked for.
    """

    target: str  # module:function
    limit: float
    device: str | None = None


Step = Callable[[Here], Facts]


def measure(
    steps: Mapping[str, Planned],
    device: str,
    carried: Path,
    seconds: float,
    file: Path,
    about: dict[str, Any],
) -> dict[str, Any]:
    """Return {**about, "steps": {name: facts}}, which `file` holds after each step.

    seconds: for all of them, after which none runs on.
    """
    result, end = about | {"steps": {}}, time.time() + seconds
    for name, step in steps.items():
        left = min(step.limit, end - time.time())
        print(f"── {name}, {max(left, 0):.0f} s at most", file=sys.stderr, flush=True)
        if left < 1:
            result["steps"][name] = {"status": "not run", "reason": "out of time", "facts": {}}
        else:
            result["steps"][name] = run(step.target, left, step.device or device, carried)
        write_json(file, result)
        found = result["steps"][name]
        print(
            f"   {found['status']}{': ' * bool(found['reason'])}{found['reason']}",
            file=sys.stderr,
            flush=True,
        )
    return result


def run(target: str, limit: float, device: str, carried: Path) -> dict[str, Any]:
    """Return a step's facts, how its process ended and why, and the seconds that it took."""
    begun = time.time()
    with tempfile.TemporaryDirectory() as folder:
        facts, log = Path(folder, "facts.jsonl"), Path(folder, "log")
        facts.touch()
        told = (target, device, str(begun + LEAVE * limit), str(carried), str(facts))
        words = [sys.executable, "-m", "benchmarks.gpu.clock", *told]
        place = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]),
        }
        with log.open("wb") as said:
            child = subprocess.Popen(
                words, stdout=said, stderr=said, env=place, start_new_session=True
            )
            try:
                code: int | None = child.wait(limit)
            except subprocess.TimeoutExpired:
                code = None
            finally:  # the processes that it started go with it
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(child.pid, signal.SIGKILL)
                child.wait()
        lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines() or [
            "it said nothing"
        ]
        whole, _, _ = facts.read_text(encoding="utf-8").rpartition(
            "\n"
        )  # a killed process may leave half a line
        found = dict(json.loads(line) for line in whole.splitlines())
    if code is None:
        status, reason = "timed out", f"its limit is {limit:.0f} s; last line: {lines[-1]}"
    elif code < 0:
        status, reason = "killed", f"by {signal.Signals(-code).name}; last line: {lines[-1]}"
    else:
        status, reason = ("failed", lines[-1]) if code else ("done", "")
    ended = {
        "status": status,
        "reason": reason,
        "seconds": round(time.time() - begun, 1),
        "limit": round(limit, 1),
    }
    traces = {"log": lines[-LINES:]} if any(line.startswith("Traceback") for line in lines) else {}
    return ended | traces | {"facts": found}


def read(path: Path) -> Any:
    """Return the JSON of a file that was carried along."""
    if not path.exists():
        cure = (
            "run `python -m benchmarks.gpu --pack` where `make` has run, and take that folder along"
        )
        raise StageError(f"{path}: expected a file that was carried along, got none; {cure}")
    return json.loads(path.read_text(encoding="utf-8"))


def attempt(work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Return the facts, or why there are none: one net that does not fit says nothing of the
    next.
    """
    try:
        return work()
    except (
        StageError,
        ServeError,
        *session_errors(),
    ) as error:  # RuntimeError is there: torch's, out of memory, too
        return {
            "passed": False,
            "reason": f"{type(error).__name__}: {' '.join(str(error).split())[:400]}",
        }


def forked(work: Callable[[], None]) -> int:
    """Return how a fork of this process ended that did the work: 0, 1 after an exception, -9
    where it was killed.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    if (child := os.fork()) == 0:
        code = 1
        try:
            work()
            code = 0
        except BaseException:
            sys.excepthook(*sys.exc_info())
        finally:
            sys.stderr.flush()
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def main() -> None:
    """Be the process of one step."""
    target, device, until, carried, file = sys.argv[1:]
    module, _, function = target.partition(":")
    step: Step = getattr(importlib.import_module(module), function)
    with open(file, "a", encoding="utf-8") as out:
        for pair in step(Here(device, float(until), Path(carried))):
            out.write(json.dumps(pair) + "\n")
            out.flush()


if __name__ == "__main__":
    main()
