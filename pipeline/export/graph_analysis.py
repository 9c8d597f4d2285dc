"""Run an ONNX graph, read its inner tensors, and measure what they tell; without torch."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import onnx
from convline.runtime.session import open_session
from onnx import helper

PRODUCTS = ("Conv", "Gemm", "MatMul")
BETWEEN_PRODUCTS = (  # operators that int8 numbers pass through
    "Add",
    "AveragePool",
    "Clip",
    "Concat",
    "GlobalAveragePool",
    "MaxPool",
    "ReduceMean",
    "Relu",
)
BATCH = 32


def run_graph(
    graph: onnx.ModelProto,
    x: np.ndarray,
    outputs: list[str] | None = None,
    *,
    optimize: bool = True,
) -> list[np.ndarray]:
    """Return the named outputs, or the first one, for inputs x (N, ...); onnxruntime on the CPU."""
    parts = [*run_batches(graph, x, outputs, optimize=optimize)]
    # A number has no axis to join the batches' along.
    columns = [[*map(np.atleast_1d, column)] for column in zip(*parts, strict=True)]
    return [np.concatenate(column) if len(column) > 1 else column[0] for column in columns]


def run_batches(
    graph: onnx.ModelProto,
    x: np.ndarray,
    outputs: list[str] | None = None,
    *,
    optimize: bool = True,
) -> Iterator[list[np.ndarray]]:
    """Yield what `run_graph` joins: the outputs for each BATCH of inputs."""
    threads = int(os.environ.get("OMP_NUM_THREADS", 0)) or None  # onnxruntime does not read it
    session = open_session(graph.SerializeToString(), "cpu", threads=threads, optimize=optimize)
    name, outputs = session.get_inputs()[0].name, outputs or [session.get_outputs()[0].name]
    for i in range(0, len(x), BATCH):
        yield session.run(outputs, {name: np.ascontiguousarray(x[i : i + BATCH])})


def inner_tensors(graph: onnx.ModelProto, x: np.ndarray, names: list[str]) -> dict[str, np.ndarray]:
    """Return the named tensors of the graph for inputs x (N, ...)."""
    names = list(dict.fromkeys(names))
    return dict(zip(names, run_graph(expose(graph, names), x, names), strict=True)) if names else {}


def node_outputs(graph: onnx.ModelProto, x: np.ndarray) -> dict[str, np.ndarray]:
    """Return the first output of each node of the graph by name, for a BATCH of inputs or less.

    What has no axis of the batch could not be joined.
    """
    return inner_tensors(graph, x, [node.output[0] for node in graph.graph.node])


def expose(graph: onnx.ModelProto, names: Iterable[str]) -> onnx.ModelProto:
    """Return a copy of the graph with the named tensors among its outputs."""
    copy = copy_graph(graph)
    existing = {output.name for output in copy.graph.output}
    copy.graph.output.extend(
        helper.make_empty_tensor_value_info(name) for name in names if name not in existing
    )
    return copy


def value_ranges(
    graph: onnx.ModelProto, x: np.ndarray, operators: Sequence[str]
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Return the least and the largest value (1,) of each float tensor that nodes of these
    operators read or write, for inputs x (N, ...).

    Shapes must be inferred. The ranges are those of onnxruntime's MinMax calibration, which puts
    reductions into the graph: in time by the square of the number of nodes, and slow to run.
    """
    values = (*graph.graph.value_info, *graph.graph.input, *graph.graph.output)
    floats = {v.name for v in values if v.type.tensor_type.elem_type == onnx.TensorProto.FLOAT}
    nodes = [node for node in graph.graph.node if node.op_type in operators]
    names = [name for node in nodes for name in (*node.input, *node.output) if name in floats]
    names = list(dict.fromkeys(names))
    if not names:
        return {}
    lowest, highest = [], []  # of each batch: a number for each tensor
    for tensors in run_batches(expose(graph, names), x, names, optimize=False):
        lowest.append([tensor.min(initial=np.inf) for tensor in tensors])
        highest.append([tensor.max(initial=-np.inf) for tensor in tensors])
        del tensors  # else the next batch would be computed beside them
    pairs = zip(np.nanmin(lowest, 0), np.nanmax(highest, 0), strict=True)
    return {name: (low[None], high[None]) for name, (low, high) in zip(names, pairs, strict=True)}


