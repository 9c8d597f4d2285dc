"""Detection: one file whose suppression is ONNX's, and which finds what torch finds."""

from collections import Counter

import numpy as np
import onnxruntime
import pytest
import torch

import models
from pipeline.export.tasks import detection
from pipeline.network.tasks.detection import Detector

OPTIONS = {"in_channels": 3, "size": (32, 40), "classes": 4, "width": 16}


def images(count):
    return np.random.default_rng(0).integers(0, 256, (count, 32, 40, 3), np.uint8)


def detector(**options):
    torch.manual_seed(0)
    net = models.build("fasterrcnn", **OPTIONS, **options)
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


def test_suppression_is_onnx_own(graph):
    """Two: of proposals, and of finds of each class; every operator is of the standard domain."""
    kinds = Counter(node.op_type for node in graph.graph.node)
    assert kinds["NonMaxSuppression"] == 2 and kinds["RoiAlign"] == 1
    assert {node.domain for node in graph.graph.node} <= {"", "ai.onnx"}


def test_no_find():
    """A network that is sure of background finds nothing: zeros of the same shape."""
    net = detector()
    with torch.no_grad():
        net.net.head.logits.bias[0] = 50
    boxes, labels, scores, count = run(detection.export(net, images(2)), images(3))
    assert boxes.shape == (3, 32, 4) and not boxes.any() and not labels.any() and not scores.any()
    assert count.tolist() == [0, 0, 0]
