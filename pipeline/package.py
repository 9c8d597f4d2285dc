"""Stage package: what a machine without PyTorch is given, one folder per entry.

Reads out/<entry>/export, results/<entry>/check.json and speed.json. Writes out/dist/<entry>/: model.onnx, the variants
that the check accepts, manifest.json (hashes, licence, metric, verdict, the variant recommended for each device) and
triton/<entry>/, a Triton model repository.
Fails when the check was not passed, was of another file, or a field of the contract or the licence is missing.

    python -m pipeline.package ENTRY
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any

from pipeline.stage import OUT, RESULTS, StageError, fresh, of_entry, read_json, run, write_json
from serve import contract
from serve.contract import Contract
from serve.locate import MANIFEST, MODEL_FILE, file_of

TRITON_TYPES = {"images": "TYPE_UINT8", "series": "TYPE_FP32", "calendar": "TYPE_FP32"}


def admit(name: str, models: dict[str, Contract], checked: dict[str, Any], digests: dict[str, str]) -> None:
    """Raise StageError where these files, or others than those whose digests were checked, may not be shipped."""
    if not checked["passed"]:
        raise StageError(f"{name}: not packaged, its check failed: {checked['verdict']}")
    for file, model in models.items():
        if digests.get(file) != model.digest:
            raise StageError(f"{name}: {file} is another than was checked; run `dvc repro check@{name}`")
    if models[MODEL_FILE].document["provenance"].get("licence", "") == "":
        cure = "add `licence:` to its set under `data:` in params.yaml"
        raise StageError(f"{name}: not packaged, no licence is stated for its data; {cure}")


def accepted(checked: dict[str, Any]) -> list[str]:
    """Return the variants that may ship: fp32, and those that the check accepts on every device that it tried."""
    others = [v for v, by in checked["variants"].items() if all(found["accepted"] for found in by.values())]
    return ["fp32", *others]


def manifest(models: dict[str, Contract], checked: dict[str, Any], choice: dict[str, Any]) -> dict[str, Any]:
    """Return what the package says of itself; `files` are sha256 by name, which `infer` holds the files to."""
    model = models[MODEL_FILE]
    provenance = model.document["provenance"]
    recommended = {device: found["variant"] for device, found in choice.items() if file_of(found["variant"]) in models}
    return {
        "name": model.name,
        "task": model.task,
        "files": {file: hashlib.sha256(contract.bytes).hexdigest() for file, contract in models.items()},
        "recommended": recommended,
        "digest": model.digest,
        "metric": {key: checked["metric"][key] for key in ("name", "value", "low", "high", "n")},
        "verdict": checked["verdict"],
        "variants": {v: [found["why"] for found in by.values()] for v, by in checked["variants"].items()},
        **{key: provenance[key] for key in ("licence", "revision", "versions")},
    }


def triton_config(document: dict[str, Any]) -> str:
    """Return config.pbtxt for Triton's onnxruntime backend, with dynamic batching; dims are without the batch axis."""
    if document["task"] == "classification":
        channels = 1 if document["input"]["colour"] == "grey" else 3
        given: dict[str, list[int]] = {"images": [*document["input"]["size"], channels]}
        answers = {"probabilities": [len(document["labels"])]}
    else:
        rule, steps = document["input"], document["forecast"]["horizon"]
        columns = len(document["forecast"].get("columns", rule["columns"]))
        given = {"series": [rule["context"], len(rule["columns"])]}
        if names := rule.get("calendar"):
            given["calendar"] = [rule["context"] + steps, 2 * len(names)]
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


def write_package(folder: Path, models: dict[str, Contract], about: dict[str, Any]) -> None:
    """Write the package; the manifest comes last, when everything that it names is there."""
    for name, model in models.items():
        (folder / name).write_bytes(model.bytes)
    model = models[MODEL_FILE]
    version = folder / "triton" / model.name / "1"
    version.mkdir(parents=True)
    try:
        os.link(folder / MODEL_FILE, version / MODEL_FILE)  # one file on disk, two names
    except OSError:  # a file system without links
        shutil.copyfile(folder / MODEL_FILE, version / MODEL_FILE)
    (version.parent / "config.pbtxt").write_text(triton_config(model.document))
    write_json(folder / MANIFEST, about)


def main() -> None:
    with of_entry("package") as name:
        folder = fresh(OUT / "dist" / name)  # emptied first: what is refused leaves nothing that could be served
        checked = read_json(RESULTS / name / "check.json", f"check@{name}")
        files = [file_of(v) for v in accepted(checked)]
        models = {file: contract.read(OUT / name / "export" / file) for file in files}
        checked_files = OUT / name / "check" / "digests.json"
        admit(name, models, checked, json.loads(checked_files.read_text()) if checked_files.exists() else {})
        choice = read_json(RESULTS / name / "speed.json", f"check@{name}")["choice"]
        write_package(folder, models, manifest(models, checked, choice))
        print(f"   {folder}: {', '.join(files)}", file=sys.stderr)


if __name__ == "__main__":
    run(main)
