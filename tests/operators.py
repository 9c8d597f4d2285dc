"""A packaged classifier of 8 x 8 images with random weights that has each operator which the page
Inside explains, one that it does not, and names that are markup.
"""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import line
import numpy as np
import onnx
import onnxruntime
from convline.model_file.golden import pack_array, unpack_array
from convline.model_file.onnx_file import read_model_file, seal
from onnx import TensorProto, helper, numpy_helper

MARKUP = "<img src=x onerror=alert(1)>"
NOT_EXPLAINED = "Floor"
# Units of one sample, one vector per map, that each of these reads: (operator, attributes).
ELEMENTWISE: list[tuple[str, dict[str, Any]]] = [
    ("LeakyRelu", {"alpha": 0.3}),
    ("Elu", {"alpha": 1.5}),
    ("Sigmoid", {}),
    ("HardSigmoid", {"alpha": 0.25, "beta": 0.4}),
    ("HardSwish", {}),
    ("Tanh", {}),
    ("Softplus", {}),
    ("Mish", {}),
    ("Erf", {}),
    ("Exp", {}),
    ("Abs", {}),
    ("Neg", {}),
    ("Gelu", {}),
    ("Gelu", {"approximate": "tanh"}),
    ("Identity", {}),
    ("Dropout", {}),
    (NOT_EXPLAINED, {}),
]


