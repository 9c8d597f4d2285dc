"""Stage study: measure a claim over the settings of a recipe and over seeds.

Reads `studies.<name>` and `models` of params.yaml.
Writes results/studies/<name>.csv and .md, from which the report draws its plots, and, to continue
from after an interruption, out/studies/<name>/runs/.
Fails when a run fails; finished runs are kept.

The runs use the code of stages data and train, in one process.

    python -m pipeline.study NAME
"""

from __future__ import annotations

import sys

from pipeline.core.errors import StageError
from pipeline.core.stage import run, stage_line
from pipeline.params import load as params
from pipeline.study.runs import FOLDER, run_study, write_table


def main() -> None:
    every = params.load()
    if len(sys.argv) != 2 or sys.argv[1] not in every.studies:
        names = ", ".join(every.studies)
        raise StageError(f"usage: python -m pipeline.study NAME, where NAME is one of: {names}")
    name = sys.argv[1]
    study = every.studies[name]
    with stage_line("study", name) as summarize:
        rows = run_study(name, study, every)
        write_table(name, study, rows)
        runs = len(study.settings) * len(study.seeds)
        summarize(f"{runs} runs: {FOLDER / name}.md")


if __name__ == "__main__":
    run(main)
