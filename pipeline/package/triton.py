"""A model repository for NVIDIA's Triton Inference Server.

One Triton model for each file. A captioner's file is two: <name> reads the image, and <name>-step
takes a word and the state, and returns what the next word may be. The search for a caption calls
the second one after each word, so it stays with the client.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path

import onnx
from convline.model_file.onnx_file import ModelFile
from convline.model_file.registry import MODEL_FILE
from onnx import TensorProto

DATA_TYPES: dict[int, str] = {
    TensorProto.UINT8: "TYPE_UINT8",
    TensorProto.INT64: "TYPE_INT64",
    TensorProto.FLOAT: "TYPE_FP32",
}
INSTANCE_KINDS = {
    "int8": "KIND_CPU",
    "fp16": "KIND_GPU",
}  # fp32: Triton takes a GPU if there is one
MAX_BATCH = 64  # requests that Triton may join into one batch
MAX_QUEUE_DELAY_US = 100  # a third of LeNet-5's run time on a CPU, little to a larger network
LABELS_FILE = "labels.txt"
NAMED_OUTPUTS = ("probabilities", "log_probabilities")  # by class or word, where these are all


def triton_config(name: str, variant: str, graph: onnx.GraphProto) -> str:
    """Return config.pbtxt for Triton's onnxruntime backend, with dynamic batching."""
    kind = INSTANCE_KINDS.get(variant)
    lines = [
        f'name: "{name}"',
        'backend: "onnxruntime"',
        f"max_batch_size: {MAX_BATCH}",
        "input [",
        ",\n".join(tensor_entry(value) for value in graph.input),
        "]",
        "output [",
        ",\n".join(tensor_entry(value) for value in graph.output),
        "]",
        *([f"instance_group [ {{ kind: {kind} }} ]"] if kind else []),
        f"dynamic_batching {{ max_queue_delay_microseconds: {MAX_QUEUE_DELAY_US} }}",
    ]
    return "\n".join(lines) + "\n"


def triton_name(name: str, variant: str) -> str:
    return name if variant == "fp32" else f"{name}-{variant}"


def tensor_entry(value: onnx.ValueInfoProto) -> str:
    """Return the line of a tensor, whose dims leave the batch axis out; -1 is any length."""
    kind = value.type.tensor_type
    dims = [d.dim_value if d.HasField("dim_value") else -1 for d in kind.shape.dim][1:]
    options = ""
    if value.name in NAMED_OUTPUTS and len(dims) == 1:
        options = f', label_filename: "{LABELS_FILE}"'
    if not dims:  # one number a sample, for which Triton wants an axis
        dims, options = [1], ", reshape: { shape: [ ] }"
    sizes = ", ".join(map(str, dims))
    data_type = DATA_TYPES[kind.elem_type]
    return f'  {{ name: "{value.name}", data_type: {data_type}, dims: [ {sizes} ]{options} }}'


def write_triton_models(repository: Path, variant: str, file: Path, model: ModelFile) -> None:
    """Write <name>/config.pbtxt, <name>/labels.txt and <name>/1/model.onnx below `repository`.

    Triton wants every input of a graph, so optional outputs (saliency, streaming) are cut off.
    """
    name, graph = triton_name(model.name, variant), model.prediction_graph
    served = write_triton_model(repository / name, variant, graph, model.json.get("labels", []))
    if graph is not model.content:
        served.write_bytes(graph)
    else:
        try:
            os.link(file, served)  # one file on disk under two names
        except OSError:  # this file system has no links
            shutil.copyfile(file, served)
    if model.task == "captioning":
        step = require_inputs(model.step_graph)
        words = model.json["words"]
        write_triton_model(repository / f"{name}-step", variant, step, words).write_bytes(step)


def write_triton_model(folder: Path, variant: str, graph: bytes, names: Sequence[str]) -> Path:
    """Write what stands beside a model, and return the path of its file, in a new folder.

    names: of the classes or words, by index.
    """
    (folder / "1").mkdir(parents=True)
    proto = onnx.load_model_from_string(graph).graph
    (folder / "config.pbtxt").write_text(triton_config(folder.name, variant, proto))
    if names:
        lines = "".join(" ".join(str(one).split()) + "\n" for one in names)  # one line each
        (folder / LABELS_FILE).write_text(lines, encoding="utf-8")
    return folder / "1" / MODEL_FILE


def require_inputs(graph: bytes) -> bytes:
    """Return the graph without the default values of its inputs."""
    model = onnx.load_model_from_string(graph)
    inputs = {value.name for value in model.graph.input}
    kept = [one for one in model.graph.initializer if one.name not in inputs]
    del model.graph.initializer[:]
    model.graph.initializer.extend(kept)
    return model.SerializeToString()
