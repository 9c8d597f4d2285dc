"""The exported graph in other precisions: int8 for CPUs (QDQ, static, per channel), fp16 for GPUs.

What lies before the first and after the last product stays in fp32. Of int8, so do the products
that add most noise: the calibration method and their number are chosen by accuracy on the
validation split, within a number of tries.
"""

from __future__ import annotations

import contextlib
import io
import itertools
import logging
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from pipeline.data import dataset
from pipeline.export.graph_analysis import (
    BATCH,
    BETWEEN_PRODUCTS,
    PRODUCTS,
    copy_graph,
    node_outputs,
    run_graph,
    signal_to_noise,
    signal_to_noise_drops,
    value_ranges,
)
from pipeline.export.tasks import TASKS, ExportTask
from pipeline.params.schema import ExportCheck, Int8

# A quarter of float16's range: other images may have larger values than those of the calibration.
MAX_FLOAT16 = 2.0**14


@dataclass
class Variant:
    """A graph in one precision; `facts` of an int8 graph say how it was found."""

    precision: str
    graph: onnx.ModelProto
    facts: dict[str, Any] = field(default_factory=dict)


def make_variants(
    graph: onnx.ModelProto, source: dataset.Data, checks: ExportCheck
) -> tuple[list[Variant], dict[str, dict[str, float]]]:
    """Return the other precisions that params.yaml asks for, of tasks that have some.

    Beside them the signal-to-noise ratio of each node in dB, by precision.
    """
    task = TASKS[source.task]
    has_products = any(node.op_type in PRODUCTS for node in graph.graph.node)
    if not (task.count_correct and has_products and checks.variants):
        return [], {}
    prepared = prepare_graph(graph)
    train = source.x["train"]
    calibration = np.asarray(train)[dataset.spread(len(train), checks.int8.images)]
    validation = np.asarray(source.x["validation"]), np.asarray(source.y["validation"])
    variants = []
    if "int8" in checks.variants:
        int8 = search_int8(prepared, calibration, validation, task, checks.int8, checks.budget)
        variants.append(int8)
    batch = calibration[:BATCH]  # whose tensors in fp32 both the conversion and the ratios need
    tensors = node_outputs(prepared, batch)
    if "fp16" in checks.variants:
        variants.append(convert_to_fp16(prepared, tensors))
    return variants, {
        v.precision: signal_to_noise(prepared, v.graph, batch, tensors) for v in variants
    }


