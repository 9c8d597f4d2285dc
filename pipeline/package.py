"""Stage package: what a machine without PyTorch is given, one folder per entry.

Reads out/<entry>/export/model.onnx and results/<entry>/check.json. Writes out/dist/<entry>/: model.onnx, manifest.json
(hashes, licence, metric, verdict) and triton/<entry>/, a Triton model repository.
Fails when the check was not passed, was of another file, or a field of the contract or the licence is missing.

    python -m pipeline.package ENTRY
"""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
from pathlib import Path
from typing import Any

from pipeline.stage import OUT, RESULTS, StageError, fresh, of_entry, read_json, run, write_json
from serve import contract
from serve.contract import Contract

TRITON_TYPES = {"images": "TYPE_UINT8", "series": "TYPE_FP32"}


def admit(name: str, model: Contract, checked: dict[str, Any], digest: str) -> None:
    """Raise StageError where this file, or another than the one whose digest was checked, may not be shipped."""
    if not checked["passed"]:
        raise StageError(f"{name}: not packaged, its check failed: {checked['verdict']}")
    if digest != model.digest:
        raise StageError(f"{name}: not packaged, results/{name}/check.json is of another file; dvc repro check@{name}")
    if model.document["provenance"].get("licence", "") == "":
        cure = "add `licence:` to its set under `data:` in params.yaml"
        raise StageError(f"{name}: not packaged, no licence is stated for its data; {cure}")


def manifest(model: Contract, checked: dict[str, Any]) -> dict[str, Any]:
    """Return what the package says of itself; `files` are sha256 by name, which `infer` holds the file to."""
    provenance = model.document["provenance"]
    return {
        "name": model.name,
        "task": model.task,
        "files": {"model.onnx": hashlib.sha256(model.bytes).hexdigest()},
        "digest": model.digest,
        "metric": {key: checked["metric"][key] for key in ("name", "value", "low", "high", "n")},
        "verdict": checked["verdict"],
        **{key: provenance[key] for key in ("licence", "revision", "versions")},
    }


def triton_config(document: dict[str, Any]) -> str:
    """Return config.pbtxt for Triton's onnxruntime backend, with dynamic batching; dims are without the batch axis."""
    if document["task"] == "classification":
        channels = 1 if document["input"]["colour"] == "grey" else 3
        given: dict[str, list[int]] = {"images": [*document["input"]["size"], channels]}
        answers = {"probabilities": [len(document["labels"])]}
    else:
        columns, steps = len(document["input"]["columns"]), document["forecast"]["horizon"]
        given = {"series": [document["input"]["context"], columns]}
        answers = {
            "forecast": [steps, columns],
            "quantiles": [steps, columns, len(document["forecast"]["quantiles"])],
        }
    inputs = ",\n".join(tensor(name, TRITON_TYPES[name], dims) for name, dims in given.items())
    outputs = ",\n".join(tensor(name, "TYPE_FP32", dims) for name, dims in answers.items())
    return (
        f'name: "{document["name"]}"\nbackend: "onnxruntime"\nmax_batch_size: 64\ninput [\n{inputs}\n]\n'
        f"output [\n{outputs}\n]\ndynamic_batching {{ }}\n"
    )


def tensor(name: str, kind: str, dims: list[int]) -> str:
    return f'  {{ name: "{name}", data_type: {kind}, dims: [ {", ".join(map(str, dims))} ] }}'


def write_package(folder: Path, model: Contract, checked: dict[str, Any]) -> None:
    """Write the package; the manifest comes last, when everything that it names is there."""
    file, version = folder / "model.onnx", folder / "triton" / model.name / "1"
    file.write_bytes(model.bytes)
    version.mkdir(parents=True)
    try:
        os.link(file, version / "model.onnx")  # one file on disk, two names
    except OSError:  # a file system without links
        shutil.copyfile(file, version / "model.onnx")
    (version.parent / "config.pbtxt").write_text(triton_config(model.document))
    write_json(folder / "manifest.json", manifest(model, checked))


def main() -> None:
    with of_entry("package") as name:
        folder = fresh(OUT / "dist" / name)  # emptied first: what is refused leaves nothing that could be served
        checked = read_json(RESULTS / name / "check.json", f"check@{name}")
        model = contract.read(OUT / name / "export" / "model.onnx")
        checked_file = OUT / name / "check" / "digest"
        admit(name, model, checked, checked_file.read_text() if checked_file.exists() else "")
        write_package(folder, model, checked)
        print(f"   {folder}", file=sys.stderr)


if __name__ == "__main__":
    run(main)
