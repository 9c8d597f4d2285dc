"""Saliency in the exported graph: by hand on toy networks, else compared with autograd."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import models
from pipeline.core.errors import ParamsError, StageError
from pipeline.export import graph as export
from pipeline.export import saliency_graph
from pipeline.network.modules import Classifier

RTOL = 1e-5  # float32: of the largest gradient
CIFAR = {
    "family": "cifar",
    "depth": 20,
    "shortcut": "A",
    "batch_norm": True,
    "stride_in": "first",
    "zero_init": False,
}
LENET = {"full_c3": False, "subsampling": "trainable", "output": "rbf"}


def classifier(net: nn.Module, channels: int = 1) -> Classifier:
    """Return the network with the normalization (x - 100) / 50 before it."""
    return Classifier(
        net, torch.full((channels, 1, 1), 100.0), torch.full((channels, 1, 1), 0.02)
    ).eval()


def images(count: int, side: int, channels: int = 1) -> np.ndarray:
    return np.random.default_rng(count).integers(0, 256, (count, side, side, channels), np.uint8)


def asked(graph: onnx.ModelProto, x: np.ndarray, *outputs: str, **more: Any) -> list[np.ndarray]:
    session = onnxruntime.InferenceSession(
        graph.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    return session.run(list(outputs), {"images": x, **more})


@pytest.fixture(scope="module")
def linear() -> tuple[onnx.ModelProto, nn.Linear]:
    dense = nn.Linear(9, 3)
    return saliency_graph.export_with_saliency(
        classifier(nn.Sequential(nn.Flatten(), dense)), images(2, 3)
    ), dense


def test_a_linear_models_saliency_is_its_weights(linear: tuple[onnx.ModelProto, nn.Linear]) -> None:
    """d (w (x - 100) / 50) / dx = w / 50, of the predicted or the given class."""
    graph, dense = linear
    x, weight = images(6, 3), dense.weight.detach().numpy()
    scores, probabilities, found = asked(graph, x, "scores", "probabilities", "saliency")
    np.testing.assert_allclose(
        scores, ((x.reshape(6, 9) - 100.0) / 50) @ weight.T + dense.bias.tolist(), rtol=1e-4
    )
    np.testing.assert_allclose(found.reshape(6, 9), weight[scores.argmax(1)] / 50, rtol=1e-6)
    np.testing.assert_allclose(
        probabilities, np.exp(scores) / np.exp(scores).sum(1, keepdims=True), rtol=1e-5
    )
    for target in range(3):
        (found,) = asked(graph, x, "saliency", target=np.array([target]))
        np.testing.assert_allclose(
            found.reshape(6, 9), np.broadcast_to(weight[target] / 50, (6, 9)), rtol=1e-6
        )


def test_one_convolution_by_hand() -> None:
    """Kernel [[1, 2], [3, -4]], ReLU, 2x2 max pool, sum; on the image below.

    The 2x2 outputs are a b / c d with a = 1*10 + 2*20 + 3*40 - 4*5 = 150, b = 20 + 60 + 15 - 240 <
    0, and so on; the pool takes the largest of the four, c = 40 + 10 + 210 - 4*10 = 220, whose
    gradient is the kernel on its own pixels.
    """
    conv = nn.Conv2d(1, 1, 2, bias=False)
    conv.weight.data = torch.tensor([[[[1.0, 2.0], [3.0, -4.0]]]])
    head = nn.Linear(1, 2, bias=False)
    head.weight.data = torch.tensor([[1.0], [-1.0]])
    net = Classifier(
        nn.Sequential(conv, nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), head),
        torch.zeros(1),
        torch.ones(1),
    )
    x = np.array([[10, 20, 30], [40, 5, 60], [70, 10, 90]], np.uint8).reshape(1, 3, 3, 1)
    (found,) = asked(saliency_graph.export_with_saliency(net, np.repeat(x, 2, 0)), x, "saliency")
    np.testing.assert_array_equal(found[0, :, :, 0], [[0, 0, 0], [1, 2, 0], [3, -4, 0]])


CONVOLUTIONS = [
    (dict(kernel_size=3), (7, 7)),
    (dict(kernel_size=3, stride=2), (8, 9)),
    (dict(kernel_size=3, stride=3), (8, 7)),
    (dict(kernel_size=(1, 7), padding=(0, 3)), (5, 11)),
    (dict(kernel_size=3, dilation=2, padding=2), (9, 8)),
    (dict(kernel_size=5, stride=(4, 2), padding=2, dilation=(1, 2)), (13, 14)),
    (dict(kernel_size=3, groups=2), (6, 5)),
    (dict(kernel_size=1, stride=2), (6, 5)),
    (dict(kernel_size=3, stride=2, padding=1, groups=4), (10, 9)),
]
POOLS = {
    "max 3/2": (lambda x: F.max_pool2d(x, 3, 2), (8, 9)),
    "max 3/2 padded, late windows": (lambda x: F.max_pool2d(x, 3, 2, 1, ceil_mode=True), (8, 11)),
    "max dilated": (lambda x: F.max_pool2d(x, 2, 1, 0, 2), (7, 6)),
    "mean 2": (lambda x: F.avg_pool2d(x, 2), (7, 8)),
    "mean 3/2 late windows": (lambda x: F.avg_pool2d(x, 3, 2, ceil_mode=True), (8, 10)),
    "mean 3/2 padded, late windows": (lambda x: F.avg_pool2d(x, 3, 2, 1, ceil_mode=True), (8, 9)),
    "mean 3/1 padded": (lambda x: F.avg_pool2d(x, 3, 1, 1), (5, 6)),
    "mean 3/1 without padding's pixels": (
        lambda x: F.avg_pool2d(x, 3, 1, 1, count_include_pad=False),
        (5, 6),
    ),
    "mean uneven": (lambda x: F.avg_pool2d(x, (2, 3), (3, 1), (1, 0)), (7, 8)),
    "adaptive": (lambda x: F.adaptive_avg_pool2d(x, (3, 2)), (7, 5)),
    "adaptive, larger": (lambda x: F.adaptive_avg_pool2d(x, (7, 3)), (3, 2)),
    "adaptive 1": (lambda x: F.adaptive_avg_pool2d(x, 1), (4, 5)),
}


def close_to_autograd(function: Any, *shape: int) -> None:
    """Compare the traced gradient of a random projection with autograd's, at another batch size."""
    torch.manual_seed(0)
    x = torch.randn(5, *shape)
    spread = torch.randn_like(function(x)[0])

    def gradient(x: Tensor) -> Tensor:
        return torch.func.grad(lambda y: (function(y) * spread).sum())(x)

    graph = saliency_graph.trace_gradient(gradient, x[:2])
    left = {str(n.target) for n in graph.graph.nodes} & {
        str(op) for op in saliency_graph.DECOMPOSITIONS
    }
    assert not left, left
    leaf = x.clone().requires_grad_()
    (expected,) = torch.autograd.grad((function(leaf) * spread).sum(), leaf)
    torch.testing.assert_close(
        graph(x), expected, rtol=RTOL, atol=RTOL * float(expected.abs().max())
    )


