"""Stage infer: raw files through the shipped command; the served metric must be the checked one.

Reads out/dist/<entry>/, out/dist/wheel/*.whl, out/<entry>/data/raw, out/<entry>/check/test.npz.
Writes results/<entry>/infer.json and out/<entry>/infer/predictions.jsonl.
Fails when a row is missing or failed, or a served answer or the metric of all differs from the checked one.

    python -m pipeline.infer ENTRY
"""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

from pipeline import data
from pipeline.stage import OUT, RESULTS, StageError, fresh, of_entry, run, write_json
from serve.locate import file_of

# The wheel itself, as a zip on the path, with torch blocked: what a user's machine runs.
SHIPPED = "import sys; sys.path.insert(0, {wheel!r}); sys.modules['torch'] = None; from serve.cli import main; main()"


def shipped(arguments: list[str]) -> None:
    """Run the `infer` of the wheel; its error is ours."""
    wheels = sorted((OUT / "dist" / "wheel").glob("*.whl"))
    if not wheels:
        raise StageError("infer: no wheel in out/dist/wheel; run `dvc repro wheel`")
    command = [sys.executable, "-P", "-c", SHIPPED.format(wheel=str(wheels[-1].resolve())), *arguments]
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if done.returncode:
        raise StageError(f"infer {' '.join(arguments)}: exit code {done.returncode}: {done.stderr.strip()[-500:]}")


def rows_of(path: Path) -> list[dict[str, Any]]:
    """Return the rows of a JSON lines file: its text is as it is, where CSV guards a leading = + - @."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def images(name: str, folder: Path, labels: list[str]) -> dict[str, Any]:
    """Return the served accuracy on the raw files beside that of the same rows in the check, of fp32 and of int8."""
    found = {
        variant: served_images(name, folder, labels, variant)
        for variant in ("fp32", "int8")
        if (OUT / "dist" / name / file_of(variant)).exists()
    }
    others = {variant: facts for variant, facts in found.items() if variant != "fp32"}
    return {
        **found["fp32"],
        "variants": {variant: facts["value"] for variant, facts in others.items()},
        "rows_error": max(facts["rows_error"] for facts in found.values()),
        "equal": all(facts["equal"] for facts in found.values()),
    }


def served_images(name: str, folder: Path, labels: list[str], variant: str) -> dict[str, Any]:
    """Return what one variant answers to the raw files, through the shipped command."""
    raw = folder / "data"
    with (raw / "raw.csv").open(newline="", encoding="utf-8") as file:
        listed = list(csv.DictReader(file))
    output = folder / "infer" / f"predictions{'' if variant == 'fp32' else '.' + variant}.jsonl"
    files = [str(raw / row["file"]) for row in listed]
    shipped(["images", str(OUT / "dist" / name), *files, "--variant", variant, "-o", str(output)])
    served = {Path(row["path"]): row for row in rows_of(output)}
    rows = [served.get(raw / row["file"], {"status": "missing", "label": ""}) for row in listed]
    right = [row["label"] == expected["label"] for row, expected in zip(rows, listed, strict=True)]
    checked = np.load(folder / "check" / "test.npz")
    numbers = [int(row["row"]) for row in listed]
    answers = checked["probabilities" + ("" if variant == "fp32" else f"_{variant}")][numbers].argmax(1)
    expected = answers == checked["y"][numbers]
    same = [row["label"] == labels[answer] for row, answer in zip(rows, answers, strict=True)]
    first = rows[0]
    return {
        "metric": "accuracy",
        "value": float(np.mean(right)),
        "expected": float(expected.mean()),
        "n": len(rows),
        "rows_ok": sum(row["status"] == "ok" for row in rows),
        "rows_error": sum(row["status"] != "ok" for row in rows),
        "equal": all(same) and bool((np.array(right) == expected).all()),
        "example": {
            "input": listed[0]["file"],
            "output": f"{first['label']} ({float(first.get('score') or 'nan'):.3f})",
        },
    }


def series(name: str, folder: Path, columns: list[str]) -> dict[str, Any]:
    """Return the served mean squared error on the raw series beside that of the same windows in the check."""
    output = folder / "infer" / "predictions.jsonl"
    files = sorted(map(str, (folder / "data" / "raw").glob("*.csv")))
    shipped(["series", str(OUT / "dist" / name), *files, "-o", str(output)])
    served = rows_of(output)
    ok = [row for row in served if row["status"] == "ok"]
    checked = np.load(folder / "check" / "test.npz")
    target, expected = checked["target"].astype(np.float64), checked["forecast"].astype(np.float64)  # (M, S, D)
    heads = ["yhat"] if len(columns) == 1 else [f"yhat-{column}" for column in columns]
    if len(ok) != target.shape[0] * target.shape[1]:
        raise StageError(f"{name}: infer answered {len(ok)} rows of {target.shape[0] * target.shape[1]}; see {output}")
    forecast = np.array([[float(row[head]) for head in heads] for row in ok]).reshape(target.shape)
    value, torch_value = (float(((f - target) ** 2).mean()) for f in (forecast, expected))
    first = ok[0]
    return {
        "metric": "mse",
        "value": value,
        "expected": torch_value,
        "n": len(target),
        "rows_ok": len(ok),
        "rows_error": len(served) - len(ok),
        # The command writes 6 significant digits.
        "equal": bool(np.allclose(forecast, expected, rtol=1e-5, atol=1e-5 * np.abs(expected).max())),
        "example": {"input": f"{first['unique_id']} at {first['ds']}", "output": f"{float(first[heads[0]]):.4g}"},
    }


def main() -> None:
    with of_entry("infer") as name:
        about = data.load(name).about
        folder = OUT / name
        fresh(folder / "infer")
        image = about["task"] == "classification"
        columns = [] if image else about["forecast"].get("columns", about["columns"])
        facts = images(name, folder, about["labels"]) if image else series(name, folder, columns)
        write_json(RESULTS / name / "infer.json", facts)
        if not facts["equal"] or facts["rows_error"]:
            raise StageError(
                f"{name}: served {facts['metric']} {facts['value']:.6g}, checked {facts['expected']:.6g}, "
                f"{facts['rows_error']} failed rows; see results/{name}/infer.json, out/{name}/infer/predictions.jsonl"
            )
        example = facts["example"]
        print(
            f"   {facts['metric']} {facts['value']:.4g} from {facts['n']} raw inputs, as checked; "
            f"{example['input']} -> {example['output']}",
            file=sys.stderr,
        )


if __name__ == "__main__":
    run(main)