def copy_graph(graph: onnx.ModelProto) -> onnx.ModelProto:
    copy = onnx.ModelProto()
    copy.CopyFrom(graph)
    return copy


def signal_to_noise(
    reference: onnx.ModelProto,
    variant: onnx.ModelProto,
    x: np.ndarray,
    signals: dict[str, np.ndarray] | None = None,
) -> dict[str, float]:
    """Return the signal-to-noise ratio in dB of the output of each node of `variant`, in order.

    The output of the same node of `reference` for inputs x (N, ...) is the signal. A tensor has the
    same name in both graphs; in a quantized graph its dequantized form is compared. signals: the
    reference's tensors for x by name, if they are known.
    """
    existing = {name for node in variant.graph.node for name in node.output}
    pairs = {}
    for node in reference.graph.node:
        tensor = node.output[0]
        dequantized = f"{tensor}_DequantizeLinear_Output"
        if node.op_type in (*PRODUCTS, *BETWEEN_PRODUCTS) and {tensor, dequantized} & existing:
            pairs[node.name] = (tensor, dequantized if dequantized in existing else tensor)
    if signals is None:
        signals = inner_tensors(reference, x, [a for a, _ in pairs.values()])
    others = inner_tensors(variant, x, [b for _, b in pairs.values()])
    return {name: round(decibels(signals[a], others[b]), 2) for name, (a, b) in pairs.items()}


def decibels(signal: np.ndarray, other: np.ndarray) -> float:
    """Return 10 log10(sum s^2 / sum (s - o)^2), at most 200."""
    s = signal.astype(np.float64)
    power, error = float((s**2).sum()), float(((s - other.astype(np.float64)) ** 2).sum())
    return 200.0 if error <= power * 1e-20 else 10 * float(np.log10(max(power, 1e-300) / error))


def signal_to_noise_drops(ratios: dict[str, float]) -> dict[str, float]:
    """Return by how many dB each node's output falls below all nodes before it.

    This is the noise that the node itself adds. ratios: in dB, by node, in order.
    """
    lowest, drops = 60.0, {}
    for name, ratio in ratios.items():
        drops[name] = lowest - ratio
        lowest = min(lowest, ratio)
    return drops


def find_float16_overflow(graph: onnx.ModelProto, x: np.ndarray) -> str | None:
    """Return the first float16 node whose output is not finite for inputs x (N, ...), or None.

    Each tensor is made an output of the graph, since the CPU emulates float16 in float32 and rounds
    to float16 only there.
    """
    inferred = onnx.shape_inference.infer_shapes(graph)
    float16 = {
        value.name
        for value in inferred.graph.value_info
        if value.type.tensor_type.elem_type == onnx.TensorProto.FLOAT16
    }
    nodes = {node.output[0]: node.name for node in graph.graph.node if node.output[0] in float16}
    if nodes:
        for tensors in run_batches(expose(graph, nodes), x, list(nodes)):
            for name, tensor in zip(nodes.values(), tensors, strict=True):
                if not np.isfinite(tensor).all():
                    return name
    return None


def count_traffic(graph: onnx.ModelProto) -> dict[str, int]:
    """Return {"weights", "moved"}: the numbers that products move, for the roofline.

    `weights` counts all weights of the graph, `moved` what products read and write for one sample.
    """
    graph = onnx.shape_inference.infer_shapes(graph)
    weights = {w.name: int(np.prod(w.dims)) for w in graph.graph.initializer}
    values = [*graph.graph.value_info, *graph.graph.input, *graph.graph.output]
    sizes = {
        v.name: int(np.prod([d.dim_value or 1 for d in v.type.tensor_type.shape.dim]))
        for v in values
    }
    moved = sum(
        sizes.get(name, 0)
        for node in graph.graph.node
        if node.op_type in PRODUCTS
        for name in (*node.input, *node.output)
        if name not in weights
    )
    return {"weights": sum(weights.values()), "moved": moved}