@pytest.mark.parametrize(("options", "size"), CONVOLUTIONS, ids=str)
def test_the_gradient_of_convolutions(options: dict[str, Any], size: tuple[int, int]) -> None:
    """autograd, on sizes that the stride does not divide."""
    conv = nn.Conv2d(4, 8, **options)
    close_to_autograd(lambda x: conv(x), 4, *size)


@pytest.mark.parametrize(("dilation", "stride"), [(1, 1), (4, 1), (2, 3)])
def test_the_gradient_of_causal_convolutions(dilation: int, stride: int) -> None:
    """autograd, on a layer that is padded only on the left."""
    conv = nn.Conv1d(3, 6, 2, dilation=dilation, stride=stride)
    close_to_autograd(lambda x: conv(F.pad(x, (dilation, 0))), 3, 16)


@pytest.mark.parametrize("name", POOLS)
def test_the_gradient_of_pools(name: str) -> None:
    """autograd, on overlapping, padded, dilated and uneven windows."""
    function, size = POOLS[name]
    close_to_autograd(function, 3, *size)


class Odd(nn.Module):
    """Groups, LRN, strided slices, zero padding, concatenation, batch norm, tanh."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(3, 8, 3, stride=2, groups=1), nn.BatchNorm2d(8), nn.ReLU(inplace=True)
        )
        self.local, self.late = (
            models._file("alexnet").layers.LocalResponseNorm(),
            nn.MaxPool2d(3, 2, 1, ceil_mode=True),
        )
        self.head = nn.Linear(24, 4)
        nn.init.normal_(self.stem[1].running_mean)

    def forward(self, x: Tensor) -> Tensor:
        x = self.local(self.stem(x))
        x = torch.cat(
            [self.late(x), F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 4, 4))], 1
        ).tanh()  # (N, 24, h, w)
        return self.head(F.adaptive_avg_pool2d(x, (2, 3)).amax((2, 3)))


NETS: dict[str, tuple[Any, int, int]] = {
    "cnn1": (lambda: models.build("cnn1", in_channels=1, size=(9, 9), classes=10), 9, 1),
    "lenet5": (
        lambda: models.build("lenet5", in_channels=1, size=(16, 16), classes=10, **LENET),
        16,
        1,
    ),
    "resnet20": (
        lambda: models.build("resnet", in_channels=3, size=(32, 32), classes=10, **CIFAR),
        32,
        3,
    ),
    "odd": (Odd, 15, 3),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", NETS)
def test_the_file_equals_autograd_at_any_batch(name: str) -> None:
    """torch's autograd and its probabilities, on new images at batch 1, 5 and 33.

    One map of ten may have a ReLU whose input is 0 within rounding, so that its derivative differs.
    """
    torch.manual_seed(0)
    build, side, channels = NETS[name]
    net = classifier(build(), channels)
    graph = saliency_graph.export_with_saliency(net, images(2, side, channels))
    assert [i.name for i in graph.graph.input] == ["images", "target"]
    assert all(o.type.tensor_type.shape.dim[0].dim_param for o in graph.graph.output)
    for count in (1, 5, 33):
        x = images(count, side, channels)
        found, probabilities = asked(graph, x, "saliency", "probabilities")
        assert found.shape == x.shape and found.dtype == np.float32
        far = saliency_graph.relative_difference(found, saliency_graph.autograd_saliency(net, x))
        assert (far > RTOL).sum() <= count / 10 and far.max() < 0.05
        np.testing.assert_allclose(
            probabilities, export.torch_outputs(net, x)[0], rtol=0, atol=1e-6
        )
    facts = saliency_graph.check_saliency(graph, net, x)
    assert facts["median"] < RTOL and facts["beyond"] <= 3 and facts["maps"] == 33


def test_a_graph_of_another_gradient_is_refused(
    linear: tuple[onnx.ModelProto, nn.Linear],
) -> None:
    """The graph has other weights."""
    other = classifier(nn.Sequential(nn.Flatten(), nn.Linear(9, 3)))
    with pytest.raises(StageError, match=r"differs from autograd's by .* the median"):
        saliency_graph.check_saliency(linear[0], other, images(4, 3))


def test_relative_difference() -> None:
    """A map of zeros has no scale."""
    expected = np.array([[0.0, 4.0], [-0.5, 0.1], [0.0, 0.0]]).reshape(3, 1, 2, 1)
    got = expected + np.array([0.4, 0.1, 0.0]).reshape(3, 1, 1, 1)
    np.testing.assert_allclose(saliency_graph.relative_difference(got, expected), [0.1, 0.2, 0.0])


def test_recipes_switch_saliency_on(resolved: Any) -> None:
    """A head on features cannot have saliency."""
    tiny = {
        "arch": "cnn1",
        "data": {"set": "digits", "size": [8, 8], "colour": "grey"},
        "train": {"epochs": 1},
    }
    sets = {"digits": {"source": "digits"}}
    assert not resolved(tiny, sets).saliency and resolved(tiny | {"saliency": True}, sets).saliency
    headed = tiny | {"saliency": True, "head": {"kind": "forest"}, "needs": "other"}
    with pytest.raises(ParamsError, match=r"saliency: a head on features has no gradients"):
        resolved(headed, sets)