def prepare_graph(graph: onnx.ModelProto) -> onnx.ModelProto:
    """Return the graph with batch norms folded, shapes inferred, and a name for each node."""
    import onnxruntime
    from onnxruntime.quantization.quant_utils import add_pre_process_metadata

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    with tempfile.TemporaryDirectory() as folder, silence_converters():
        options.optimized_model_filepath = str(Path(folder, "optimized.onnx"))
        onnxruntime.InferenceSession(
            graph.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
        prepared = onnx.load(options.optimized_model_filepath)
    prepared = onnx.shape_inference.infer_shapes(prepared)
    add_pre_process_metadata(prepared)  # else quantization warns that it was not done
    # quantization refuses a domain that is listed twice, as it is after a head was joined
    versions = {"" if o.domain == "ai.onnx" else o.domain: o.version for o in prepared.opset_import}
    del prepared.opset_import[:]
    prepared.opset_import.extend(itertools.starmap(helper.make_opsetid, versions.items()))
    for k, node in enumerate(prepared.graph.node):
        node.name = node.name or f"{node.op_type}_{k}"
    return prepared


def convert_to_fp16(prepared: onnx.ModelProto, tensors: dict[str, np.ndarray]) -> Variant:
    """Return the graph with weights and arithmetic in float16; inputs and outputs keep their types.

    tensors: what the nodes compute for calibration inputs, by name. Standardised grey levels can
    leave float16's range, so what comes before the first product stays in fp32. So does what
    follows the last one, and each node whose tensors exceed MAX_FLOAT16.
    """
    from onnxruntime.transformers.float16 import convert_float_to_float16
    from onnxruntime.transformers.onnx_model import OnnxModel

    outside = set(nodes_outside_products(prepared.graph))
    inside = [node for node in prepared.graph.node if node.name not in outside]
    names = {node.output[0] for node in inside}
    large = {name for name in names if np.abs(tensors[name]).max(initial=0) > MAX_FLOAT16}
    kept = [*outside, *(node.name for node in inside if large & {*node.input, *node.output})]
    with silence_converters():
        model = convert_float_to_float16(
            copy_graph(prepared), keep_io_types=True, node_block_list=kept, disable_shape_infer=True
        )
    del model.graph.value_info[:]  # these are still of fp32
    remove_repeated_casts(model.graph)
    remove_cast_pairs(model.graph)
    OnnxModel(model).topological_sort()
    return Variant("fp16", model)


def remove_repeated_casts(graph: onnx.GraphProto) -> None:
    """Remove casts that the converter writes again for each node that reads their output."""
    seen: set[str] = set()
    for node in [*graph.node]:
        if node.op_type == "Cast" and node.output[0] in seen:
            graph.node.remove(node)
        seen |= {*node.output}


def remove_cast_pairs(graph: onnx.GraphProto) -> None:
    """Remove casts to float16 and back: between two nodes in fp32 they would overflow."""
    casts = {n.output[0]: (n.attribute[0].i, n.input[0]) for n in graph.node if n.op_type == "Cast"}
    for node in graph.node:
        for place, name in enumerate(node.input):
            target, middle = casts.get(name, (0, ""))
            target_before, start = casts.get(middle, (0, ""))
            if (target_before, target) == (onnx.TensorProto.FLOAT16, onnx.TensorProto.FLOAT):
                node.input[place] = start
    for _ in range(2):  # first the casts back, which are read no more, then those that they read
        read = {name for node in graph.node for name in node.input}
        read |= {output.name for output in graph.output}
        for node in [n for n in graph.node if n.op_type == "Cast" and n.output[0] not in read]:
            graph.node.remove(node)


def search_int8(
    prepared: onnx.ModelProto,
    calibration: np.ndarray,
    validation: tuple[np.ndarray, np.ndarray],
    task: ExportTask,
    options: Int8,
    budget: float,
) -> Variant:
    """Return the int8 graph that loses least accuracy on the validation split.

    calibration: training inputs as served (N, ...); validation: inputs as served and `Data.y`, M of
    each; budget: the part of `task.count_correct` that may be lost; the search ends with half of
    it, or with one image, since the test split may lose more. First each method is tried in turn,
    then the best one with ever more products in fp32, those that add most noise first.
    """
    (x, y), calibration = validation, calibration[: options.images]

    def count(candidate: onnx.ModelProto) -> float:
        assert task.count_correct
        return task.count_correct(run_graph(candidate, x, list(task.OUTPUT_NAMES)), y)

    # images, not shares: shares of one image differ in their last digit
    enough = max(int(budget / 2 * len(y) + 1e-9), 1)
    reference, fewest = count(prepared), len(y) + 1.0
    products = [node.name for node in prepared.graph.node if node.op_type in PRODUCTS]
    best, tried = Variant("int8", prepared), []

    def settings() -> Iterator[tuple[str, list[str]]]:
        for method in options.methods:
            yield method, []
        noisiest = rank_by_noise(prepared, best.graph, products, calibration[:BATCH])
        for k in range(len(products).bit_length()):
            if 2**k < len(products):
                yield best.facts["method"], noisiest[: 2**k]

    with tempfile.TemporaryDirectory() as folder:
        for method, kept in itertools.islice(settings(), options.tries):
            ranges = Path(folder, f"{method}.json")
            graph = quantize_graph(prepared, calibration, method, kept, ranges)
            lost = reference - count(graph)
            tried.append({"method": method, "kept": len(kept), "lost": round(lost / len(y), 6)})
            if lost < fewest:
                best, fewest = Variant("int8", graph, {"method": method, "kept": kept}), lost
            if lost <= enough:
                break
    best.facts |= {"lost": round(fewest / len(y), 6), "products": len(products), "tried": tried}
    return best


def rank_by_noise(
    prepared: onnx.ModelProto, quantized: onnx.ModelProto, products: list[str], x: np.ndarray
) -> list[str]:
    """Return the products by the noise that each adds in the quantized graph, most first."""
    drops = signal_to_noise_drops(signal_to_noise(prepared, quantized, x))
    # a product that was merged with the ReLU behind it is found under the ReLU's name
    readers = {node.input[0]: node.name for node in prepared.graph.node if node.input}
    outputs = {node.name: node.output[0] for node in prepared.graph.node}
    noise = {p: drops.get(p, drops.get(readers.get(outputs[p], ""), 0.0)) for p in products}
    return sorted(products, key=lambda name: -noise[name])


def quantize_graph(
    graph: onnx.ModelProto,
    calibration: np.ndarray,
    method: str,
    kept: list[str],
    ranges: Path | None = None,
) -> onnx.ModelProto:
    """Return the graph with QDQ pairs: uint8 activations, int8 weights per channel.

    kept: names of nodes that stay in fp32, as do those outside the products, and clips that are no
    range of int8 numbers. ranges: a file that keeps what the calibration finds, for further calls
    with the same graph and method.
    """
    from onnxruntime import quantization as q
    from onnxruntime.quantization.calibrate import TensorsData, save_tensors_data

    operators = [*PRODUCTS, *BETWEEN_PRODUCTS]
    name = graph.graph.input[0].name

    class Reader(q.CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.batches = iter(np.array_split(calibration, max(1, len(calibration) // BATCH)))

        def get_next(self) -> dict[str, np.ndarray] | None:
            rows = next(self.batches, None)
            return None if rows is None else {name: np.ascontiguousarray(rows)}

    with tempfile.TemporaryDirectory() as folder, silence_converters():
        file, ranges = Path(folder, "int8.onnx"), ranges or Path(folder, "ranges.json")
        if method == "MinMax" and not ranges.exists():
            found = value_ranges(graph, calibration, operators)
            save_tensors_data(TensorsData(q.CalibrationMethod.MinMax, found), ranges)
        q.quantize_static(
            copy_graph(graph),  # its argument's weights move to a file in a temporary folder
            file,
            Reader(),
            calibration_cache_path=ranges,
            quant_format=q.QuantFormat.QDQ,
            op_types_to_quantize=operators,
            per_channel=True,
            activation_type=q.QuantType.QUInt8,
            weight_type=q.QuantType.QInt8,
            nodes_to_exclude=[
                *kept,
                *nodes_outside_products(graph.graph),
                *clips_without_zero(graph.graph),
            ],
            calibrate_method=getattr(q.CalibrationMethod, method),
        )
        return onnx.load(file)


def nodes_outside_products(graph: onnx.GraphProto) -> list[str]:
    """Return the nodes before every product (standardisation) or after every one (softmax), and
    those of a detector's boxes: from the choice of the best ones to the pooling of their maps.

    In 8 bits a corner is off by pixels, and the number of a box's image is another image's.
    """
    behind: set[str] = set()  # tensors that depend on a product
    names = []
    for node in graph.node:  # in topological order
        if node.op_type in PRODUCTS or behind & {*node.input}:
            behind |= {*node.output}
        else:
            names.append(node.name)
    needed: set[str] = set()  # tensors that a product depends on
    for node in reversed(graph.node):
        if node.op_type in PRODUCTS or needed & {*node.output}:
            needed |= {*node.input}
        else:
            names.append(node.name)
    boxes: set[str] = set()  # tensors of boxes
    for node in graph.node:
        pooled = node.op_type in ("RoiAlign", "MaxRoiPool")
        if node.op_type == "TopK" or (boxes & {*node.input} and not pooled):
            boxes |= {*node.output}
            names.append(node.name)
    return names


def clips_without_zero(graph: onnx.GraphProto) -> list[str]:
    """Return the clips whose limits do not hold 0, or are no constants.

    onnxruntime drops a clip and clips by the range of the int8 numbers, which always holds 0.
    """
    values = {one.name: numpy_helper.to_array(one) for one in graph.initializer if not one.dims}
    names = []
    for node in graph.node:
        if node.op_type == "Clip":
            _, least, most = [*node.input, "", ""][:3]  # "": no limit
            below = not least or (least in values and values[least] <= 0)
            above = not most or (most in values and values[most] >= 0)
            if not (below and above):
                names.append(node.name)
    return names


@contextlib.contextmanager
def silence_converters() -> Iterator[None]:
    """Suppress the converters' warnings and prints; what they made is measured afterwards."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        logging.disable(before)


def describe_variant(variant: Variant) -> str:
    """Return e.g. `int8 (MinMax, 2 of 53 products in fp32, loses 0.33 points on validation)`."""
    if not (facts := variant.facts):
        return variant.precision
    kept = f"{len(facts['kept'])} of {facts['products']} products in fp32"
    verb = "gains" if facts["lost"] < 0 else "loses"
    change = f"{verb} {100 * abs(facts['lost']):.2f} points on validation"
    return f"{variant.precision} ({facts['method']}, {kept}, {change})"
