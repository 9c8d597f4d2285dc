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
import os
import signal
import sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from pipeline.core.stage import run, stage_line
from pipeline.params import load as params
from pipeline.report.pages import build_report, update_docs


def processes() -> ProcessPoolExecutor:
    """Return one process for each core, which Ctrl-C leaves to end its part of the report.

    They are forked before vl_convert has started threads, which a fork would not have.
    """
    fork, cores = multiprocessing.get_context("fork"), len(os.sched_getaffinity(0))
    ignore_interrupt = signal.SIGINT, signal.SIG_IGN
    return ProcessPoolExecutor(cores, fork, initializer=signal.signal, initargs=ignore_interrupt)


def main() -> None:
    if sys.argv[1:] == ["--readme"]:
        return update_docs(Path())
    with stage_line("report") as summarize:
        line = params.load()
        with processes() as pool:
            page = build_report(line.line, line.models, line.studies, Path(), line.size, pool.map)
        summarize(f"{len(line.line)} entries: {page}")


if __name__ == "__main__":
    run(main)
