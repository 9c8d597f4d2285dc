"""Entries side by side: a training takes the threads of params.yaml, so a machine of many cores
makes many at once.

Reads params.yaml. Runs `dvc repro` up to stages export and explain for every entry of `line:`, and
for every study of `line_studies:`; entries that start from one another go in turn. On a GPU, and at
full size, one training runs at a time, while other entries are exported and explained on the cores.
Checking comes later, alone: it measures latency. Each line of output begins with what it is about.
JOBS in the environment says how many run at once, trainings too.

    python -m pipeline.line.parallel
"""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext

import psutil
from convline.runtime.session import sees_gpu

from pipeline.core.errors import StageError
from pipeline.core.stage import run
from pipeline.params import load as params

MEMORY_GIB = 3  # what one training may take
STAGES = ("data", "train", "export", "explain")
DVC = [sys.executable, "-m", "dvc", "--wait-for-lock", "repro"]
ALONE = "--single-item"  # each would lock what all depend on, and refuse the others


def chains(every: params.Params) -> list[list[str]]:
    """Return DVC's targets, those to be made in turn together; the last of the line, the deepest,
    come first.
    """
    starts = {name: every.models[name]["needs"] or name for name in every.line}
    together: dict[str, list[str]] = {}
    for name in every.line:
        first = name
        while starts[first] != first:
            first = starts[first]
        together.setdefault(first, []).extend(f"{stage}@{name}" for stage in STAGES)
    return [[f"study@{name}"] for name in every.line_studies] + list(together.values())[::-1]


def at_once(every: params.Params) -> int:
    """Return how many jobs the machine takes at once: JOBS, or what cores and memory bear."""
    if asked := os.environ.get("JOBS"):
        if not asked.isdecimal() or not int(asked):
            raise StageError(
                f"JOBS: expected a number of trainings at once, 1 or more, got {asked!r}"
            )
        return int(asked)
    cores, memory = len(os.sched_getaffinity(0)), psutil.virtual_memory().total / 2**30
    return max(1, min(cores // every.threads, int(memory / MEMORY_GIB)) // every.processes)


def trains_in_turn(every: params.Params) -> bool:
    """Return whether one training runs at a time: on a GPU, or at full size, unless JOBS says how
    many do.
    """
    return not os.environ.get("JOBS") and (
        every.size == "full" or (every.device != "cpu" and sees_gpu())
    )


def commands(targets: list[str], in_turn: bool) -> list[tuple[bool, list[str]]]:
    """Return the targets of each command to be run one after another, and whether it trains and so
    waits for its turn.

    A command costs DVC's start, 1.3 s: all of a job go in one where no training waits.
    """
    if not in_turn:
        return [(False, targets)]
    parts = itertools.groupby(targets, lambda target: target.startswith(("train@", "study@")))
    return [(trains, list(part)) for trains, part in parts]


def main() -> None:
    every = params.load()
    todo, jobs, in_turn = chains(every), at_once(every), trains_in_turn(every)
    if subprocess.call([*DVC, "params"]):  # here, once: side by side each would try to
        raise StageError("dvc repro params failed, as said above")
    turns = ", one training at a time" if in_turn else ""
    print(
        f"   {len(todo)} jobs, {jobs} at once{turns}; JOBS=1 makes them one by one", file=sys.stderr
    )
    width = max(len(targets[0].partition("@")[2]) for targets in todo)
    stop, failed, done = threading.Event(), [], []
    cores, turn = threading.Semaphore(jobs), threading.Lock()

    def succeeds(name: str, targets: list[str]) -> bool:
        """Run a command, each line of what it says after the job's name."""
        words = [*DVC, ALONE, *targets]
        environment = {**os.environ, "OMP_NUM_THREADS": str(every.threads)}
        pipe = subprocess.PIPE
        with subprocess.Popen(
            words, stdout=pipe, stderr=subprocess.STDOUT, text=True, env=environment
        ) as command:
            for line in command.stdout or ():
                if line.strip():
                    print(f"{name:<{width}} | {line.rstrip()}", file=sys.stderr, flush=True)
        return command.returncode == 0

    def follow(targets: list[str]) -> None:
        name = targets[0].partition("@")[2]
        for trains, part in commands(targets, in_turn):
            with turn if trains else nullcontext(), cores:
                if stop.is_set():
                    return
                if not succeeds(name, part):
                    stop.set()
                    failed.append(part[-1])
                    break
        done.append(name)
        print(f"   {len(done)} of {len(todo)} jobs done", file=sys.stderr, flush=True)

    with ThreadPoolExecutor(
        len(todo) if in_turn else jobs
    ) as pool:  # who waits for its turn to train takes no core
        try:
            list(pool.map(follow, todo))
        except KeyboardInterrupt:  # the commands hear it, too, and end
            stop.set()
            raise
    if failed:
        raise StageError(
            f"{'; '.join(failed)} failed, as said above; what was running has been finished"
        )


if __name__ == "__main__":
    run(main)
