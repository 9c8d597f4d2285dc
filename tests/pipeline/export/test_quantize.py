"""int8 and fp16 files, of graphs that are small enough to know the result."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import calibrate

from pipeline.export import graph_analysis, quantize
from pipeline.export.tasks import classification
from pipeline.params.schema import Int8

OPTIONS, BUDGET = Int8(methods=["MinMax"], images=64), 0.005


Case = tuple[onnx.ModelProto, np.ndarray, np.ndarray]


def two_products(gain: float = 1.0) -> onnx.ModelProto:
    """Return a graph of two products, the first of which int8 cannot represent.

    It reads a number of 0 to 1 that decides the class, and one of 0 to 10,200 that does not: 256
    levels over 0 to 10,200 leave nothing of the first.
    """
    weights = {
        "scale": np.float32([1 / 255, 40]),
        "a": np.float32([[gain], [0]]),
        "b": np.float32([[1 / gain, -1 / gain]]),
        "c": np.float32([-0.5, 0.5]),
    }
    nodes = [
        helper.make_node("Cast", ["images"], ["x"], "cast", to=TensorProto.FLOAT),
        helper.make_node("Mul", ["x", "scale"], ["u"], "standardise"),
        helper.make_node("MatMul", ["u", "a"], ["h"], "first"),
        helper.make_node("Relu", ["h"], ["r"], "relu"),
        helper.make_node("Gemm", ["r", "b", "c"], ["s"], "second"),
        helper.make_node("Softmax", ["s"], ["probabilities"], "softmax"),
    ]
    given = helper.make_tensor_value_info("images", TensorProto.UINT8, ["N", 2])
    answer = helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["N", 2])
    kept = [numpy_helper.from_array(array, name) for name, array in weights.items()]
    graph = helper.make_graph(nodes, "g", [given], [answer], kept)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


@pytest.fixture
def outlier() -> Case:
    """The graph, images, labels."""
    x = np.random.default_rng(0).integers(0, 256, (400, 2)).astype(np.uint8)
    return two_products(), x, (x[:, 0] <= 127).astype(int)


def test_nodes_outside_the_products_stay_in_fp32(outlier: Case) -> None:
    graph, x, _ = outlier
    assert set(quantize.nodes_outside_products(graph.graph)) == {"cast", "standardise", "softmax"}
    made = quantize.quantize_graph(quantize.prepare_graph(graph), x[:64], "MinMax", [])
    kinds = [node.op_type for node in made.graph.node]
    assert "DequantizeLinear" in kinds and kinds.index("Cast") < kinds.index("QuantizeLinear")
    assert made.graph.output[0].type.tensor_type.elem_type == TensorProto.FLOAT


@pytest.mark.parametrize(
    "limits, dropped",
    [((0, 6), True), ((-1, 6), True), ((None, 6), True), ((1, 6), False), ((-6, -1), False)],
)
def test_a_clip_becomes_the_range_of_int8_numbers_where_that_holds_0(
    limits: tuple[float | None, float], dropped: bool
) -> None:
    """ReLU6 between two products would otherwise be computed in fp32, and quantized twice; a clip
    at 1 would let pass what is below.
    """
    rng = np.random.default_rng(0)
    weights = {
        "a": rng.normal(0, 4 / 255, (3, 3, 3, 3)),
        "b": rng.normal(size=(3, 3, 1, 1)),
    } | {f"limit {k}": np.float32(x) for k, x in enumerate(limits) if x is not None}
    inputs = [f"limit {k}" if x is not None else "" for k, x in enumerate(limits)]
    nodes = [
        helper.make_node("Cast", ["images"], ["x"], "cast", to=TensorProto.FLOAT),
        helper.make_node("Conv", ["x", "a"], ["h"], "first"),
        helper.make_node("Clip", ["h", *inputs], ["r"], "clip"),
        helper.make_node("Conv", ["r", "b"], ["y"], "second"),
    ]
    given = helper.make_tensor_value_info("images", TensorProto.UINT8, ["N", 3, 9, 9])
    answer = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 3, 7, 7])
    kept = [numpy_helper.from_array(np.float32(array), name) for name, array in weights.items()]
    graph = helper.make_graph(nodes, "g", [given], [answer], kept)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    x = rng.integers(0, 256, (64, 3, 9, 9)).astype(np.uint8)
    prepared = quantize.prepare_graph(model)
    made = quantize.quantize_graph(prepared, x, "MinMax", [])
    assert ("Clip" not in {node.op_type for node in made.graph.node}) is dropped
    assert graph_analysis.signal_to_noise(prepared, made, x)["second"] > 25


def test_the_noisiest_layers_stay_in_fp32(outlier: Case) -> None:
    """By construction: with all layers in int8 the accuracy is chance, and fp32 is correct."""
    graph, x, y = outlier
    made = quantize.search_int8(
        quantize.prepare_graph(graph), x, (x, y), classification, OPTIONS, BUDGET
    )
    assert made.facts["tried"][0]["kept"] == 0 and made.facts["tried"][0]["lost"] > 0.2
    assert made.facts["kept"] == ["first"] and made.facts["lost"] <= 0.0025
    assert classification.count_correct(graph_analysis.run_graph(made.graph, x), y) > 0.995 * len(y)


def test_the_search_has_a_maximum_of_tries(outlier: Case) -> None:
    """It is bounded by a number of tries, not by seconds, so a slow machine finds the same file."""
    graph, x, y = outlier
    made = quantize.search_int8(
        quantize.prepare_graph(graph), x, (x, y), classification, OPTIONS.updated(tries=1), BUDGET
    )
    assert len(made.facts["tried"]) == 1 and made.facts["lost"] > 0.2


@pytest.mark.parametrize(("right", "tried"), [(298, 1), (297, 2), (296, 2)])
def test_one_image_ends_the_search(
    outlier: Case, monkeypatch: pytest.MonkeyPatch, right: int, tried: int
) -> None:
    """Of 300 images fp32 classifies 299 correctly.

    299 / 300 - 298 / 300 is more than 1 / 300 in binary.
    """
    graph, x, y = outlier[0], outlier[1][:300], np.zeros(300, int)
    prepared = quantize.prepare_graph(graph)

    def answer(given: onnx.ModelProto, x: np.ndarray, names: list[str]) -> list[np.ndarray]:
        count = 299 if given is prepared else right
        return [np.eye(2)[(np.arange(len(x)) >= count).astype(int)]]

    monkeypatch.setattr(quantize, "run_graph", answer)
    monkeypatch.setattr(quantize, "signal_to_noise", lambda *graphs: {})
    made = quantize.search_int8(
        prepared, x, (x, y), classification, OPTIONS.updated(tries=2), BUDGET
    )
    assert len(made.facts["tried"]) == tried and made.facts["lost"] == round((299 - right) / 300, 6)


def test_ranges_are_those_of_onnxruntimes_calibration(outlier: Case, tmp_path: Path) -> None:
    """Of the tensors that products and ReLUs read and write, weights left out."""
    graph, x, _ = outlier
    prepared = quantize.prepare_graph(graph)
    onnx.save(prepared, tmp_path / "model.onnx")
    operators = [*graph_analysis.PRODUCTS, *graph_analysis.BETWEEN_PRODUCTS]
    theirs = calibrate.MinMaxCalibrater(
        tmp_path / "model.onnx", operators, str(tmp_path / "augmented.onnx")
    )
    theirs.augment_graph()
    theirs.create_inference_session()
    batches = iter([{"images": x[:32]}, {"images": x[32:64]}, None])
    theirs.collect_data(SimpleNamespace(get_next=lambda: next(batches)))
    expected = {name: data.range_value for name, data in theirs.compute_data().items()}
    found = graph_analysis.value_ranges(prepared, x[:64], operators)
    assert {*found} == {*expected} and {"u", "h", "s"} <= {*found}
    for name, pair in found.items():
        np.testing.assert_array_equal(pair, expected[name], name, strict=True)


@pytest.mark.parametrize("method", ["MinMax", "Entropy"])
def test_a_method_is_calibrated_once_for_all_tries(
    outlier: Case, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    """The second try has no images to calibrate by, and yields what it would with them."""
    graph, x, y = outlier
    prepared, calibrated = quantize.prepare_graph(graph), []
    quantize_graph = quantize.quantize_graph

    def follow(
        graph: onnx.ModelProto, images: np.ndarray, method: str, kept: list[str], ranges: Path
    ) -> onnx.ModelProto:
        calibrated.append(not ranges.exists())
        return quantize_graph(graph, images if calibrated[-1] else images[:0], method, kept, ranges)

    monkeypatch.setattr(quantize, "quantize_graph", follow)
    options = OPTIONS.updated(methods=[method])
    made = quantize.search_int8(prepared, x, (x, y), classification, options, BUDGET)
    assert calibrated == [True, False] and made.facts["kept"] == ["first"]
    assert made.graph == quantize_graph(prepared, x[:64], method, ["first"])


def test_signal_to_noise_ratio(outlier: Case) -> None:
    """25 over .25 is 20 dB; equal tensors have no error."""
    assert graph_analysis.decibels(np.float32([3, 4]), np.float32([3, 4.5])) == pytest.approx(20)
    assert graph_analysis.decibels(np.float32([3, 4]), np.float32([3, 4])) == 200
    graph, x, _ = outlier
    prepared = quantize.prepare_graph(graph)
    found = graph_analysis.signal_to_noise(
        prepared, quantize.quantize_graph(prepared, x[:64], "MinMax", []), x[:64]
    )
    assert list(found) == ["relu", "second"]  # the first product's ReLU is merged into it
    assert max(found.values()) < 10
    kept = graph_analysis.signal_to_noise(
        prepared, quantize.quantize_graph(prepared, x[:64], "MinMax", ["first"]), x[:64]
    )
    assert min(kept.values()) > 30


def test_signal_to_noise_drop_of_each_node() -> None:
    """A node that only passes noise on adds none."""
    assert graph_analysis.signal_to_noise_drops({"a": 40.0, "b": 15.0, "c": 14.0, "d": 30.0}) == {
        "a": 20,
        "b": 25,
        "c": 1,
        "d": -16,
    }


def convert_to_fp16(graph: onnx.ModelProto, x: np.ndarray) -> onnx.ModelProto:
    return quantize.convert_to_fp16(graph, graph_analysis.node_outputs(graph, x)).graph


def test_fp16_predicts_as_fp32(outlier: Case) -> None:
    graph, x, _ = outlier
    made = convert_to_fp16(quantize.prepare_graph(graph), x)
    assert {w.data_type for w in made.graph.initializer} >= {TensorProto.FLOAT16}
    assert (
        np.abs(graph_analysis.run_graph(made, x)[0] - graph_analysis.run_graph(graph, x)[0]).max()
        < 5e-3
    )
    assert graph_analysis.find_float16_overflow(made, x) is None


def test_a_tensor_that_two_nodes_read_is_cast_once(outlier: Case) -> None:
    """A segmenter's last product is read by its softmax and by its argmax."""
    graph, x, _ = outlier
    graph.graph.node.append(helper.make_node("ArgMax", ["s"], ["masks"], "argmax", axis=1))
    graph.graph.output.append(helper.make_tensor_value_info("masks", TensorProto.INT64, ["N", 1]))
    made = convert_to_fp16(quantize.prepare_graph(graph), x)
    (masks,) = graph_analysis.run_graph(made, x, ["masks"])
    assert (masks == graph_analysis.run_graph(graph, x, ["masks"])[0]).all()


