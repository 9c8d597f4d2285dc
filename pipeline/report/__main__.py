"""Stage report: everything that the line has measured, as one static folder that opens from disk.

Reads results/ and out/<entry>/ of the entries and studies that params.yaml names, whatever of it is
made already, the packaged files in out/dist/, and docs/claims.yaml. Writes out/report/ (index,
compare, claims, live, inside, one page per entry, img/, the table of entries as table.txt) and
results/README.md. Fails when a file of an earlier stage is there but cannot be read; what is not
there is shown as pending.

    python -m pipeline.report
    python -m pipeline.report --readme     writes the measured tables of README.md and
                                           docs/lecture-notes.md
"""

from __future__ import annotations

import multiprocessing
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

from convline.jobs.pool import start_worker
from convline.runtime.host import usable_cores

from pipeline.core.errors import StageError
from pipeline.core.stage import run, stage_line
from pipeline.params import load as params
from pipeline.report.pages import build_report, update_docs


def in_processes(work: Callable[[Any], object], parts: Sequence[Any]) -> Iterator[object]:
    """Yield work(part) of each part, in order, from a process for each core; from this one where
    that would be one.

    They are forked before vl_convert has started threads, which a fork would not have. Raises
    StageError where one of them is killed.
    """
    count = min(len(parts), usable_cores())
    if count <= 1:
        yield from map(work, parts)
        return
    fork = multiprocessing.get_context("fork")
    with ProcessPoolExecutor(count, fork, initializer=start_worker) as pool:
        try:
            yield from pool.map(work, parts)
        except BrokenProcessPool:
            what = "a process that writes pages was ended by a signal (out of memory?)"
            raise StageError(f"report: {what}; free some memory, and run it again") from None


def main() -> None:
    if sys.argv[1:] == ["--readme"]:
        return update_docs(Path())
    with stage_line("report") as summarize:
        line = params.load()
        entries = line.line, line.models, line.studies
        page = build_report(*entries, Path(), line.size, in_processes)
        summarize(f"{len(line.line)} entries: {page}")


if __name__ == "__main__":
    run(main)
