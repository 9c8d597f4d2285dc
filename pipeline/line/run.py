"""Run the line: the first entries up to their served prediction, then all, then what remains.

Runs `dvc repro`. The entries of the command line come first; one that is not in `line:` is left
out. Of each group of entries the stages that train them run side by side (parallel.py), then stage
check of each in turn, since it measures latency, then package and infer of two at once. The
explanations and the studies are part of the second group. Prints a line for each stage when it has
ended, with the number of stages that are done and that will run in all. DVC's own messages are left
out, but for its errors. A last line says where files changed meanwhile.

    python -m pipeline.line.run [ENTRY ...]
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext

from tqdm import tqdm

from pipeline.core.errors import StageError
from pipeline.core.stage import line_names, prefix, run, stage_of_line
from pipeline.line.fork_server import python_path
from pipeline.line.parallel import (
    check_groups,
    job_limit,
    served_stages,
    serving_groups,
    serving_limit,
    split_commands,
    target_groups,
    trains_one_at_a_time,
)
from pipeline.params import load as params

DVC = ["python", "-m", "pipeline.line.dvc", "--wait-for-lock", "repro"]
SINGLE = "--single-item"  # else each command would lock what all depend on, and refuse the others
PROGRESS = re.compile(r"\[[\d:]+<")  # in the lines of `core.stage.progress`
FAILED = re.compile(r"ERROR: failed to reproduce '([^']+)'")  # DVC's own sentence


def name_of_line(text: str, names: Iterable[str]) -> str | None:
    """Return the name with which a line begins, "" for all entries, None if it is not of `names`:
    types (`int | None`) and the bars of libraries have a " | ", too.
    """
    name, bar, _ = text.partition(" | ")
    return name.strip() if bar and name.strip() in {"", *names} else None


class Output:
    """The lines of the stages, each with the number of stages that are done.

    On a terminal a last line, redrawn in place, has the progress of the stages that run now.
    """

    def __init__(self, planned: Iterable[str]):
        """planned: the stages that will run, as DVC names them; empty where they are not known."""
        self.planned, self.done = set(planned), set[str]()
        self.failures: list[str] = []
        self.progress: dict[str, str] = {}  # by job
        self.lock = threading.Lock()
        live = sys.stderr.isatty()
        self.bar = tqdm(bar_format="{desc}", disable=not live, leave=False)

    @property
    def left(self) -> set[str]:
        """The planned stages that are not done."""
        return self.planned - self.done

    def count(self) -> str:
        return f"{len(self.done)} of {len(self.planned | self.done)}"

    def add(self, job: str, text: str) -> None:
        """Print a line that a stage of this job has printed; jobs call this from their threads."""
        with self.lock:
            if PROGRESS.search(text) and not self.bar.disable:
                self.progress[job] = " ".join(text.split())
                self.show_progress()
                return
            stage = stage_of_line(text)
            if stage:
                self.done.add(stage)
                self.end(job)
            count = self.count() if stage and self.planned else ""
            own = name_of_line(text, [job, *line_names()]) is not None
            named = text if own else prefix(job) + text
            width = 2 * len(str(len(self.planned))) + len(" of ")
            tqdm.write(f"{count:>{width}}  {named}", file=sys.stderr)

    def add_all(self, job: str, texts: list[str]) -> None:
        """Print and remove all of these lines."""
        while texts:
            self.add(job, texts.pop(0))

    def show_progress(self) -> None:
        width = shutil.get_terminal_size().columns - 1
        self.bar.set_description_str("   ".join(self.progress.values())[:width])

    def end(self, job: str) -> None:
        """Take the progress of a job's stage that has ended off the last line."""
        if self.progress.pop(job, None):
            self.show_progress()


def planned_stages() -> list[str]:
    """Return the stages that DVC will run: those that have changed, and all that depend on them.

    Each comes after those that it depends on.
    """
    from dvc.repo import Repo, lock_repo
    from dvc.repo.reproduce import plan_repro

    with Repo() as repo, lock_repo(repo):  # else DVC would read its files for each of the two
        graph, changed = repo.index.graph, repo.status()  # edges lead from a stage to what it needs
        waiting = [stage for stage in graph if stage.addressing in changed]
        planned: set[str] = set()
        while waiting:
            if (stage := waiting.pop()).addressing not in planned:
                planned.add(stage.addressing)
                waiting += graph.predecessors(stage)
        return [stage.addressing for stage in plan_repro(graph) if stage.addressing in planned]


def sources_have_changed() -> bool:
    """Return whether a stage that reads files that no stage makes, such as code, would run now."""
    from dvc.repo import Repo, lock_repo

    with Repo() as repo, lock_repo(repo):
        made = repo.index.outs_trie
        reads_sources = [
            stage
            for stage in repo.index.stages
            if not all(made.shortest_prefix(dep.fs.parts(dep.fs_path)) for dep in stage.deps)
        ]
        return any(stage.status() for stage in reads_sources)


