"""Train, export and explain the entries of the line side by side.

Reads params.yaml. Runs `dvc repro` for the stages data, train, export and explain of every entry of
`line:` and for every study of `line_studies:`. Entries that start from one another run in turn. On
a GPU, and at full size, one training runs at a time, while other entries are exported and explained
on the cores. Stage check comes later, alone, because it measures latency. Each line of output
begins with the name of its job. JOBS in the environment sets how many jobs run at once.

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

MEMORY_GIB = 3  # for one training
STAGES = ("data", "train", "export", "explain")
DVC = [sys.executable, "-m", "dvc", "--wait-for-lock", "repro"]
SINGLE = "--single-item"  # else each command would lock what all depend on, and refuse the others


def target_groups(every: params.Params) -> list[list[str]]:
    """Return each job's DVC targets in order; an entry shares a job with what it starts from.

    Studies come first, then the last entries of the line, which are the deepest networks.
    """
    starts = {name: every.models[name].needs or name for name in every.line}
    jobs: dict[str, list[str]] = {}
    for name in every.line:
        first = name
        while starts[first] != first:
            first = starts[first]
        jobs.setdefault(first, []).extend(f"{stage}@{name}" for stage in STAGES)
    return [[f"study@{name}"] for name in every.line_studies] + list(jobs.values())[::-1]


def job_limit(every: params.Params) -> int:
    """Return how many jobs run at once: JOBS, or as many as cores and memory allow."""
    if jobs := os.environ.get("JOBS"):
        if not jobs.isdecimal() or not int(jobs):
            raise StageError(f"JOBS: expected a number of jobs at once, 1 or more, got {jobs!r}")
        return int(jobs)
    cores, memory = len(os.sched_getaffinity(0)), psutil.virtual_memory().total / 2**30
    return max(1, min(cores // every.threads, int(memory / MEMORY_GIB)) // every.processes)


def trains_one_at_a_time(every: params.Params) -> bool:
    """Return whether one training runs at a time: on a GPU and at full size, unless JOBS is set."""
    if os.environ.get("JOBS"):
        return False
    return every.size == "full" or (every.device != "cpu" and sees_gpu())


def split_commands(targets: list[str], one_training: bool) -> list[tuple[bool, list[str]]]:
    """Return (does it train?, targets) of each `dvc repro` command of a job.

    DVC takes 1.3 s to start, so a job is one command unless its trainings must wait for others.
    """
    if not one_training:
        return [(False, targets)]
    parts = itertools.groupby(targets, lambda target: target.startswith(("train@", "study@")))
    return [(trains, list(part)) for trains, part in parts]


def run_job_command(name: str, targets: list[str], width: int, threads: int) -> bool:
    """Run `dvc repro` for the targets, print its output with the job's name; return its success."""
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    with subprocess.Popen(
        [*DVC, SINGLE, *targets],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment,
    ) as command:
        for line in command.stdout or ():
            if line.strip():
                print(f"{name:<{width}} | {line.rstrip()}", file=sys.stderr, flush=True)
    return command.returncode == 0


def main() -> None:
    every = params.load()
    todo, limit, one_training = target_groups(every), job_limit(every), trains_one_at_a_time(every)
    if subprocess.call([*DVC, "params"]):  # once: each job would try to run it
        raise StageError("dvc repro params failed, as said above")
    turns = ", one training at a time" if one_training else ""
    print(
        f"   {len(todo)} jobs, {limit} at once{turns}; JOBS=1 makes them one by one",
        file=sys.stderr,
    )
    names = [targets[0].partition("@")[2] for targets in todo]
    width = max(map(len, names))
    stop, failed, done = threading.Event(), [], []
    cores, training = threading.Semaphore(limit), threading.Lock()

    def run_job(name: str, targets: list[str]) -> None:
        for trains, part in split_commands(targets, one_training):
            with training if trains else nullcontext(), cores:
                if stop.is_set():
                    return
                if not run_job_command(name, part, width, every.threads):
                    stop.set()
                    failed.append(part[-1])
                    break
        done.append(name)
        print(f"   {len(done)} of {len(todo)} jobs done", file=sys.stderr, flush=True)

    # A job that waits for its turn to train takes no core.
    with ThreadPoolExecutor(len(todo) if one_training else limit) as pool:
        try:
            list(pool.map(run_job, names, todo))
        except KeyboardInterrupt:  # the commands receive it too, and end
            stop.set()
            raise
    if failed:
        raise StageError(
            f"{'; '.join(failed)} failed, as said above; what was running has been finished"
        )


if __name__ == "__main__":
    run(main)
