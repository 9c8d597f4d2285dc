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


WIDE = (8, 16)  # (H, W) of the detector and the segmenter
HALVES = ["top", "bottom"]  # labels of the detector
SHADES = ["background", "grey", "white"]  # labels of the segmenter


def find_bright_halves(image: np.ndarray) -> list[tuple[list[int], str, float]]:
    """Return the finds expected in an image (H, W): box, label and score, the best first.

    Each half of the image that has pixels above 127 gives their bounding box; its score is the
    brightest one over 255, of the bottom .8 of that.
    """
    finds = []
    for place, label in enumerate(HALVES):
        half = image[place * 4 : place * 4 + 4]
        rows, columns = np.nonzero(half > 127)
        if len(rows):
            left, right = int(columns.min()), int(columns.max()) + 1
            box = [left, int(rows.min()) + 4 * place, right, int(rows.max()) + 1 + 4 * place]
            finds.append((box, label, float(half.max()) / 255 * (0.8 if place else 1.0)))
    return sorted(finds, key=lambda find: -find[2])


def detector_graph() -> onnx.ModelProto:
    """uint8 (N, 8, 16, 1) -> the finds of `find_bright_halves`, K is 2."""
    nodes = [
        helper.make_node("Cast", ["images"], ["real"], to=TensorProto.FLOAT),
        helper.make_node("Reshape", ["real", "halves"], ["pixels"]),  # (N, 2, 4, 16)
        helper.make_node("Greater", ["pixels", "dark"], ["bright"]),
        helper.make_node("Cast", ["bright"], ["lit"], to=TensorProto.INT32),
        helper.make_node("ReduceMax", ["lit", "third"], ["columns"], keepdims=0),  # (N, 2, 16)
        helper.make_node("ReduceMax", ["lit", "fourth"], ["rows"], keepdims=0),  # (N, 2, 4)
        helper.make_node("ReduceMax", ["columns", "third"], ["any"], keepdims=0),  # (N, 2)
    ]
    for name, lines in (("x", "columns"), ("y", "rows")):
        for end, last in (("low", 0), ("last", 1)):
            nodes.append(
                helper.make_node(
                    "ArgMax", [lines], [f"{name}_{end}"], axis=2, keepdims=0, select_last_index=last
                )
            )
        nodes.append(helper.make_node("Add", [f"{name}_last", "one"], [f"{name}_high"]))
    sides = ["x_low", "y_moved_low", "x_high", "y_moved_high"]
    nodes += [
        helper.make_node("Add", ["y_low", "offset"], ["y_moved_low"]),
        helper.make_node("Add", ["y_high", "offset"], ["y_moved_high"]),
        *(helper.make_node("Unsqueeze", [side, "third"], [f"{side}_wide"]) for side in sides),
        helper.make_node("Concat", [f"{side}_wide" for side in sides], ["box"], axis=2),
        helper.make_node("Cast", ["any"], ["found"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMax", ["pixels", "inner"], ["brightest"], keepdims=0),
        helper.make_node("Mul", ["brightest", "scale"], ["score"]),
        helper.make_node("Mul", ["score", "found"], ["score_found"]),
        helper.make_node("TopK", ["score_found", "two"], ["scores", "best"], axis=1),
        helper.make_node("GatherElements", ["found", "best"], ["found_best"], axis=1),
        helper.make_node("Cast", ["found_best"], ["valid"], to=TensorProto.INT64),
        helper.make_node("Mul", ["best", "valid"], ["labels"]),
        helper.make_node("ReduceSum", ["valid", "second"], ["count"], keepdims=0),
        helper.make_node("Cast", ["box"], ["box_real"], to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["best", "third"], ["best_wide"]),
        helper.make_node("Tile", ["best_wide", "four"], ["best_four"]),
        helper.make_node("GatherElements", ["box_real", "best_four"], ["box_best"], axis=1),
        helper.make_node("Unsqueeze", ["found_best", "third"], ["found_wide"]),
        helper.make_node("Mul", ["box_best", "found_wide"], ["boxes"]),
    ]
    constants = {
        "halves": np.array([-1, 2, 4, 16]), "dark": np.float32(127), "third": np.array([2]), "fourth": np.array([3]),
        "one": np.array([1]), "second": np.array([1]), "inner": np.array([2, 3]), "two": np.array([2]),
        "offset": np.array([[0, 4]]), "scale": np.array([[1, 0.8]], np.float32) / np.float32(255), "four": np.array([1, 1, 4]),
    }  # fmt: skip
    inputs = [helper.make_tensor_value_info("images", TensorProto.UINT8, ["N", *WIDE, 1])]
    kinds = {
        "boxes": (TensorProto.FLOAT, [2, 4]), "labels": (TensorProto.INT64, [2]),
        "scores": (TensorProto.FLOAT, [2]), "count": (TensorProto.INT64, []),
    }  # fmt: skip
    outputs = [
        helper.make_tensor_value_info(name, kind, ["N", *shape])
        for name, (kind, shape) in kinds.items()
    ]
    return finish_graph(nodes, inputs, outputs, constants)


def shade_probabilities(images: np.ndarray) -> np.ndarray:
    """Return the segmenter's expected probabilities (N, K, H, W)."""
    logits = images[..., :1] / 255.0 @ WEIGHT.astype(np.float64) + BIAS
    exponent = np.exp(logits)
    return np.moveaxis(exponent / exponent.sum(axis=3, keepdims=True), 3, 1)


def segmenter_graph() -> onnx.ModelProto:
    """uint8 (N, 8, 16, 1) -> each pixel's softmax of WEIGHT * value / 255 + BIAS, and its class."""
    nodes = [
        helper.make_node("Cast", ["images"], ["real"], to=TensorProto.FLOAT),
        helper.make_node("Div", ["real", "white"], ["unit"]),
        helper.make_node("MatMul", ["unit", "weight"], ["product"]),
        helper.make_node("Add", ["product", "bias"], ["logits"]),
        helper.make_node("Softmax", ["logits"], ["shares"], axis=3),
        helper.make_node("Transpose", ["shares"], ["probabilities"], perm=[0, 3, 1, 2]),
        helper.make_node("ArgMax", ["probabilities"], ["index"], axis=1, keepdims=0),
        helper.make_node("Cast", ["index"], ["masks"], to=TensorProto.UINT8),
    ]
    constants = {"white": np.float32(255), "weight": WEIGHT, "bias": BIAS}
    inputs = [helper.make_tensor_value_info("images", TensorProto.UINT8, ["N", *WIDE, 1])]
    outputs = [
        helper.make_tensor_value_info("masks", TensorProto.UINT8, ["N", *WIDE]),
        helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["N", 3, *WIDE]),
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
        "format": 2,
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


def wide_document(task: str, outputs: dict[str, np.ndarray], **fields: Any) -> dict[str, Any]:
    """Return the document of a network of WIDE images and its golden outputs for `wide_images`."""
    packed = {name: pack_array(array) for name, array in outputs.items()}
    return {
        "format": 2,
        "name": f"tiny-{task}",
        "task": task,
        "input": ImageRule(WIDE, "grey").to_dict(),
        "provenance": {"data": "none"},
        "golden": {"input": pack_array(wide_images()), "outputs": packed, "atol": 1e-5},
        **fields,
    }


def wide_images() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (3, *WIDE, 1), dtype=np.uint8)


def detector_document() -> dict[str, Any]:
    count = len(images := wide_images())
    boxes, scores = np.zeros((count, 2, 4), np.float32), np.zeros((count, 2), np.float32)
    labels, counts = np.zeros((count, 2), np.int64), np.zeros(count, np.int64)
    for k, image in enumerate(images[..., 0]):
        finds = find_bright_halves(image)
        counts[k] = len(finds)
        for place, (box, label, score) in enumerate(finds):
            boxes[k, place], labels[k, place] = box, HALVES.index(label)
            scores[k, place] = score
    outputs = {"boxes": boxes, "labels": labels, "scores": scores, "count": counts}
    detection = {"most": 2, "min_score": 0.5}
    return wide_document("detection", outputs, labels=HALVES, detection=detection)


def segmenter_document() -> dict[str, Any]:
    probabilities = shade_probabilities(wide_images()).astype(np.float32)
    outputs = {
        "masks": probabilities.argmax(axis=1).astype(np.uint8),
        "probabilities": probabilities,
    }
    return wide_document("segmentation", outputs, labels=SHADES)


def captioner_document() -> dict[str, Any]:
    outputs = {"first_hidden": np.zeros((3, 4), np.float32)}
    words = ["<start>", "<end>", "<unknown>", "a", "cat"]
    return wide_document("captioning", outputs, words=words, caption={"longest": 5})


def forecaster_document(columns: tuple[str, ...] = ("y",), **rule: Any) -> dict[str, Any]:
    series = np.random.default_rng(0).normal(size=(2, CONTEXT, len(columns))).astype(np.float32)
    forecast = series[:, -1:] + np.arange(1, HORIZON + 1, dtype=np.float32).reshape(1, HORIZON, 1)
    quantiles = forecast[..., None] + SPREAD
    return {
        "format": 2,
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
