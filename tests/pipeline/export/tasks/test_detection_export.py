"""Detection: one file whose suppression is ONNX's, and which finds what torch finds."""

from collections import Counter

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import numpy_helper

import models
from pipeline.export import quantize
from pipeline.export.tasks import detection
from pipeline.network.tasks.detection import Detector

OPTIONS = {"in_channels": 3, "size": (32, 40), "classes": 4, "width": 16}


def images(count):
    return np.random.default_rng(0).integers(0, 256, (count, 32, 40, 3), np.uint8)


def detector():
    torch.manual_seed(0)
    net = models.build("fasterrcnn", **OPTIONS)
    torch.nn.init.normal_(net.head.logits.bias, std=0.1)  # the exporter leaves out zeros
    return Detector(net, torch.full((3, 1, 1), 127.0), torch.full((3, 1, 1), 1 / 64)).eval()


def run(graph, x):
    session = onnxruntime.InferenceSession(graph.SerializeToString())
    return session.run(list(detection.OUTPUT_NAMES), {"images": x})


@pytest.fixture(scope="module")
def graph():
    return detection.export(detector(), images(2))


@pytest.mark.parametrize("count", [1, 3, 16])
def test_file_finds_what_torch_finds(graph, count):
    x = images(count)
    with torch.no_grad():
        expected = [part.numpy() for part in detector()(torch.from_numpy(x))]
    outputs = run(graph, x)
    for got, wanted, atol in zip(outputs, expected, (1e-4, 0, 1e-6, 0), strict=True):
        assert got.dtype == wanted.dtype
        np.testing.assert_allclose(got, wanted, rtol=0, atol=atol)
    assert expected[3].min() > 3


def test_features_of_torchvision_export():
    """The first layers of squeezenet1_1, whose map is odd: it pools with ceil_mode."""
    torch.manual_seed(0)
    net = models.build("fasterrcnn", **OPTIONS, backbone="zoo", stride=8)
    torch.nn.init.normal_(net.head.logits.bias, std=0.1)
    net = Detector(net, torch.full((3, 1, 1), 127.0), torch.full((3, 1, 1), 1 / 64)).eval()
    with torch.no_grad():
        expected = [part.numpy() for part in net(torch.from_numpy(images(3)))]
    outputs = run(detection.export(net, images(2)), images(3))
    for got, wanted, atol in zip(outputs, expected, (1e-4, 0, 1e-6, 0), strict=True):
        np.testing.assert_allclose(got, wanted, rtol=0, atol=atol)
    assert expected[3].min() > 3


def test_suppression_is_onnx_own(graph):
    """Two: of proposals, and of finds of each class; every operator is of the standard domain."""
    kinds = Counter(node.op_type for node in graph.graph.node)
    assert kinds["NonMaxSuppression"] == 2 and kinds["RoiAlign"] == 1
    assert {node.domain for node in graph.graph.node} <= {"", "ai.onnx"}


def test_boxes_stay_in_fp32(graph):
    """In the int8 file the convolutions and dense layers are quantized, and no node of boxes is."""
    prepared = quantize.prepare_graph(graph)
    quantized = quantize.quantize_graph(prepared, images(8), "MinMax", [])
    readers = {name: node for node in quantized.graph.node for name in node.input}
    kinds = [
        readers[n.output[0]].op_type for n in quantized.graph.node if "Dequantize" in n.op_type
    ]
    assert {"Conv", "Gemm", "RoiAlign"} <= set(kinds) and not {"Concat", "Add", "Sub"} & set(kinds)
    found, expected = run(quantized, images(8)), run(graph, images(8))
    assert np.abs(found[2] - expected[2]).max() < 0.05


def test_no_find(graph):
    """A network that is sure of background finds nothing: zeros of the same shape."""
    (place,) = [k for k, t in enumerate(graph.graph.initializer) if t.name.endswith("logits.bias")]
    sure = onnx.ModelProto()
    sure.CopyFrom(graph)
    name, bias = sure.graph.initializer[place].name, np.array([50, 0, 0, 0, 0], np.float32)
    sure.graph.initializer[place].CopyFrom(numpy_helper.from_array(bias, name))
    boxes, labels, scores, count = run(sure, images(3))
    assert boxes.shape == (3, 32, 4) and not boxes.any() and not labels.any() and not scores.any()
    assert count.tolist() == [0, 0, 0]


def test_difference_of_finds():
    """The order of boxes does not matter; a box that is off by 2 of 40 pixels counts .05; a find of
    one run alone counts 1, unless its score is below what is shown.
    """
    boxes = np.zeros((1, 3, 4), np.float32)
    boxes[0, :, 2:] = [[40, 20], [10, 10], [30, 30]]
    scores, labels = np.array([[0.9, 0.8, 0.4]], np.float32), np.array([[1, 0, 1]])
    finds = [boxes, labels, scores, np.array([3])]
    order = np.array([1, 0, 2])
    turned = [part[:, order] for part in finds[:3]]
    assert detection.difference(finds, [*turned, finds[3]]) == 0
    moved = boxes.copy()
    moved[0, 0, 0] = 2
    assert detection.difference(finds, [moved, *finds[1:]]) == pytest.approx(0.05)
    assert detection.difference(finds, [*finds[:3], np.array([2])]) == 0
    assert detection.difference(finds, [*finds[:3], np.array([1])]) == 1


def test_quality_is_average_precision():
    """The finds are the truth of two images: both count."""
    y = np.array([[[2.0, 2, 12, 12, 0]], [[4, 4, 9, 9, 2]]], np.float32)
    finds = [y[..., :4], y[..., 4].astype(int), np.ones((2, 1), np.float32), np.ones(2, int)]
    assert detection.count_correct(finds, y) == 2
    finds[1][1] = 1
    assert detection.count_correct(finds, y) == pytest.approx(1)


def test_document():
    fields = detection.document_fields({"labels": ["cat", "dog"]})
    assert fields == {"labels": ["cat", "dog"]}
    assert detection.measured_fields(detector(), None) == {
        "detection": {"most": 32, "min_score": 0.5}
    }
