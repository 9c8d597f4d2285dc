"""int8 graphs that read pixels, against the same graphs that standardise them first."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from pipeline.export import pixels, quantize
from pipeline.export.graph_analysis import run_graph

IMAGENET, GREY, BRIGHT = [123.675, 116.28, 103.53], [33.4], [0.0, 255.0, 255.0]


def standardised(mean: list[float], **conv: int) -> onnx.ModelProto:
    """Return a graph of two padded convolutions with ReLU6 between, behind (p - mean) * scale."""
    rng, channels = np.random.default_rng(0), len(mean)
    values = {
        "mean": np.reshape(mean, (-1, 1, 1)),
        "scale": 1 / np.linspace(50, 65, channels).reshape(-1, 1, 1),
        "a": rng.normal(size=(6, channels // conv.get("group", 1), 3, 3)),
        "b": rng.normal(size=6),
        "c": rng.normal(size=(4, 6, 3, 3)) / 8,
        "least": np.float32(0),
        "most": np.float32(6),
    }
    nodes = [
        helper.make_node("Transpose", ["images"], ["chw"], perm=[0, 3, 1, 2]),
        helper.make_node("Cast", ["chw"], ["x"], to=TensorProto.FLOAT),
        helper.make_node("Sub", ["x", "mean"], ["u"]),
        helper.make_node("Mul", ["u", "scale"], ["v"]),
        helper.make_node("Conv", ["v", "a", "b"], ["h"], "first", pads=[1] * 4, **conv),
        helper.make_node("Clip", ["h", "least", "most"], ["r"], "relu6"),
        helper.make_node("Conv", ["r", "c"], ["y"], "second", pads=[1] * 4),
    ]
    given = helper.make_tensor_value_info("images", TensorProto.UINT8, ["N", 9, 7, channels])
    answer = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 4, 9, 7])
    kept = [numpy_helper.from_array(np.float32(array), name) for name, array in values.items()]
    graph = helper.make_graph(nodes, "g", [given], [answer], kept)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    return quantize.prepare_graph(model)


def images(channels: int) -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (64, 9, 7, channels)).astype(np.uint8)


@pytest.mark.parametrize("mean", [IMAGENET, [127.0] * 3, BRIGHT])
def test_the_graph_is_equal_at_the_borders_too(mean: list[float]) -> None:
    """Padding is zero after the standardisation, whatever the mean of a channel."""
    graph, x = standardised(mean), images(3)
    folded, zeros = pixels.standardise_in_product(graph, [])
    assert [*zeros.values()] == [round(np.mean(mean))]
    np.testing.assert_allclose(run_graph(folded, x)[0], run_graph(graph, x)[0], rtol=0, atol=2e-5)


def test_less_than_half_a_grey_level_goes_into_the_bias() -> None:
    """The inner part is equal; beyond it the padding is a pixel of 33 instead of 33.4."""
    graph, x = standardised(GREY), images(1)
    folded, zeros = pixels.standardise_in_product(graph, [])
    assert [*zeros.values()] == [33] and "Pad" not in {n.op_type for n in folded.graph.node}
    gap = np.abs(run_graph(folded, x)[0] - run_graph(graph, x)[0])
    assert gap[..., 2:-2, 2:-2].max() < 2e-5 < gap.max() < 0.1


@pytest.mark.parametrize("mean", [IMAGENET, GREY, BRIGHT])
def test_int8_reads_pixels_and_is_no_noisier(mean: list[float]) -> None:
    """Beside the graph that quantizes standardised pixels, by its distance from fp32."""
    graph, x = standardised(mean), images(len(mean))
    expected = run_graph(graph, x)[0]
    reads = quantize.quantize_graph(graph, x, "MinMax", [], pixels=True)
    kinds = [node.op_type for node in reads.graph.node]
    assert not {*kinds} & {"Cast", "Sub", "Mul", "Clip"} and kinds.count("QuantizeLinear") == 2
    before = quantize.quantize_graph(graph, x, "MinMax", [])
    noise, earlier = (np.std(run_graph(one, x)[0] - expected) for one in (reads, before))
    assert noise < 1.25 * earlier < 0.1 * expected.std()


def test_relu6_becomes_the_range_of_the_int8_numbers() -> None:
    """A clip between two products would otherwise be computed in fp32, and quantized twice."""
    made = quantize.quantize_graph(standardised(IMAGENET), images(3), "MinMax", [])
    assert "Clip" not in {node.op_type for node in made.graph.node}


def test_other_beginnings_stay_as_they_are() -> None:
    graph = standardised(IMAGENET)
    assert pixels.standardise_in_product(graph, ["first"]) == (graph, {})
    grouped = standardised(IMAGENET, group=3)
    assert pixels.standardise_in_product(grouped, []) == (grouped, {})
    of_positions = standardised(IMAGENET)
    [mean] = [one for one in of_positions.graph.initializer if one.name == "mean"]
    mean.CopyFrom(numpy_helper.from_array(np.ones((3, 9, 7), np.float32), "mean"))
    assert pixels.standardise_in_product(of_positions, []) == (of_positions, {})
