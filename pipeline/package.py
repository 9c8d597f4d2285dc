"""Stage package: what a machine without PyTorch is given, one folder per entry.

Reads out/<entry>/export, results/<entry>/check.json and speed.json. Writes out/dist/<entry>/: model.onnx, the variants
that the check accepts, manifest.json (hashes, licence, metric, verdict, the variant recommended for each device) and
triton/, a Triton model repository with one model for each of them: <entry>, <entry>-int8, <entry>-fp16.
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
from serve.locate import MANIFEST, MODEL_FILE, VARIANTS, file_of

TRITON_TYPES = {"images": "TYPE_UINT8", "series": "TYPE_FP32", "calendar": "TYPE_FP32"}
PLACES = {"int8": "KIND_CPU", "fp16": "KIND_GPU"}  # where each pays; Triton itself puts fp32 on a GPU that is there
MOST = 64  # rows of one of Triton's batches
WAIT_US = 100  # that a request may wait for others: a third of LeNet-5's run on a CPU, nothing to a larger network's
LABELS = "labels.txt"


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


def triton_config(document: dict[str, Any], variant: str) -> str:
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
    named = {"probabilities": f', label_filename: "{LABELS}"'}
    inputs = ",\n".join(tensor(name, TRITON_TYPES[name], dims) for name, dims in given.items())
    outputs = ",\n".join(tensor(name, "TYPE_FP32", dims, named.get(name, "")) for name, dims in answers.items())
    place = f"instance_group [ {{ kind: {PLACES[variant]} }} ]\n" if variant in PLACES else ""
    return (
        f'name: "{triton_name(document["name"], variant)}"\nbackend: "onnxruntime"\nmax_batch_size: {MOST}\n'
        f"input [\n{inputs}\n]\noutput [\n{outputs}\n]\n{place}"
        f"dynamic_batching {{ max_queue_delay_microseconds: {WAIT_US} }}\n"
    )


def triton_name(name: str, variant: str) -> str:
    return name if variant == "fp32" else f"{name}-{variant}"


def tensor(name: str, kind: str, dims: list[int], more: str = "") -> str:
    return f'  {{ name: "{name}", data_type: {kind}, dims: [ {", ".join(map(str, dims))} ]{more} }}'


def write_triton(repository: Path, variant: str, file: Path, model: Contract) -> None:
    """Write one model of the repository: <name>/config.pbtxt, <name>/labels.txt, <name>/1/model.onnx.

    Its graph is the one that predictions run on: Triton wants to be told every input, a step graph's too.
    """
    document = model.document
    version = repository / triton_name(model.name, variant) / "1"
    version.mkdir(parents=True)
    if model.explains or model.streams:
        (version / MODEL_FILE).write_bytes(model.served)
    else:
        try:
            os.link(file, version / MODEL_FILE)  # one file on disk, two names
        except OSError:  # a file system without links
            shutil.copyfile(file, version / MODEL_FILE)
    (version.parent / "config.pbtxt").write_text(triton_config(document, variant))
    lines = [" ".join(str(label).split()) for label in document.get("labels", [])]  # one a line, whatever is in it
    if lines:
        (version.parent / LABELS).write_text("\n".join(lines) + "\n", encoding="utf-8")


def write_package(folder: Path, models: dict[str, Contract], about: dict[str, Any]) -> None:
    """Write the package; the manifest comes last, when everything that it names is there."""
    for variant in (v for v in VARIANTS if file_of(v) in models):
        model, path = models[file_of(variant)], folder / file_of(variant)
        path.write_bytes(model.bytes)
        write_triton(folder / "triton", variant, path, model)
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
