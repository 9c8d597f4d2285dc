"""Which entries run side by side, and how many at once.

Entries that start from one another run in turn. On a GPU, and at full size, one training runs at a
time, while other entries are exported and explained on the cores. Stage check comes later, alone,
because it measures latency; a stage of its own for that would gain little, since most of what else
check computes takes all cores too. Then entries are packaged and served, two at once, or one where
there is a GPU. JOBS in the environment sets how many jobs run at once.
"""

from __future__ import annotations

import itertools
import os

import psutil
from convline.runtime.session import sees_gpu

from pipeline.core.errors import StageError
from pipeline.params import load as params

MEMORY_GIB = 3  # for one training
STAGES = ("data", "train", "export", "explain")
CHECK, WHEEL = "check", "wheel"
SERVING = ("package", "infer")


def target_groups(every: params.Params, planned: set[str]) -> list[list[str]]:
    """Return each job's DVC targets in order; an entry shares a job with what it starts from.

    planned: the stages that will run; others are no targets. Studies come first, then the last
    entries of the line, which are the deepest networks, and the wheel, the shortest, last.
    """
    starts = {name: every.models[name].needs or name for name in every.line}
    jobs: dict[str, list[str]] = {}
    for name in every.line:
        first = name
        while starts[first] != first:
            first = starts[first]
        jobs.setdefault(first, []).extend(f"{stage}@{name}" for stage in STAGES)
    groups = [[f"study@{name}"] for name in every.line_studies] + list(jobs.values())[::-1]
    return keep_planned([*groups, [WHEEL]], planned)


def check_groups(every: params.Params, planned: set[str]) -> list[list[str]]:
    """Return the one job that checks each entry in turn, none where no check will run."""
    return keep_planned([[f"{CHECK}@{name}" for name in every.line]], planned)


def serving_groups(every: params.Params, planned: set[str], jobs: int) -> list[list[str]]:
    """Return the DVC targets of each of so many jobs, which package and serve checked entries.

    They are dealt in turn: neighbours of the line take about as long, and DVC takes a second to
    start. So each job is one command, and after a failure of one the other serves its entries to
    the last, a second or two each: DVC cannot be told to stop between two stages.
    """
    entries = keep_planned(
        [[f"{stage}@{name}" for stage in SERVING] for name in every.line], planned
    )
    dealt = [list(itertools.chain(*entries[job::jobs])) for job in range(jobs)]
    return [targets for targets in dealt if targets]


def served_stages(every: params.Params, names: list[str]) -> set[str]:
    """Return all stages that serve these entries of the line, and those that they start from."""
    stages = [stage for stage in (*STAGES, CHECK, *SERVING) if stage != "explain"]
    served: set[str] = set()
    for name in names:
        start: str | None = name if name in every.line else None
        while start:
            served |= {WHEEL, *(f"{stage}@{start}" for stage in stages)}
            start = every.models[start].needs
    return served


def keep_planned(groups: list[list[str]], planned: set[str]) -> list[list[str]]:
    """Return the groups without the targets that will not run, and without empty groups."""
    chosen = [[target for target in targets if target in planned] for targets in groups]
    return [targets for targets in chosen if targets]


def job_limit(every: params.Params) -> int:
    """Return how many jobs run at once: JOBS, or as many as cores and memory allow."""
    if jobs := os.environ.get("JOBS"):
        if not jobs.isdecimal() or not int(jobs):
            raise StageError(f"JOBS: expected a number of jobs at once, 1 or more, got {jobs!r}")
        return int(jobs)
    cores, memory = len(os.sched_getaffinity(0)), psutil.virtual_memory().total / 2**30
    return max(1, min(cores // every.threads, int(memory / MEMORY_GIB)) // every.processes)


def serving_limit(every: params.Params) -> int:
    """Return how many entries are served at once: two, or one where JOBS is 1 or on a GPU.

    `infer` takes all cores and the GPU's memory, so that a second job only fills the first one's
    pauses, such as its start.
    """
    return 1 if uses_gpu(every) else min(job_limit(every), 2)


def uses_gpu(every: params.Params) -> bool:
    return every.device != "cpu" and sees_gpu()


def trains_one_at_a_time(every: params.Params) -> bool:
    """Return whether one training runs at a time: on a GPU and at full size, unless JOBS is set."""
    if os.environ.get("JOBS"):
        return False
    return every.size == "full" or uses_gpu(every)


def split_commands(targets: list[str], one_training: bool) -> list[tuple[bool, list[str]]]:
    """Return (does it train?, targets) of each `dvc repro` command of a job.

    DVC takes a second to start, so a job is one command unless its trainings must wait for others.
    """
    if not one_training:
        return [(False, targets)]
    parts = itertools.groupby(targets, lambda target: target.startswith(("train@", "study@")))
    return [(trains, list(part)) for trains, part in parts]
