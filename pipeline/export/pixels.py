"""Let the first product of an int8 graph read the pixels themselves.

A pixel is a number of 8 bits already. Standardised in float32 and quantized again, an image passes
through memory four times before the first product, which takes a third of the time of mobilenet_v2.
Here the standardisation (p - mean) * scale of each channel moves into the product: its weights take
the scale, and the pixels enter with scale 1 and one zero point z for all channels.

Means differ between channels. A convolution pads with zeros after the standardisation, so the rest,
mean - z, cannot move into the bias, which is added at the borders too. It becomes the weights of
one more channel that is constant within the image, and zero in the padding.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from typing import NamedTuple

import numpy as np
import onnx
from onnx import helper, numpy_helper

from pipeline.export.graph_analysis import copy_graph

MOST_REST = 0.5  # grey levels of mean - z that go into the bias: no more than pixels are rounded by
TO_CHANNELS_FIRST = [0, 3, 1, 2]
ROLES = "int8_pixels_"  # how the names of new tensors begin


class Start(NamedTuple):
    """The nodes from the images (N, H, W, C) to the first product, each read by the next alone."""

    transpose: onnx.NodeProto
    cast: onnx.NodeProto
    sub: onnx.NodeProto
    mul: onnx.NodeProto
    conv: onnx.NodeProto


def standardise_in_product(
    graph: onnx.ModelProto, kept: Collection[str]
) -> tuple[onnx.ModelProto, dict[str, int]]:
    """Return an equal graph whose first product reads pixels less a whole number, and that number
    by the name of the tensor.

    The graph itself and {} if it does not begin so, or if its first product is one of `kept`.
    """
    given, graph = graph, copy_graph(graph)
    start = find_start(graph.graph)
    if start is None or start.conv.name in kept:
        return given, {}
    values = {one.name: one for one in graph.graph.initializer}
    mean, scale, weight = (
        numpy_helper.to_array(values[name]).astype(np.float64)
        for name in (start.sub.input[1], start.mul.input[1], start.conv.input[1])
    )
    channels = weight.shape[1]
    mean, scale = (np.broadcast_to(one.ravel(), channels) for one in (mean, scale))
    zero = round(float(mean.mean()))
    rest = mean - zero
    weight = weight * scale[:, None, None]  # (O, C, kh, kw)
    shift = -np.einsum("ochw,c->ohw", weight, rest)
    new = {"zero": np.asarray(zero, np.float32)}
    if np.abs(rest).max() > MOST_REST:
        # No larger than the largest weight of its filter if it can be: the steps of int8 stay.
        value = min(math.ceil(np.abs(rest).sum()), max(255 - zero, zero))
        value = value if zero < 128 else -value  # the constant pixel is within 0 to 255
        weight = np.concatenate([weight, shift[:, None] / value], axis=1)
        new |= {"pads": np.array([0] * 7 + [1]), "value": np.asarray(zero + value, np.uint8)}
    else:
        bias = start.conv.input[2] if len(start.conv.input) > 2 else ""
        own = numpy_helper.to_array(values[bias]) if bias else 0.0
        new["bias"] = (own + shift.sum((1, 2))).astype(np.float32)
    new["weight"] = weight.astype(np.float32)
    names = {key: ROLES + key for key in new}
    graph.graph.initializer.extend(
        numpy_helper.from_array(array, names[key]) for key, array in new.items()
    )
    start.conv.input[1] = names["weight"]
    if "bias" in new:
        del start.conv.input[2:]
        start.conv.input.append(names["bias"])
    else:
        pad = [start.transpose.input[0], names["pads"], names["value"]]
        padded = helper.make_node("Pad", pad, [f"{ROLES}padded"], f"{ROLES}pad")
        graph.graph.node.insert([*graph.graph.node].index(start.transpose), padded)
        start.transpose.input[0] = padded.output[0]
    start.sub.input[1] = names["zero"]
    start.conv.input[0] = start.sub.output[0]
    graph.graph.node.remove(start.mul)
    read = {name for node in graph.graph.node for name in node.input}
    for name in values.keys() - read:
        graph.graph.initializer.remove(values[name])
    del graph.graph.value_info[:]  # shapes of tensors that have another channel now
    return onnx.shape_inference.infer_shapes(graph), {start.sub.output[0]: zero}


def find_start(graph: onnx.GraphProto) -> Start | None:
    """Return the nodes that standardise pixels before a convolution, None if there are others."""
    values = {one.name: list(one.dims) for one in graph.initializer}
    readers: dict[str, list[onnx.NodeProto]] = {}
    for node in graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    name, nodes = graph.input[0].name, []
    if graph.input[0].type.tensor_type.elem_type != onnx.TensorProto.UINT8:
        return None
    for kind in ("Transpose", "Cast", "Sub", "Mul", "Conv"):
        node = readers.get(name, [])
        if [one.op_type for one in node] != [kind] or node[0].input[0] != name:
            return None
        nodes.append(node[0])
        name = node[0].output[0]
    start = Start(*nodes)
    channels = (values.get(start.conv.input[1]) or [0, 0])[1]
    one_number_a_channel = all(
        values.get(node.input[1]) in ([channels, 1, 1], [1, 1, 1], []) for node in start[2:4]
    )
    settings = {
        one.name: helper.get_attribute_value(one)
        for one in (*start.transpose.attribute, *start.conv.attribute)
    }
    fits = settings.get("perm") == TO_CHANNELS_FIRST and settings.get("group", 1) == 1
    constant = {*start.conv.input[1:]} <= {*values}
    return start if fits and constant and one_number_a_channel else None


def read_pixels(graph: onnx.ModelProto, zeros: dict[str, int]) -> None:
    """Remove what lies between the pixels and their own quantization, which is the same number:
    the cast, and the subtraction of the zero point. zeros: of `standardise_in_product`.
    """
    nodes = graph.graph.node
    makers = {node.output[0]: node for node in nodes}
    for quantized in [node for node in nodes if node.input[0] in zeros]:
        sub = makers[quantized.input[0]]
        cast = makers[sub.input[0]]
        for node in nodes:
            if node.input[0] == quantized.output[0]:
                node.input[0] = cast.input[0]
        for node in (quantized, sub, cast):
            nodes.remove(node)