class Graph:
    """Nodes and weights in order; each call of `node` returns the name of its output."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []
        self.rng = np.random.default_rng(0)
        self.count = itertools.count()

    def node(
        self, operator: str, *inputs: str, out: str = "", parts: int = 1, **attributes: Any
    ) -> str:
        name = out or f"t{next(self.count)}"
        outputs = [name, *(f"{name}.{k}" for k in range(1, parts))]
        self.nodes.append(
            helper.make_node(operator, inputs, outputs, f"{MARKUP}{name}", **attributes)
        )
        return name

    def weight(self, *shape: int, name: str = "") -> str:
        return self.constant(self.rng.normal(0, 0.4, shape).astype(np.float32), name)

    def scalar(self, value: float) -> str:
        return self.constant(np.float32(value))

    def constant(self, values: Any, name: str = "") -> str:
        name = name or f"w{next(self.count)}"
        array = np.asarray(values)
        self.weights.append(
            helper.make_tensor(name, TensorProto.FLOAT, array.shape, array.ravel().tolist())
            if array.dtype == np.float32  # as numbers, not as raw bytes
            else numpy_helper.from_array(array.astype(np.int64), name)
        )
        return name


def add_elementwise(g: Graph, c1: str, x: str) -> None:
    node, weight, one = g.node, g.weight, g.scalar
    for operator, attributes in ELEMENTWISE:
        node(operator, c1, **attributes)
    positive = node("Add", node("Mul", c1, c1), one(0.5))
    for operator in ("Sqrt", "Log", "Reciprocal"):
        node(operator, positive)
    node("Clip", c1, one(-0.3), one(0.7))
    node("Clip", c1, "", one(0.7))
    node("PRelu", c1, weight(4, 1, 1))
    node("Div", c1, positive)
    node("Pow", positive, one(1.5))
    node("Min", c1, x)
    node("Max", c1, one(0.1))


def add_moves(g: Graph, c1: str, x: str) -> None:
    """Add operators that move units or reduce axes."""
    node, constant, one = g.node, g.constant, g.scalar
    both = node("Concat", c1, x, axis=1)
    node("Split", both, constant([2, 2, 1]), axis=1, parts=3)
    node("Split", c1, axis=-1, num_outputs=3, parts=3)
    node("Slice", c1, constant([-7, 6]), constant([100, -100]), constant([2, 3]), constant([3, -2]))
    for mode in ("constant", "reflect", "edge", "wrap"):
        filling = [one(0.25)] if mode == "constant" else []
        node("Pad", c1, constant([0, 0, 2, 1, 0, 0, 1, 3]), *filling, mode=mode)
    node("Gather", c1, constant([3, -1]), axis=2)
    node("Gather", c1, constant(-2), axis=3)
    node("Expand", node("ReduceMean", c1, constant([1]), keepdims=1), constant([1, 3, 1, 1]))
    node("ReduceSum", c1, constant([-1, 1]), keepdims=0)
    node("ReduceMax", c1, keepdims=1)
    node("ReduceMin", c1, constant([2, 3]), keepdims=1)
    node("GlobalMaxPool", c1)
    node("TopK", c1, constant([3]), axis=-1, largest=0, parts=2)
    node("TopK", c1, constant([2]), axis=1, parts=2)


def build() -> onnx.ModelProto:
    """Return the graph: images (N, 8, 8, 1) uint8 -> probabilities (N, 10)."""
    g = Graph()
    node, weight, constant, one = g.node, g.weight, g.constant, g.scalar
    pixels = node("Cast", node("Transpose", "images", perm=[0, 3, 1, 2]), to=TensorProto.FLOAT)
    x = node("Mul", node("Sub", pixels, one(100)), one(0.02))
    c1 = node(
        "Conv",
        x,
        weight(4, 1, 3, 3, name=f"net.{MARKUP}.weight"),
        weight(4),
        pads=[1, 1, 1, 1],
        out="c1",
    )
    odd = {"strides": [2, 1], "pads": [1, 0, 2, 3], "dilations": [2, 1], "group": 2}
    node("Conv", c1, weight(6, 2, 3, 2), **odd)
    node(
        "Relu",
        node(
            "BatchNormalization",
            c1,
            weight(4),
            weight(4),
            weight(4),
            constant(np.float32([1, 2, 3, 4])),
        ),
    )
    node("LRN", c1, size=3, alpha=0.3, beta=0.6, bias=1.5)
    node("InstanceNormalization", c1, weight(4), weight(4))
    node("LayerNormalization", c1, weight(8), weight(8))
    pool = {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1], "ceil_mode": 1}
    for operator, more in (
        ("MaxPool", {}),
        ("AveragePool", {"count_include_pad": 0}),
        ("AveragePool", {"count_include_pad": 1}),
    ):
        node(operator, c1, **pool, **more)
    add_elementwise(g, c1, x)
    add_moves(g, c1, x)
    steps = node("Reshape", c1, constant([0, 4, 64]))
    node("Conv", steps, weight(3, 4, 3), weight(3), pads=[4, 0], dilations=[2])
    node("MatMul", steps, node("Transpose", steps, perm=[0, 2, 1]))
    node("Squeeze", node("Unsqueeze", steps, constant([1])), constant([1]))
    flat = node("Flatten", node("GlobalAveragePool", c1))
    node("MatMul", flat, weight(4, 5))
    node("Gemm", flat, weight(4, 5), weight(1, 5), alpha=0.5, beta=2.0)
    node("Gemm", weight(4, 3), flat, transA=1, transB=1)
    logits = node("Gemm", flat, weight(10, 4), weight(10), transB=1)
    node("Softmax", logits, axis=-1, out="probabilities")
    shapes = ("images", TensorProto.UINT8, ["N", 8, 8, 1]), ("probabilities", 1, ["N", 10])
    given, answer = (helper.make_tensor_value_info(*shape) for shape in shapes)
    graph = helper.make_graph(g.nodes, "operators", [given], [answer], g.weights)
    opset = [helper.make_opsetid("", 20)]
    return helper.make_model(graph, opset_imports=opset, ir_version=10)


def write(path: Path) -> None:
    """Write the packaged file: the document of the line's classifier, with this graph's answers."""
    graph = build()
    document = read_model_file(line.made() / "out" / "dist" / line.DIGITS / "model.onnx").json
    session = onnxruntime.InferenceSession(
        graph.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    answers = session.run(None, {"images": unpack_array(document["golden"]["input"])})
    document["golden"]["outputs"] = {"probabilities": pack_array(answers[0])}
    document["labels"] = [MARKUP, *document["labels"][1:]]
    path.parent.mkdir(parents=True)
    path.write_bytes(seal(graph.SerializeToString(), document))
