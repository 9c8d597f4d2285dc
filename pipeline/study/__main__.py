"""Stage study: a claim, measured over a recipe, settings laid over it, and seeds; a tidy CSV, a table, a picture.

Reads `studies.<name>` and `models` of params.yaml. Writes results/studies/<name>.csv and .md, out/studies/<name>.png
and, to go on from, out/studies/<name>/runs/.
Calls the same data and train as the line, in one process, and goes on run by run where it was interrupted.
Fails when a run fails; the runs before it are kept.

    python -m pipeline.study NAME
"""

from __future__ import annotations

import sys

from pipeline.core.errors import StageError
from pipeline.core.paths import OUT
from pipeline.core.stage import run
from pipeline.params import load as params
from pipeline.study.plots import draw
from pipeline.study.runs import FOLDER, run_all, write_table


def main() -> None:
    every = params.load()
    if len(sys.argv) != 2 or sys.argv[1] not in every.studies:
        raise StageError(
            f"usage: python -m pipeline.study NAME, where NAME is one of: {', '.join(every.studies)}"
        )
    name = sys.argv[1]
    study = every.studies[name]
    rows = run_all(name, study, every)
    write_table(name, study, rows)
    draw(OUT / "studies" / f"{name}.png", study, rows)
    print((FOLDER / f"{name}.md").read_text())


if __name__ == "__main__":
    run(main)
