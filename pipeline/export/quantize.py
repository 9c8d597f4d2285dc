"""The exported graph in other precisions: int8 for CPUs (QDQ, static, per channel), fp16 for GPUs.

int8 keeps in fp32 what lies before the first and after the last product, and the layers that hurt: the calibration
method and the number of layers are found by measured accuracy on the validation split, in a number of tries.
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from convline.runtime.session import open_session
from onnx import helper

from pipeline.params.schema import Int8

PRODUCTS = ("Conv", "Gemm", "MatMul")
BETWEEN = (
    "Add",
    "AveragePool",
    "Concat",
    "GlobalAveragePool",
    "MaxPool",
    "ReduceMean",
    "Relu",
)  # int8 flows through
BATCH = 32
HALF_RANGE = (
    2.0**14
)  # a quarter of what float16 reaches: other images may go further than those of the calibration


@dataclass
class Variant:
    """A graph in one precision, and how it was found."""

    precision: str
    graph: onnx.ModelProto
    facts: dict[str, Any] = field(default_factory=dict)


def fp16(prepared: onnx.ModelProto, calibration: np.ndarray) -> Variant:
    """Return the graph with weights and arithmetic in float16; inputs and outputs stay as they are.

    Grey levels less their mean, times a scale, can leave float16's range, so what comes before the first product stays
    in fp32, and what follows the last one, too; so does each node whose output comes near the end of that range.
    """
    from onnxruntime.transformers.float16 import convert_float_to_float16
    from onnxruntime.transformers.onnx_model import OnnxModel

    aside = set(outside(prepared.graph))
    inside = [node for node in prepared.graph.node if node.name not in aside]
    reached = tap(prepared, calibration[:BATCH], [node.output[0] for node in inside])
    large = {name for name, values in reached.items() if np.abs(values).max(initial=0) > HALF_RANGE}
    kept = [*aside, *(node.name for node in inside if large & {*node.input, *node.output})]
    with quiet():
        made = convert_float_to_float16(
            copy_of(prepared), keep_io_types=True, node_block_list=kept, disable_shape_infer=True
        )
    del made.graph.value_info[:]  # still of fp32
    straighten(made.graph)
    OnnxModel(made).topological_sort()
    return Variant("fp16", made)


def straighten(graph: onnx.GraphProto) -> None:
    """Take out casts to float16 and back: between two nodes that are kept in fp32 they would overflow."""
    to = {n.output[0]: (n.attribute[0].i, n.input[0]) for n in graph.node if n.op_type == "Cast"}
    for node in graph.node:
        for place, name in enumerate(node.input):
            kind, middle = to.get(name, (0, ""))
            before, start = to.get(middle, (0, ""))
            if (kind, before) == (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16):
                node.input[place] = start
    for _ in range(2):  # first the casts back, which nobody reads now, then those that they read
        read = {name for node in graph.node for name in node.input} | {
            output.name for output in graph.output
        }
        for node in [n for n in graph.node if n.op_type == "Cast" and n.output[0] not in read]:
            graph.node.remove(node)


def int8(
    prepared: onnx.ModelProto,
    calibration: np.ndarray,
    validation: tuple[np.ndarray, np.ndarray],
    options: Int8,
    budget: float,
) -> Variant:
    """Return the int8 graph that loses least on the validation split, found in a number of tries.

    calibration: training inputs as served (N, ...); validation: inputs as served, and labels (M,).
    budget: the accuracy that may be lost; half of that, or one image, ends the search, for the test split may show
    more. First the methods in turn, then ever more products stay in fp32, those that hurt
    most first.
    """
    (x, y), calibration = validation, calibration[: options.images]
    enough = max(
        int(budget / 2 * len(y) + 1e-9), 1
    )  # images: of fractions one image may look like more
    plain, fewest = correct(run(prepared, x), y), len(y) + 1
    products = [node.name for node in prepared.graph.node if node.op_type in PRODUCTS]
    best, tried = Variant("int8", prepared), []
    settings: Iterator[tuple[str, int]] = iter((method, 0) for method in options.methods)
    worst_first: list[str] = []
    while len(tried) < options.tries and (setting := next(settings, None)):
        method, count = setting
        made = quantise(prepared, calibration, method, worst_first[:count])
        lost = plain - correct(run(made, x), y)
        tried.append({"method": method, "kept": count, "lost": round(lost / len(y), 6)})
        if lost < fewest:
            best, fewest = (
                Variant("int8", made, {"method": method, "kept": worst_first[:count]}),
                lost,
            )
        if lost <= enough:
            break
        if len(tried) == len(options.methods):
            hurt = damage(noise(prepared, best.graph, calibration[:BATCH]))
            # a product may have been merged with the ReLU that reads it, and is known by that then
            after = {node.input[0]: node.name for node in prepared.graph.node if node.input}
            own = {
                n.name: hurt.get(n.name, hurt.get(after.get(n.output[0], ""), 0.0))
                for n in prepared.graph.node
            }
            worst_first = sorted(products, key=lambda name: -own[name])
            counts = [2**k for k in range(len(products).bit_length()) if 2**k < len(products)]
            settings = iter([(best.facts["method"], count) for count in counts])
    best.facts |= {"lost": round(fewest / len(y), 6), "products": len(products), "tried": tried}
    return best


def prepare(graph: onnx.ModelProto) -> onnx.ModelProto:
    """Return the graph with batch norms folded and shapes inferred, as quantisation wants it."""
    from onnxruntime.quantization.shape_inference import quant_pre_process

    with tempfile.TemporaryDirectory() as folder, quiet():
        given, made = Path(folder, "given.onnx"), Path(folder, "made.onnx")
        onnx.save(graph, given)
        quant_pre_process(given, made, skip_symbolic_shape=True)
        prepared = onnx.load(made)
    versions = {"" if o.domain == "ai.onnx" else o.domain: o.version for o in prepared.opset_import}
    del prepared.opset_import[
        :
    ]  # after a joined head some domains stand there twice, which quantisation refuses
    prepared.opset_import.extend(
        helper.make_opsetid(domain, version) for domain, version in versions.items()
    )
    for k, node in enumerate(prepared.graph.node):
        node.name = node.name or f"{node.op_type}_{k}"
    return prepared


def quantise(
    graph: onnx.ModelProto, calibration: np.ndarray, method: str, kept: list[str]
) -> onnx.ModelProto:
    """Return the graph with QDQ pairs: uint8 activations, int8 weights by channel; `kept` nodes stay in fp32."""
    from onnxruntime import quantization as q

    name = graph.graph.input[0].name

    class Reader(q.CalibrationDataReader):
        def __init__(self) -> None:
            self.rows = iter(np.array_split(calibration, max(1, len(calibration) // BATCH)))

        def get_next(self) -> dict[str, np.ndarray] | None:
            rows = next(self.rows, None)
            return None if rows is None else {name: np.ascontiguousarray(rows)}

    with tempfile.TemporaryDirectory() as folder, quiet():
        made = Path(folder, "int8.onnx")
        q.quantize_static(
            copy_of(
                graph
            ),  # it moves the weights of what it is given to a file that is gone afterwards
            made,
            Reader(),
            quant_format=q.QuantFormat.QDQ,
            op_types_to_quantize=[*PRODUCTS, *BETWEEN],
            per_channel=True,
            activation_type=q.QuantType.QUInt8,
            weight_type=q.QuantType.QInt8,
            nodes_to_exclude=kept + outside(graph.graph),
            calibrate_method=getattr(q.CalibrationMethod, method),
        )
        return onnx.load(made)


def outside(graph: onnx.GraphProto) -> list[str]:
    """Return the nodes before the first product (standardisation, layout) and after the last (softmax, a head)."""
    after: set[str] = set()
    names = []
    for node in graph.node:  # in topological order
        if node.op_type in PRODUCTS or after & {*node.input}:
            after |= {*node.output}
        else:
            names.append(node.name)
    needed: set[str] = set()
    for node in reversed(graph.node):
        if node.op_type in PRODUCTS or needed & {*node.output}:
            needed |= {*node.input}
        else:
            names.append(node.name)
    return names


def run(
    graph: onnx.ModelProto, x: np.ndarray, outputs: list[str] | None = None
) -> list[np.ndarray]:
    """Return the graph's first output, or those named, for x in batches, under onnxruntime on the CPU."""
    threads = (
        int(os.environ.get("OMP_NUM_THREADS", 0)) or None
    )  # onnxruntime does not look there itself
    session = open_session(graph.SerializeToString(), "cpu", threads=threads)
    name, outputs = session.get_inputs()[0].name, outputs or [session.get_outputs()[0].name]
    parts = [
        session.run(outputs, {name: np.ascontiguousarray(x[i : i + BATCH])})
        for i in range(0, len(x), BATCH)
    ]
    return [np.concatenate(column) for column in zip(*parts, strict=True)]