def reproduce(job: str, targets: list[str], output: Output, threads: int | None = None) -> bool:
    """Run `dvc repro` for the targets and print what their stages print; return its success.

    job: the entry of all targets, or "". Of targets of several entries, lines without a name wait
    for the next one with a name, which is taken for their entry's: a guess, which gives what a
    stage prints after its own line to the next entry. Progress does not wait.
    """
    names = {target.partition("@")[2] for target in targets} - {""}
    several = len(names) > 1
    environment = os.environ | {"PATH": python_path()}
    if threads:
        environment["OMP_NUM_THREADS"] = str(threads)
    if not output.bar.disable:
        environment["TQDM_MININTERVAL"] = "1"
    failed, last, entry, waiting = "", "", job, list[str]()
    with subprocess.Popen(
        [*DVC, *targets],
        stdout=subprocess.DEVNULL,  # DVC's messages but for its errors
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        env=environment,
    ) as command:
        try:
            for line in command.stderr or ():
                text = line.rstrip()
                if found := FAILED.match(text):
                    failed = found[1]
                    last = last or text
                elif text:
                    name = name_of_line(text, names)
                    if several and name is None and PROGRESS.search(text):
                        output.add(job, text)
                        continue
                    waiting.append(text)
                    if not several or name is not None:
                        entry = name if several and name is not None else job
                        output.add_all(entry, waiting)
                    if not PROGRESS.search(text):
                        last = "" if stage_of_line(text) else text
        except KeyboardInterrupt:  # the command receives it too, and ends
            command.communicate()
            raise
        finally:
            output.add_all(failed.partition("@")[2], waiting)
            with output.lock:
                output.end(entry)
                output.end(job)
    if command.returncode:
        named = name_of_line(last, [job, *names, *line_names()]) is not None
        message = last.partition(" | ")[2] if named else last
        output.failures.append(f"{failed or job}: {message.removeprefix('error: ')}")
    return command.returncode == 0


def run_side_by_side(
    every: params.Params, todo: list[list[str]], limit: int, output: Output
) -> None:
    """Run jobs, each of DVC targets, `limit` at once; after a failure no job is begun, and those
    that run go on to their ends.
    """
    one_training = trains_one_at_a_time(every)
    stop = threading.Event()
    cores, training = threading.Semaphore(limit), threading.Lock()

    def run_job(targets: list[str]) -> None:
        names = {target.partition("@")[2] for target in targets}
        job = names.pop() if len(names) == 1 else ""
        for trains, part in split_commands(targets, one_training):
            with training if trains else nullcontext(), cores:
                if stop.is_set():
                    return
                if not reproduce(job, [SINGLE, *part], output, every.threads):
                    stop.set()
                    return

    # A job that waits for its turn to train takes no core.
    with ThreadPoolExecutor(max(1, len(todo) if one_training else limit)) as pool:
        try:
            list(pool.map(run_job, todo))
        except KeyboardInterrupt:  # the commands receive it too, and end
            stop.set()
            raise


def run_line(
    every: params.Params, first: list[str], planned: Iterable[str], output: Output
) -> None:
    """Run the planned stages; return after the first failure, which `output` then holds."""
    for part in (served_stages(every, first), output.planned):
        if not output.failures:
            run_part(every, part, output)
    if not output.failures and (rest := [stage for stage in planned if stage in output.left]):
        reproduce("", [SINGLE, *rest], output)


def run_part(every: params.Params, part: set[str], output: Output) -> None:
    """Train what is left of these stages side by side, check in turn, and serve side by side."""
    serving = serving_limit(every)
    for groups, limit in (
        (target_groups(every, part & output.left), job_limit(every)),
        (check_groups(every, part & output.left), 1),
        (serving_groups(every, part & output.left, serving), serving),
    ):
        if not output.failures:
            run_side_by_side(every, groups, limit, output)


def main() -> None:
    every, start = params.load(), time.monotonic()
    if not reproduce("", ["params"], Output(set())):
        sys.exit(1)  # its error is the last line
    planned = planned_stages()
    output = Output(planned)
    if not output.planned:
        print("nothing to run: every stage is up to date", file=sys.stderr)
        return
    limit = job_limit(every)
    turns = ", one training at a time" if trains_one_at_a_time(every) else ""
    print(
        f"{len(output.planned)} stages will run, {limit} at once{turns}; "
        "JOBS=1 runs them one by one",
        file=sys.stderr,
    )
    run_line(every, sys.argv[1:], planned, output)
    output.bar.close()
    if output.failures:
        raise StageError(
            f"{'; '.join(output.failures)}; {output.count()} stages are done and kept: run `make`"
            " again to go on from there"
        )
    seconds = time.monotonic() - start
    print(f"{len(output.done)} stages ran in {seconds // 60:.0f} min {seconds % 60:.0f} s")
    if sources_have_changed():  # which stages depend on them is known only after stage params
        print("files have changed meanwhile: run `make` again", file=sys.stderr)


if __name__ == "__main__":
    run(main)
