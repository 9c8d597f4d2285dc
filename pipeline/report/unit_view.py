"""The report's Inside page: how each number inside a packaged file is computed.

The page runs a copy of the packaged graph in which every inner tensor is an output, and computes
any unit again from the numbers that it reads. Each copy is a script of its own, which the page
loads when its entry is chosen, because a page opened from disk may not read other files.
"""

from __future__ import annotations

import gzip
import json
import re
from pathlib import Path
from typing import Any

import onnx
from convline.model_file.onnx_file import ModelFile, read_model_file
from convline.model_file.onnx_messages import GRAPH, INITIALIZER
from convline.model_file.wire import Field, field_bytes, read_fields
from onnx import helper, numpy_helper

from pipeline.report import browser_demo
from pipeline.report.browser_demo import VERSION, base64_text, package_path
from pipeline.report.result_files import Entry

FOLDER = "inside"  # of the site, with one script for each entry
TENSOR_NAME, TENSOR_RAW_DATA = 8, 9  # fields of a TensorProto
UNITS = (  # types of tensors that hold units: whole numbers beside these are shapes and indices
    onnx.TensorProto.FLOAT,
    onnx.TensorProto.DOUBLE,
    onnx.TensorProto.UINT8,  # pixels
    onnx.TensorProto.UNDEFINED,
)
WRAPPERS = re.compile(r"^(\d+\.)?(net\.)+")  # modules that stage export puts around a network
WINDOWED = ("Conv", "MaxPool", "AveragePool")


def write_unit_views(entries: list[Entry], site: Path, missing: str) -> dict[str, Any]:
    """Write inside/<entry>.js of each packaged file into the site; return inside.html.j2's context.

    missing: why the browser runtime is not in the site, or "".
    """
    models, refused = [], []
    for entry in entries:
        path = package_path(entry)
        if missing or not path.is_file():
            continue
        if not browser_demo.is_small(entry):
            refused.append(f"{entry.name} ({path.stat().st_size / 1e6:.1f} MB)")
            continue
        script = f"INSIDE[{json.dumps(entry.name)}] = {json.dumps(view(read_model_file(path)))};\n"
        (site / FOLDER).mkdir(exist_ok=True)
        (site / FOLDER / f"{entry.name}.js").write_text(script, encoding="utf-8")
        models.append(entry.name)
    limit = {"limit": browser_demo.MAX_BYTES // 10**6, "constant": "MAX_BYTES in browser_demo.py"}
    if not models:
        missing = missing or f"no file of up to {limit['limit']} MB is packaged yet"
    return {"models": models, "refused": refused, "missing": missing, "version": VERSION, **limit}


def view(file: ModelFile) -> dict[str, Any]:
    """Return what the page needs of a file: its graph and layers, weights by place, samples."""
    packaged = onnx.load_from_string(file.prediction_graph)
    graph = expose_tensors(packaged)
    content, document = graph.SerializeToString(), file.json
    offsets = weight_offsets(content)
    weights = {
        tensor.name: {
            "offset": offsets[tensor.name],
            "dtype": helper.tensor_dtype_to_np_dtype(tensor.data_type).name,
            "dims": list(tensor.dims),
        }
        for tensor in graph.graph.initializer
    }
    inputs = [value.name for value in graph.graph.input if value.name not in weights]
    golden = document["golden"]
    return {
        # names of the units of the answer, where it is one number for each class
        "labels": document.get("labels", []) if file.document.OUTPUTS == ("probabilities",) else [],
        "answer": graph.graph.output[0].name,
        "inputs": inputs,
        "samples": [golden["input"], *([golden["calendar"]] if "calendar" in golden else [])],
        "weights": weights,
        "layers": describe_layers(packaged),
        "onnx": base64_text(gzip.compress(content, 6, mtime=0)),
    }


def expose_tensors(graph: onnx.ModelProto) -> onnx.ModelProto:
    """Return a copy whose outputs are those of the graph, followed by every inner tensor.

    Weights are stored as raw bytes, and the document is left out.
    """
    copy = onnx.ModelProto()
    copy.CopyFrom(graph)
    copy.ClearField("metadata_props")
    existing = {output.name for output in copy.graph.output}
    inner = [name for node in copy.graph.node for name in node.output if name]
    copy.graph.output.extend(
        helper.make_empty_tensor_value_info(name) for name in inner if name not in existing
    )
    for tensor in copy.graph.initializer:
        if not tensor.HasField("raw_data"):
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor), tensor.name))
    return copy