def correct(outputs: list[np.ndarray], y: np.ndarray) -> int:
    return int((outputs[0].argmax(1) == y).sum())


def noise(plain: onnx.ModelProto, made: onnx.ModelProto, x: np.ndarray) -> dict[str, float]:
    """Return the signal-to-noise ratio in dB of each node's output in `made` against `plain`, by node, in order.

    Both are run on x with these tensors as outputs; a tensor keeps its name, up to its quantisation in a QDQ graph.
    """
    there = {name for node in made.graph.node for name in node.output}
    pairs = {}
    for node in plain.graph.node:
        tensor = node.output[0]
        after = f"{tensor}_DequantizeLinear_Output"
        if node.op_type in (*PRODUCTS, *BETWEEN) and {tensor, after} & there:
            pairs[node.name] = (tensor, after if after in there else tensor)
    signals = tap(plain, x, [a for a, _ in pairs.values()])
    others = tap(made, x, [b for _, b in pairs.values()])
    return {name: round(decibels(signals[a], others[b]), 2) for name, (a, b) in pairs.items()}


def damage(found: dict[str, float]) -> dict[str, float]:
    """Return by how many dB each node's output falls below all that came before: its own share of the noise."""
    lowest, falls = 60.0, {}
    for name, decibels_here in found.items():
        falls[name] = lowest - decibels_here
        lowest = min(lowest, decibels_here)
    return falls


