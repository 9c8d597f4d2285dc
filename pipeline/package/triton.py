"""A model repository for Triton Inference Server."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

from convline.model_file.document import Contract
from convline.model_file.registry import MODEL_FILE

TRITON_TYPES = {"images": "TYPE_UINT8", "series": "TYPE_FP32", "calendar": "TYPE_FP32"}


INSTANCE_KINDS = {
    "int8": "KIND_CPU",
    "fp16": "KIND_GPU",
}  # where each pays; Triton itself puts fp32 on a GPU that is there


MAX_BATCH = 64  # rows of one of Triton's batches


MAX_QUEUE_DELAY_US = 100  # that a request may wait for others: a third of LeNet-5's run on a CPU, nothing to a larger network's


LABELS_FILE = "labels.txt"


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
    named = {"probabilities": f', label_filename: "{LABELS_FILE}"'}
    inputs = ",\n".join(
        tensor_entry(name, TRITON_TYPES[name], dims) for name, dims in given.items()
    )
    outputs = ",\n".join(
        tensor_entry(name, "TYPE_FP32", dims, named.get(name, "")) for name, dims in answers.items()
    )
    place = (
        f"instance_group [ {{ kind: {INSTANCE_KINDS[variant]} }} ]\n"
        if variant in INSTANCE_KINDS
        else ""
    )
    return (
        f'name: "{triton_name(document["name"], variant)}"\nbackend: "onnxruntime"\nmax_batch_size: {MAX_BATCH}\n'
        f"input [\n{inputs}\n]\noutput [\n{outputs}\n]\n{place}"
        f"dynamic_batching {{ max_queue_delay_microseconds: {MAX_QUEUE_DELAY_US} }}\n"
    )


def triton_name(name: str, variant: str) -> str:
    return name if variant == "fp32" else f"{name}-{variant}"


def tensor_entry(name: str, kind: str, dims: list[int], more: str = "") -> str:
    return f'  {{ name: "{name}", data_type: {kind}, dims: [ {", ".join(map(str, dims))} ]{more} }}'


def write_triton_model(repository: Path, variant: str, file: Path, model: Contract) -> None:
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
    lines = [
        " ".join(str(label).split()) for label in document.get("labels", [])
    ]  # one a line, whatever is in it
    if lines:
        (version.parent / LABELS_FILE).write_text("\n".join(lines) + "\n", encoding="utf-8")
