"""Real, tiny ONNX files for the tests of `serve`, whose arithmetic is simple enough to repeat in
numpy.
"""

import json
import struct
import zlib
from typing import Any

import numpy as np
import onnx
from convline.model_file.document import ImageRule
from convline.model_file.golden import pack_array
from convline.model_file.onnx_file import compute_digest
from onnx import TensorProto, helper, numpy_helper

SIDE, LABELS = 8, ["dark", "middle", "bright"]
WEIGHT = np.array([[-6.0, 0.0, 6.0]], np.float32)  # (1, K): logits of the mean brightness in [0, 1]
BIAS = np.array([3.0, 1.0, -3.0], np.float32)
CONTEXT, HORIZON, QUANTILES, SPREAD = 4, 3, [0.1, 0.5, 0.9], np.array([-1.0, 0.0, 1.0], np.float32)


def classify_by_brightness(images: np.ndarray) -> np.ndarray:
    """Return the expected probabilities (N, K): softmax of WEIGHT * mean / 255 + BIAS."""
    mean = images.reshape(len(images), -1).astype(np.float64).mean(axis=1, keepdims=True) / 255
    logits = mean @ WEIGHT.astype(np.float64) + BIAS
    exponent = np.exp(logits - logits.max(axis=1, keepdims=True))
    return exponent / exponent.sum(axis=1, keepdims=True)


def classifier_graph(labels: int = len(LABELS)) -> onnx.ModelProto:
    """uint8 (N, 8, 8, 1) -> mean -> Gemm -> Softmax, float32 (N, K)."""
    nodes = [
        helper.make_node("Cast", ["images"], ["real"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["real", "axes"], ["mean"], keepdims=0),
        helper.make_node("Div", ["mean", "white"], ["unit"]),
        helper.make_node("Unsqueeze", ["unit", "one"], ["column"]),
        helper.make_node("Gemm", ["column", "weight", "bias"], ["logits"]),
        helper.make_node("Softmax", ["logits"], ["probabilities"], axis=1),
    ]
    constants = {
        "axes": np.array([1, 2, 3]), "white": np.float32(255), "one": np.array([1]),
        "weight": WEIGHT[:, :labels], "bias": BIAS[:labels],
    }  # fmt: skip
    inputs = [helper.make_tensor_value_info("images", TensorProto.UINT8, ["N", SIDE, SIDE, 1])]
    outputs = [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["N", labels])]
    return finish_graph(nodes, inputs, outputs, constants)


def linear_graph(weight: np.ndarray) -> onnx.ModelProto:
    """uint8 (N, 8, 8, 1) -> scores pixels @ weight (64, K), their softmax, and as saliency the
    weights of a class.
    """
    nodes = [
        helper.make_node("Cast", ["images"], ["real"], to=TensorProto.FLOAT),
        helper.make_node("Reshape", ["real", "flat"], ["pixels"]),  # (N, 64)
        helper.make_node("MatMul", ["pixels", "weight"], ["scores"]),
        helper.make_node("Softmax", ["scores"], ["probabilities"], axis=1),
        helper.make_node("ArgMax", ["scores"], ["top"], axis=1, keepdims=0),
        helper.make_node("Less", ["target", "zero"], ["none"]),
        helper.make_node("Where", ["none", "top", "target"], ["asked"]),  # (N,)
        helper.make_node("Gather", ["weight", "asked"], ["columns"], axis=1),  # (64, N)
        helper.make_node("Transpose", ["columns"], ["rows"], perm=[1, 0]),
        helper.make_node("Reshape", ["rows", "shape"], ["saliency"]),
    ]
    constants = {
        "flat": np.array([-1, SIDE**2]), "shape": np.array([-1, SIDE, SIDE, 1]), "zero": np.array([0]),
        "weight": weight.astype(np.float32), "target": np.array([-1]),
    }  # fmt: skip
    inputs = [
        helper.make_tensor_value_info("images", TensorProto.UINT8, ["N", SIDE, SIDE, 1]),
        helper.make_tensor_value_info("target", TensorProto.INT64, [1]),
    ]
    shapes = {
        "probabilities": [weight.shape[1]],
        "scores": [weight.shape[1]],
        "saliency": [SIDE, SIDE, 1],
    }
    outputs = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", *s])
        for name, s in shapes.items()
    ]
    return finish_graph(nodes, inputs, outputs, constants)


def linear_document(weight: np.ndarray) -> dict[str, Any]:
    images = np.random.default_rng(0).integers(0, 256, (2, SIDE, SIDE, 1), dtype=np.uint8)
    exponent = np.exp(images.reshape(2, -1) @ weight)
    probabilities = (exponent / exponent.sum(axis=1, keepdims=True)).astype(np.float32)
    golden = {
        "input": pack_array(images),
        "outputs": {"probabilities": pack_array(probabilities)},
        "atol": 1e-4,
    }
    return classifier_document() | {"golden": golden, "explain": {"saliency": True}}