def overflow(graph: onnx.ModelProto, x: np.ndarray) -> str | None:
    """Return the first float16 node whose output is not finite for inputs x, or None.

    Each is asked for as an output: the CPU, which plays float16 in fp32, then rounds it to float16.
    """
    inferred = onnx.shape_inference.infer_shapes(graph)
    halves = {
        v.name
        for v in inferred.graph.value_info
        if v.type.tensor_type.elem_type == onnx.TensorProto.FLOAT16
    }
    tensors = {node.output[0]: node.name for node in graph.graph.node if node.output[0] in halves}
    found = tap(graph, x, list(tensors)) if tensors else {}
    return next(
        (tensors[name] for name, values in found.items() if not np.isfinite(values).all()), None
    )


def tap(graph: onnx.ModelProto, x: np.ndarray, tensors: list[str]) -> dict[str, np.ndarray]:
    """Return inner tensors of the graph by name, for inputs x in one batch."""
    copy = copy_of(graph)
    there = {output.name for output in copy.graph.output}
    wanted = list(dict.fromkeys(tensors))
    copy.graph.output.extend(
        helper.make_empty_tensor_value_info(name) for name in wanted if name not in there
    )
    return dict(zip(wanted, run(copy, x, wanted), strict=True))


def copy_of(graph: onnx.ModelProto) -> onnx.ModelProto:
    copy = onnx.ModelProto()
    copy.CopyFrom(graph)
    return copy


def decibels(signal: np.ndarray, other: np.ndarray) -> float:
    """Return 10 log10(sum s^2 / sum (s - o)^2), at most 200."""
    s = signal.astype(np.float64)
    power, error = float((s**2).sum()), float(((s - other.astype(np.float64)) ** 2).sum())
    return 200.0 if error <= power * 1e-20 else 10 * float(np.log10(max(power, 1e-300) / error))


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep the converters' advice off the terminal; what matters is measured."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        logging.disable(before)


def traffic(graph: onnx.ModelProto) -> dict[str, int]:
    """Return the numbers that products move: all weights, and for one sample what they read and write."""
    graph = onnx.shape_inference.infer_shapes(graph)
    weights = {w.name: int(np.prod(w.dims)) for w in graph.graph.initializer}
    values = [*graph.graph.value_info, *graph.graph.input, *graph.graph.output]
    sizes = {
        v.name: int(np.prod([d.dim_value or 1 for d in v.type.tensor_type.shape.dim]))
        for v in values
    }
    products = [node for node in graph.graph.node if node.op_type in PRODUCTS]
    moved = sum(
        sizes.get(name, 0)
        for node in products
        for name in (*node.input, *node.output)
        if name not in weights
    )
    return {"weights": sum(weights.values()), "moved": moved}


def say(variant: Variant) -> str:
    """Return a variant in a few words: int8 (MinMax, 2 of 53 products in fp32, .0033 lost on validation)."""
    if not (facts := variant.facts):
        return variant.precision
    kept = f"{len(facts['kept'])} of {facts['products']} products in fp32"
    return f"{variant.precision} ({facts['method']}, {kept}, {facts['lost']:.4f} of validation accuracy lost)"
