"""A model repository for NVIDIA's Triton Inference Server."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

from convline.model_file.onnx_file import ModelFile
from convline.model_file.registry import MODEL_FILE

INPUT_TYPES = {"images": "TYPE_UINT8", "series": "TYPE_FP32", "calendar": "TYPE_FP32"}
INSTANCE_KINDS = {
    "int8": "KIND_CPU",
    "fp16": "KIND_GPU",
}  # fp32: Triton takes a GPU if there is one
MAX_BATCH = 64  # requests that Triton may join into one batch
MAX_QUEUE_DELAY_US = 100  # a third of LeNet-5's run time on a CPU, little to a larger network
LABELS_FILE = "labels.txt"


def triton_config(document: dict[str, Any], variant: str) -> str:
    """Return config.pbtxt for Triton's onnxruntime backend, with dynamic batching.

    Its dims leave the batch axis out.
    """
    rule = document["input"]
    if document["task"] == "classification":
        channels = 1 if rule["colour"] == "grey" else 3
        input_dims: dict[str, list[int]] = {"images": [*rule["size"], channels]}
        output_dims = {"probabilities": [len(document["labels"])]}
    else:
        forecast = document["forecast"]
        steps, columns = forecast["horizon"], len(forecast.get("columns", rule["columns"]))
        input_dims = {"series": [rule["context"], len(rule["columns"])]}
        if names := rule.get("calendar"):
            input_dims["calendar"] = [rule["context"] + steps, 2 * len(names)]
        output_dims = {
            "forecast": [steps, columns],
            "quantiles": [steps, columns, len(forecast["quantiles"])],
        }
    options = {"probabilities": f', label_filename: "{LABELS_FILE}"'}
    inputs = [tensor_entry(name, INPUT_TYPES[name], dims) for name, dims in input_dims.items()]
    outputs = [
        tensor_entry(name, "TYPE_FP32", dims, options.get(name, ""))
        for name, dims in output_dims.items()
    ]
    kind = INSTANCE_KINDS.get(variant)
    lines = [
        f'name: "{triton_name(document["name"], variant)}"',
        'backend: "onnxruntime"',
        f"max_batch_size: {MAX_BATCH}",
        "input [",
        ",\n".join(inputs),
        "]",
        "output [",
        ",\n".join(outputs),
        "]",
        *([f"instance_group [ {{ kind: {kind} }} ]"] if kind else []),
        f"dynamic_batching {{ max_queue_delay_microseconds: {MAX_QUEUE_DELAY_US} }}",
    ]
    return "\n".join(lines) + "\n"


def triton_name(name: str, variant: str) -> str:
    return name if variant == "fp32" else f"{name}-{variant}"


def tensor_entry(name: str, data_type: str, dims: list[int], options: str = "") -> str:
    sizes = ", ".join(map(str, dims))
    return f'  {{ name: "{name}", data_type: {data_type}, dims: [ {sizes} ]{options} }}'


def write_triton_model(repository: Path, variant: str, file: Path, model: ModelFile) -> None:
    """Write <name>/config.pbtxt, <name>/labels.txt and <name>/1/model.onnx below `repository`.

    Triton wants every input of the graph, so optional outputs (saliency, streaming) are cut off.
    """
    document = model.json
    version = repository / triton_name(model.name, variant) / "1"
    version.mkdir(parents=True)
    if model.has_gradient or model.has_step_graph:
        (version / MODEL_FILE).write_bytes(model.prediction_graph)
    else:
        try:
            os.link(file, version / MODEL_FILE)  # one file on disk under two names
        except OSError:  # this file system has no links
            shutil.copyfile(file, version / MODEL_FILE)
    (version.parent / "config.pbtxt").write_text(triton_config(document, variant))
    if labels := document.get("labels"):
        lines = "".join(" ".join(str(label).split()) + "\n" for label in labels)  # one line each
        (version.parent / LABELS_FILE).write_text(lines, encoding="utf-8")
