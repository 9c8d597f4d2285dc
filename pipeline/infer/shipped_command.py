"""Run the shipped `infer` command on an entry's raw test files and compare with onnxruntime's own answers."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
from convline.model_file import document as contract
from convline.model_file.registry import file_of

from pipeline.core.errors import StageError
from pipeline.core.paths import OUT
from pipeline.data import dataset
from pipeline.params.limits import ERROR_LIMIT

# The wheel itself, as a zip on the path, with torch blocked: what a user's machine runs.
SHIPPED = "import sys; sys.path.insert(0, {wheel!r}); sys.modules['torch'] = None; from convline.cli.main import main; main()"


def run_infer(arguments: list[str]) -> None:
    """Run the `infer` of the wheel; its error is ours."""
    wheels = sorted((OUT / "dist" / "wheel").glob("*.whl"))
    if not wheels:
        raise StageError("infer: no wheel in out/dist/wheel; run `dvc repro wheel`")
    command = [
        sys.executable,
        "-P",
        "-c",
        SHIPPED.format(wheel=str(wheels[-1].resolve())),
        *arguments,
    ]
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if done.returncode:
        raise StageError(
            f"infer {' '.join(arguments)}: exit code {done.returncode}: {done.stderr.strip()[-500:]}"
        )


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Return the rows of a JSON lines file: its text is as it is, where CSV guards a leading = + - @."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def serve_images(
    name: str,
    labels: list[str],
    checked: dict[str, np.ndarray],
    answers: np.ndarray,
    output: Path,
    where: list[str],
) -> dict[str, Any]:
    """Return the served accuracy on the raw files beside that of the same rows in the check.

    answers: probabilities (N, K) of the whole test split in the check; where: the options of device and variant.
    """
    folder = OUT / name
    raw = folder / "data"
    with (raw / "raw.csv").open(newline="", encoding="utf-8") as file:
        listed = list(csv.DictReader(file))
    files = [str(raw / row["file"]) for row in listed]
    run_infer(["images", str(OUT / "dist" / name), *files, *where, "-o", str(output)])
    served = {Path(row["path"]): row for row in read_rows(output)}
    rows = [served.get(raw / row["file"], {"status": "missing", "label": ""}) for row in listed]
    right = [row["label"] == expected["label"] for row, expected in zip(rows, listed, strict=True)]
    numbers = [int(row["row"]) for row in listed]
    found = answers[numbers].argmax(1)
    expected = found == checked["y"][numbers]
    same = [row["label"] == labels[answer] for row, answer in zip(rows, found, strict=True)]
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


def serve_series(
    name: str,
    columns: list[str],
    checked: dict[str, np.ndarray],
    answers: np.ndarray,
    output: Path,
    where: list[str],
) -> dict[str, Any]:
    """Return the served mean squared error on the raw series beside that of the same windows in the check.

    answers: forecasts (M, S, D) of those windows in the check; where: the options of device and variant.
    """
    folder = OUT / name
    files = sorted(map(str, (folder / "data" / "raw").glob("*.csv")))
    run_infer(["series", str(OUT / "dist" / name), *files, *where, "-o", str(output)])
    served = read_rows(output)
    ok = [row for row in served if row["status"] in ("ok", "out-of-range")]
    target, expected = checked["target"].astype(np.float64), answers.astype(np.float64)  # (M, S, D)
    heads = ["yhat"] if len(columns) == 1 else [f"yhat-{column}" for column in columns]
    if len(ok) != target.shape[0] * target.shape[1]:
        raise StageError(
            f"{name}: infer answered {len(ok)} rows of {target.shape[0] * target.shape[1]}; see {output}"
        )
    forecast = np.array([[float(row[head]) for head in heads] for row in ok]).reshape(target.shape)
    value, torch_value = (float(((f - target) ** 2).mean()) for f in (forecast, expected))
    atol = contract.read(OUT / "dist" / name / file_of("fp32")).document["golden"]["atol"]
    first, allowed = ok[0], ERROR_LIMIT * torch_value
    return {
        "metric": "mse",
        "value": value,
        "expected": torch_value,
        "n": len(target),
        "rows_ok": len(ok),
        "rows_error": len(served) - len(ok),
        # As far as stage check lets answers differ from torch's, one by one and in their error.
        "equal": bool(
            np.abs(forecast - expected).max() <= atol and abs(value - torch_value) <= allowed
        ),
        "example": {
            "input": f"{first['unique_id']} at {first['ds']}",
            "output": f"{float(first[heads[0]]):.4g}",
        },
    }


def serve_variants(name: str) -> dict[tuple[str, str], dict[str, Any]]:
    """Return device and variant -> what the shipped file answers there, for each pair that check compared."""
    about, folder = dataset.load(name).about, OUT / name
    with np.load(folder / "check" / "test.npz") as arrays:
        checked = dict(arrays)
    image = about["task"] == "classification"
    ask, listed = (
        (serve_images, about["labels"])
        if image
        else (serve_series, about["forecast"].get("columns", about["columns"]))
    )
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for key in [key for key in checked if key.startswith("answers_")]:
        _, device, variant = key.split("_")
        if not (OUT / "dist" / name / file_of(variant)).exists():  # refused by check
            continue
        output = (
            folder
            / "infer"
            / (f"predictions.{device}.{variant}.jsonl" if found else "predictions.jsonl")
        )
        where = ["--device", device, *(["--variant", variant] if image else [])]
        found[device, variant] = ask(name, listed, checked, checked[key], output, where)
    return found
