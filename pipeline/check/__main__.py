"""Stage check: judge the .onnx files themselves, under onnxruntime and without torch. A gate.

Reads out/<entry>/export (the files, torch's outputs), out/<entry>/data and
results/<entry>/export.json. Writes results/<entry>/check.json (parity, the task's metric with its
interval, which variants may ship), metrics.json (its main numbers, for `dvc metrics`), speed.json
(latency, recommended variants and engine; not in git), and out/<entry>/check/: test.npz
(predictions) and digests.json (of the files that were judged; stage package takes no others). Each
file is tried on each device that can run its precision: int8 on the CPU alone. Fails when the fp32
file is damaged, is not of the entry's data, has outputs that are not finite, or differs from torch
by more than `check.atol` allows, in its outputs or in its metric; when a variant has outputs that
are not finite; with `check.baseline: refuse` when the network is no better than its best baseline.
check.json then holds the sentence. A variant that loses too much of the metric does not ship, and
neither does int8 where the test images are too few to decide (`check.undecided`); the line goes on.

    python -m pipeline.check ENTRY
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from convline.errors import ServeError

from pipeline.check.entry_results import check_entry
from pipeline.check.summary import describe_result
from pipeline.core.errors import StageError
from pipeline.core.files import RESULT_DIGITS, fresh, round_floats, write_json, write_result
from pipeline.core.paths import OUT, RESULTS
from pipeline.core.stage import entry_of_command_line, run
from pipeline.data import dataset
from pipeline.evaluate.metric_catalogue import main_metrics
from pipeline.params import load as params
from pipeline.params.schema import CheckPart


def main() -> None:
    with entry_of_command_line("check") as (name, summarize):
        folder, results = fresh(OUT / name / "check"), RESULTS / name
        source, checks = dataset.load(name), params.entry(name, CheckPart).check
        try:
            checked, speed, arrays, digests = check_entry(name, source, checks)
        except (ServeError, StageError) as error:
            write_failure(results, str(error))
            raise
        np.savez_compressed(folder / "test.npz", **arrays)
        # not in results/: digests change with the git revision that is in the file
        write_json(folder / "digests.json", digests)
        write_result(name, "check", checked)
        # from the numbers of check.json, which stage report reads
        write_json(results / "metrics.json", main_metrics(round_floats(checked, RESULT_DIGITS)))
        write_json(results / "speed.json", speed)
        if not checked["passed"]:
            raise StageError(checked["verdict"])
        summarize(describe_result(checked, speed))


def write_failure(results: Path, verdict: str) -> None:
    """Write check.json of an entry that could not be measured, and remove an earlier file's
    numbers.
    """
    nothing: dict[str, Any] = {"golden": [], "rows": [], "metric": None, "variants": {}}
    write_json(results / "check.json", {"passed": False, "verdict": verdict, **nothing})
    for stale in ("speed", "metrics", "infer"):
        (results / f"{stale}.json").unlink(missing_ok=True)


if __name__ == "__main__":
    run(main)