def forecaster_graph(columns: int = 1) -> onnx.ModelProto:
    """float32 (N, 4, D) -> the last value plus 1, 2, 3; quantiles the forecast plus SPREAD."""
    nodes = [
        helper.make_node("Gather", ["series", "last"], ["newest"], axis=1),  # (N, 1, D)
        helper.make_node("Add", ["newest", "rise"], ["forecast"]),  # (N, S, D)
        helper.make_node("Unsqueeze", ["forecast", "fourth"], ["wide"]),
        helper.make_node("Add", ["wide", "spread"], ["quantiles"]),  # (N, S, D, Q)
    ]
    rise = np.arange(1, HORIZON + 1, dtype=np.float32).reshape(1, HORIZON, 1)
    constants = {
        "last": np.array([CONTEXT - 1]),
        "rise": rise,
        "fourth": np.array([3]),
        "spread": SPREAD,
    }
    inputs = [helper.make_tensor_value_info("series", TensorProto.FLOAT, ["N", CONTEXT, columns])]
    outputs = [
        helper.make_tensor_value_info("forecast", TensorProto.FLOAT, ["N", HORIZON, columns]),
        helper.make_tensor_value_info(
            "quantiles", TensorProto.FLOAT, ["N", HORIZON, columns, len(QUANTILES)]
        ),
    ]
    return finish_graph(nodes, inputs, outputs, constants)


def streamer_graph() -> onnx.ModelProto:
    """float32 (N, 4, 1) -> the window's sum plus 1, 2, 3, and the same from one sample and the
    three before it.
    """
    nodes = []
    for start, rows in (("", "series"), ("step_", "window")):
        nodes += [
            helper.make_node("ReduceSum", [rows, "second"], [start + "total"]),  # (N, 1, 1)
            helper.make_node("Add", [start + "total", "rise"], [start + "forecast"]),
            helper.make_node("Unsqueeze", [start + "forecast", "fourth"], [start + "wide"]),
            helper.make_node("Add", [start + "wide", "spread"], [start + "quantiles"]),
        ]
    nodes[:0] = [
        helper.make_node("Unsqueeze", ["sample", "second"], ["newest"]),
        helper.make_node("Concat", ["state_0", "newest"], ["window"], axis=1),
        helper.make_node("Slice", ["window", "second", "end", "second"], ["next_state_0"]),
    ]
    constants = {
        "second": np.array([1]), "fourth": np.array([3]), "end": np.array([CONTEXT]), "spread": SPREAD,
        "rise": np.arange(1, HORIZON + 1, dtype=np.float32).reshape(1, HORIZON, 1),
        "sample": np.zeros((1, 1), np.float32), "state_0": np.zeros((1, CONTEXT - 1, 1), np.float32),
    }  # fmt: skip
    shapes = {"series": [CONTEXT, 1], "sample": [1], "state_0": [CONTEXT - 1, 1]}
    answers = {"forecast": [HORIZON, 1], "quantiles": [HORIZON, 1, len(QUANTILES)]}
    answers |= {f"step_{name}": shape for name, shape in answers.items()} | {
        "next_state_0": shapes["state_0"]
    }
    inputs, outputs = (
        [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", *shape])
            for name, shape in part.items()
        ]
        for part in (shapes, answers)
    )
    return finish_graph(nodes, inputs, outputs, constants)


def finish_graph(
    nodes: list, inputs: list, outputs: list, constants: dict[str, Any]
) -> onnx.ModelProto:
    initializers = [
        numpy_helper.from_array(np.asarray(array), name) for name, array in constants.items()
    ]
    graph = helper.make_graph(nodes, "tiny", inputs, outputs, initializers)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.checker.check_model(model)
    return model


def classifier_document() -> dict[str, Any]:
    images = np.random.default_rng(0).integers(0, 256, (5, SIDE, SIDE, 1), dtype=np.uint8)
    return {
        "format": 1,
        "name": "brightness",
        "task": "classification",
        "labels": LABELS,
        "input": ImageRule((SIDE, SIDE), "grey").to_dict(),
        "provenance": {"data": "none", "metrics": {"accuracy": 1.0}, "licence": "MIT"},
        "golden": {
            "input": pack_array(images),
            "outputs": {
                "probabilities": pack_array(classify_by_brightness(images).astype(np.float32))
            },
            "atol": 1e-5,
        },
    }


def forecaster_document(columns: tuple[str, ...] = ("y",), **rule: Any) -> dict[str, Any]:
    series = np.random.default_rng(0).normal(size=(2, CONTEXT, len(columns))).astype(np.float32)
    forecast = series[:, -1:] + np.arange(1, HORIZON + 1, dtype=np.float32).reshape(1, HORIZON, 1)
    quantiles = forecast[..., None] + SPREAD
    return {
        "format": 1,
        "name": "riser",
        "task": "forecasting",
        "input": {
            "kind": "series", "context": CONTEXT, "columns": list(columns), "id": None, "time": "ds", "gaps": "error",
            "step": {"unit": "seconds", "count": 86400}, **rule,
        },
        "forecast": {"horizon": HORIZON, "quantiles": QUANTILES},
        "provenance": {"data": "none"},
        "golden": {
            "input": pack_array(series),
            "outputs": {"forecast": pack_array(forecast), "quantiles": pack_array(quantiles)},
            "atol": 1e-5,
        },
    }  # fmt: skip


def reseal(document: dict[str, Any], graph: onnx.ModelProto | None = None) -> bytes:
    """Seal without any check: the digest is valid, whatever the document and the graph are."""
    proto = graph if graph is not None else classifier_graph()
    document = {key: value for key, value in document.items() if key != "digest"}
    digest = compute_digest([memoryview(proto.SerializeToString())], document)
    sealed = onnx.ModelProto()
    sealed.CopyFrom(proto)
    sealed.metadata_props.add(key="convline", value=json.dumps(document | {"digest": digest}))
    return sealed.SerializeToString()


def bomb_png(width: int, height: int) -> bytes:
    """Return a PNG whose header states a size that its data do not have."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return (
        b"\x89PNG\r\n\x1a\n"
        + header
        + chunk(b"IDAT", zlib.compress(b"\0" * 1000))
        + chunk(b"IEND", b"")
    )