def test_a_node_beyond_float16_stays_in_fp32(outlier: Case) -> None:
    """A gain of 9e4 is beyond 65,504; without the check of its range it overflows."""
    _, x, _ = outlier
    graph = quantize.prepare_graph(two_products(gain=9e4))
    made = convert_to_fp16(graph, x)
    assert graph_analysis.find_float16_overflow(made, x) is None
    assert (
        np.abs(graph_analysis.run_graph(made, x)[0] - graph_analysis.run_graph(graph, x)[0]).max()
        < 5e-3
    )
    blind = convert_to_fp16(graph, np.zeros((1, 2), np.uint8))
    for weight in blind.graph.initializer:  # the converter cuts weights at 1e4
        if list(weight.dims) == [2, 1]:
            weight.CopyFrom(numpy_helper.from_array(np.float16([[6e4], [6e4]]), weight.name))
    assert graph_analysis.find_float16_overflow(blind, x) == "first"
    zeros = np.zeros((graph_analysis.BATCH, 2), np.uint8)  # a batch that does not overflow
    assert graph_analysis.find_float16_overflow(blind, zeros) is None
    assert graph_analysis.find_float16_overflow(blind, np.concatenate([zeros, x])) == "first"


def test_memory_traffic_by_hand(outlier: Case) -> None:
    """The first product reads 2 numbers and writes 1, the second 1 and 2."""
    assert graph_analysis.count_traffic(outlier[0]) == {"weights": 8, "moved": 6}
