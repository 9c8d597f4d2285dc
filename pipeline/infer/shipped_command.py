"""Run the shipped `infer` on an entry's raw test files and compare its predictions with stage
check's.
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
from convline.model_file.onnx_file import read_model_file
from convline.model_file.registry import variant_file_name

from pipeline.core.errors import StageError
from pipeline.core.paths import OUT
from pipeline.data import dataset
from pipeline.params.schema import ERROR_LIMIT

# The wheel itself, as a zip on the path, with torch blocked: as on a user's machine.
PROGRAM = """\
import sys
sys.path.insert(0, {wheel!r})
sys.modules["torch"] = None
from convline.cli.main import main
main()
"""


def serve_variants(name: str) -> dict[tuple[str, str], dict[str, Any]]:
    """Return the result of serving by (device, variant), for each pair that stage check compared.

    `n` of the `test` inputs of the test split have raw files. The first variant writes
    predictions.jsonl. A variant that the check refused is not served.
    """
    about, folder = dataset.load(name).about, OUT / name
    with np.load(folder / "check" / "test.npz") as arrays:
        checked = dict(arrays)
    served: dict[tuple[str, str], dict[str, Any]] = {}
    for key in [key for key in checked if key.startswith("predictions_")]:
        _, device, variant = key.split("_")
        if not (OUT / "dist" / name / variant_file_name(variant)).exists():
            continue
        file = f"predictions.{device}.{variant}.jsonl" if served else "predictions.jsonl"
        output, options = folder / "infer" / file, ["--device", device]
        if about["task"] == "classification":
            options += ["--variant", variant]
            served[device, variant] = serve_images(
                name, about["labels"], checked["y"], checked[key], output, options
            )
        else:
            columns = about["forecast"].get("columns", about["columns"])
            served[device, variant] = serve_series(
                name, columns, checked["target"], checked[key], output, options
            )
        served[device, variant]["test"] = about["test"]
    return served


def serve_images(
    name: str,
    labels: list[str],
    y: np.ndarray,
    probabilities: np.ndarray,
    output: Path,
    options: list[str],
) -> dict[str, Any]:
    """Return the accuracy of `infer images` on the raw files, and that of the check on the same
    images.

    y: labels (N,) of the test split; probabilities (N, K): the check's predictions for it.
    """
    folder = OUT / name / "data"
    with (folder / "raw.csv").open(newline="", encoding="utf-8") as file:
        listed = list(csv.DictReader(file))
    files = [str(folder / row["file"]) for row in listed]
    run_infer(["images", str(OUT / "dist" / name), *files, *options, "-o", str(output)])
    by_path = {Path(row["path"]): row for row in read_rows(output)}
    missing = {"status": "missing", "label": ""}
    rows = [by_path.get(folder / row["file"], missing) for row in listed]
    correct = [row["label"] == truth["label"] for row, truth in zip(rows, listed, strict=True)]
    numbers = [int(row["row"]) for row in listed]
    predicted = probabilities[numbers].argmax(1)
    expected = predicted == y[numbers]
    same = [row["label"] == labels[k] for row, k in zip(rows, predicted, strict=True)]
    return {
        "metric": "accuracy",
        "value": float(np.mean(correct)),
        "expected": float(expected.mean()),
        "n": len(rows),
        "rows_ok": sum(row["status"] == "ok" for row in rows),
        "rows_error": sum(row["status"] != "ok" for row in rows),
        "equal": all(same) and bool((np.array(correct) == expected).all()),
        "example": {
            "input": listed[0]["file"],
            "output": f"{rows[0]['label']} ({float(rows[0].get('score') or 'nan'):.3f})",
        },
    }


def serve_series(
    name: str,
    columns: list[str],
    target: np.ndarray,
    forecast: np.ndarray,
    output: Path,
    options: list[str],
) -> dict[str, Any]:
    """Return the mean squared error of `infer series` on the raw files, and the check's.

    target and forecast (M, S, D): of the raw windows, the forecast as stage check recorded it.
    Served and checked may differ as far as stage check lets onnxruntime differ from torch.
    """
    files = sorted(map(str, (OUT / name / "data" / "raw").glob("*.csv")))
    run_infer(["series", str(OUT / "dist" / name), *files, *options, "-o", str(output)])
    rows = read_rows(output)
    ok = [row for row in rows if row["status"] in ("ok", "out-of-range")]
    if len(ok) != (expected_rows := target.shape[0] * target.shape[1]):
        raise StageError(f"{name}: infer predicted {len(ok)} rows of {expected_rows}; see {output}")
    fields = ["yhat"] if len(columns) == 1 else [f"yhat-{column}" for column in columns]
    served = np.array([[float(row[field]) for field in fields] for row in ok]).reshape(target.shape)
    target, expected = target.astype(np.float64), forecast.astype(np.float64)
    error, expected_error = (float(((f - target) ** 2).mean()) for f in (served, expected))
    atol = read_model_file(OUT / "dist" / name / variant_file_name("fp32")).json["golden"]["atol"]
    close = abs(error - expected_error) <= ERROR_LIMIT * expected_error
    return {
        "metric": "mse",
        "value": error,
        "expected": expected_error,
        "n": len(target),
        "rows_ok": len(ok),
        "rows_error": len(rows) - len(ok),
        "equal": close and bool(np.abs(served - expected).max() <= atol),
        "example": {
            "input": f"{ok[0]['unique_id']} at {ok[0]['ds']}",
            "output": f"{float(ok[0][fields[0]]):.4g}",
        },
    }


def run_infer(arguments: list[str]) -> None:
    """Run the `infer` command of the wheel; raise StageError with its message if it fails."""
    wheels = sorted((OUT / "dist" / "wheel").glob("*.whl"))
    if not wheels:
        raise StageError("infer: no wheel in out/dist/wheel; run `dvc repro wheel`")
    program = PROGRAM.format(wheel=str(wheels[-1].resolve()))
    command = [sys.executable, "-P", "-c", program, *arguments]
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if done.returncode:
        reason = f"exit code {done.returncode}: {done.stderr.strip()[-500:]}"
        raise StageError(f"infer {' '.join(arguments)}: {reason}")


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Return the rows of a JSON lines file, in which no text is guarded as in CSV (=, +, -, @)."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
