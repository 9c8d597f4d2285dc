"""Stage check: the verdict on the .onnx files themselves, under onnxruntime, without torch. A gate.

Reads out/<entry>/export (the file in each precision, torch's answers), out/<entry>/data. Writes results/<entry>/
check.json (parity, accuracy or error with its interval, which variants may ship), metrics.json (the same in few
numbers, for `dvc metrics`), speed.json (latency, the recommended variants; not in git), and out/<entry>/check/test.npz.
Each file is tried on each device that has kernels for its precision: int8 on the CPU alone.
Fails when the fp32 file cannot be trusted, promises what its data are not, answers what is not finite, or breaks the
limit on its difference from torch (params.yaml `check.atol`) or on its metric's; when a variant's answers are not
finite; and, where params say `check.baseline: refuse`, when the network is no better than its best baseline. A variant
that loses too much accuracy is refused: it does not ship, the line goes on. check.json is written
then too, with the sentence. out/<entry>/check/digests.json names the files looked at: `package` takes no others.

    python -m pipeline.check ENTRY
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
from convline.errors import ServeError

from pipeline.check.verdict import verdict
from pipeline.core.errors import StageError
from pipeline.core.files import fresh, write_json
from pipeline.core.paths import OUT, RESULTS
from pipeline.core.stage import entry_of_command_line, run
from pipeline.data import dataset
from pipeline.params import load as params
from pipeline.params.schema import CheckPart


def headline(checked: dict[str, Any]) -> dict[str, float]:
    """Return the few flat numbers that `dvc metrics show` prints, one row an entry; errors are in own units."""
    metric = checked["metric"]
    name = metric["name"]
    facts = {
        f"test_{name}": metric["value"],
        f"test_{name}_low": metric["low"],
        f"test_{name}_high": metric["high"],
    }
    if name == "accuracy":
        facts |= {"test_balanced_accuracy": metric["balanced_accuracy"]}
    if name == "mse":
        naive = metric["baselines"]["seasonal naive"]["mse"]
        facts |= {"coverage": metric["intervals"][0]["measured"]} if metric["intervals"] else {}
        facts |= {"mase": metric["mase"]} if metric["mase"] is not None else {}
        facts |= (
            {"mse_vs_seasonal_naive": metric["value"] / naive} if naive else {}
        )  # 0: the test repeats itself exactly
    if found := checked.get("retrieval"):
        facts |= {
            "precision_at_5": found["precision"],
            "mean_average_precision": found["mean_average_precision"],
        }
    facts |= {
        f"{v}_accuracy": next(iter(found.values()))["accuracy"]
        for v, found in checked["variants"].items()
    }
    return facts | {
        "parity": max(row["max_difference"] for row in checked["rows"] if row["variant"] == "fp32")
    }


def main() -> None:
    with entry_of_command_line("check") as name:
        source = dataset.load(name)
        folder, results = fresh(OUT / name / "check"), RESULTS / name / "check.json"
        try:
            checked, timings, arrays, digests = verdict(
                name, source, params.entry(name, CheckPart).check
            )
        except (ServeError, StageError) as error:  # no numbers then, but a verdict
            nothing: dict[str, Any] = {"golden": [], "rows": [], "metric": None, "variants": {}}
            write_json(results, {"passed": False, "verdict": str(error), **nothing})
            for stale in ("speed", "metrics", "infer"):  # of another file
                (RESULTS / name / f"{stale}.json").unlink(missing_ok=True)
            raise
        np.savez_compressed(folder / "test.npz", **arrays)
        write_json(
            folder / "digests.json", digests
        )  # out of results: they change with the git revision in the file
        write_json(results, checked)
        write_json(RESULTS / name / "metrics.json", headline(checked))
        write_json(RESULTS / name / "speed.json", timings)
        if not checked["passed"]:
            raise StageError(checked["verdict"])
        metric = checked["metric"]
        print(
            f"   {metric['name']} {metric['value']:.4g} [{metric['low']:.4g}, {metric['high']:.4g}] on {metric['n']}, "
            f"parity {headline(checked)['parity']:.1e}, p50 {timings['rows'][0]['p50_ms']:.2f} ms",
            file=sys.stderr,
        )
        if metric["name"] != "accuracy" or not checked["against_baseline"]["better"]:
            print(f"   {checked['against_baseline']['sentence']}", file=sys.stderr)
        for found in (found for by in checked["variants"].values() for found in by.values()):
            print(f"   {found['why']}", file=sys.stderr)
        for device, choice in timings["choice"].items():
            print(
                f"   {device}: {choice['variant']} is recommended ({choice['why']})",
                file=sys.stderr,
            )


if __name__ == "__main__":
    run(main)