def weight_offsets(model: bytes) -> dict[str, int]:
    """Return where the bytes of each weight begin in a serialized model, by the weight's name."""
    offsets = {}
    for graph in (f for f in read_fields(memoryview(model)) if f.number == GRAPH):
        for tensor in (f for f in read_fields(field_bytes(graph)) if f.number == INITIALIZER):
            fields = {f.number: f for f in read_fields(field_bytes(tensor))}
            name = bytes(field_bytes(fields[TENSOR_NAME])).decode()
            parts = graph, tensor, fields[TENSOR_RAW_DATA]
            offsets[name] = sum(map(value_start, parts))
    return offsets


def value_start(field: Field) -> int:
    """Return where the value of a field begins in its message."""
    return field.stop - len(field_bytes(field))


def describe_layers(graph: onnx.ModelProto) -> list[dict[str, Any]]:
    """Return the tensors of units that the nodes write, in order.

    For each: operator, layer's name, attributes, and the names of the tensors that are read and
    written; `dims` are for one sample, and empty where ONNX's shape inference does not tell.
    """
    weights = {tensor.name: list(tensor.dims) for tensor in graph.graph.initializer}
    layers = []
    inferred = onnx.shape_inference.infer_shapes(graph).graph
    types = {
        value.name: value.type.tensor_type for value in [*inferred.value_info, *inferred.output]
    }
    for node in graph.graph.node:
        for number, name in enumerate(node.output):
            kind = types.get(name, onnx.TypeProto.Tensor())
            if not name or kind.elem_type not in UNITS:
                continue
            layers.append(
                {
                    "op": node.op_type if node.domain in ("", "ai.onnx") else node.domain,
                    "node": node.name,
                    "name": layer_name([i for i in node.input if i in weights]),
                    "attributes": attributes(node, weights),
                    "inputs": list(node.input),
                    "output": name,
                    "number": number,  # of the output among those of its node
                    "dims": [dim.dim_value or 1 for dim in kind.shape.dim],
                }
            )
    return layers


def layer_name(weights: list[str]) -> str:
    """Return a layer's name in the network, from the names of its weights; "" if it has none.

    The exporter names a weight as PyTorch does: "net.features.c1.weight".
    """
    names = [WRAPPERS.sub("", name) for name in weights]
    if {"mean", "scale"} & set(names):
        return "normalization"
    dotted = [short for name, short in zip(weights, names, strict=True) if "." in name]
    return (dotted[0].rpartition(".")[0] or dotted[0]) if dotted else ""


def attributes(node: onnx.NodeProto, weights: dict[str, list[int]]) -> dict[str, Any]:
    """Return a node's attributes, completed by ONNX's defaults where its window depends on them."""
    given: dict[str, Any] = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    plain: dict[str, Any] = {
        name: value.decode() if isinstance(value, bytes) else value
        for name, value in given.items()
        if isinstance(value, bytes | int | float)
        or (isinstance(value, list) and all(isinstance(one, int | float) for one in value))
    }
    if node.op_type in WINDOWED:
        kernel = plain.get("kernel_shape") or weights.get(node.input[1], [])[2:]
        ones = [1] * len(kernel)
        defaults = {"strides": ones, "dilations": ones, "pads": [0, 0] * len(kernel)}
        plain = defaults | plain | {"kernel_shape": kernel}
    return plain
