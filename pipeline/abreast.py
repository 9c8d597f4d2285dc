"""Entries side by side: a training takes the threads of params.yaml, so a machine of many cores makes many at once.

Reads params.yaml. Runs `dvc repro` up to stages export and explain for every entry of `line:`, and for every study of
`line_studies:`; entries that start from one another go in one command, in turn. Checking comes later, alone: it
measures latency. Each line of output begins with what it is about. JOBS in the environment says how many at once.

    python -m pipeline.abreast
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import psutil

from pipeline import params
from pipeline.stage import StageError, run

MEMORY_GIB = 3  # what one training may take
STAGES = ("data", "train", "export", "explain")
DVC = [sys.executable, "-m", "dvc", "--wait-for-lock", "repro"]
ALONE = "--single-item"  # each would lock what all depend on, and refuse the others


def chains(every: params.Params) -> list[list[str]]:
    """Return DVC's targets, those to be made in turn together; the last of the line, the deepest, come first."""
    starts = {name: every.models[name]["needs"] or name for name in every.line}
    together: dict[str, list[str]] = {}
    for name in every.line:
        first = name
        while starts[first] != first:
            first = starts[first]
        together.setdefault(first, []).extend(f"{stage}@{name}" for stage in STAGES)
    return [[f"study@{name}"] for name in every.line_studies] + list(together.values())[::-1]


def at_once(every: params.Params) -> int:
    """Return how many trainings the machine takes at once: JOBS, or one on a GPU, or what cores and memory bear."""
    if asked := os.environ.get("JOBS"):
        if not asked.isdecimal() or not int(asked):
            raise StageError(f"JOBS: expected a number of trainings at once, 1 or more, got {asked!r}")
        return int(asked)
    if every.size == "full" or (every.device != "cpu" and shutil.which("nvidia-smi")):
        return 1
    cores, memory = len(os.sched_getaffinity(0)), psutil.virtual_memory().total / 2**30
    return max(1, min(cores // every.threads, int(memory / MEMORY_GIB)) // every.processes)


def main() -> None:
    every = params.load()
    todo, jobs = chains(every), at_once(every)
    if subprocess.call([*DVC, "params"]):  # here, once: side by side each would try to
        raise StageError("dvc repro params failed, as said above")
    print(f"   {len(todo)} jobs, {jobs} at once; JOBS=1 makes them one by one", file=sys.stderr)
    width = max(len(targets[0].partition("@")[2]) for targets in todo)
    stop, failed, done = threading.Event(), [], []

    def follow(targets: list[str]) -> None:
        if stop.is_set():
            return
        words = [*DVC, ALONE, *targets]
        environment = {**os.environ, "OMP_NUM_THREADS": str(every.threads)}
        name = targets[0].partition("@")[2]
        pipe = subprocess.PIPE
        with subprocess.Popen(words, stdout=pipe, stderr=subprocess.STDOUT, text=True, env=environment) as command:
            for line in command.stdout or ():
                if line.strip():
                    print(f"{name:<{width}} | {line.rstrip()}", file=sys.stderr, flush=True)
        if command.returncode:
            stop.set()
            failed.append(targets[-1])
        done.append(name)
        print(f"   {len(done)} of {len(todo)} jobs done", file=sys.stderr, flush=True)

    with ThreadPoolExecutor(jobs) as pool:
        try:
            list(pool.map(follow, todo))
        except KeyboardInterrupt:  # the commands hear it, too, and end
            stop.set()
            raise
    if failed:
        raise StageError(f"{'; '.join(failed)} failed, as said above; what was running has been finished")


if __name__ == "__main__":
    run(main)
