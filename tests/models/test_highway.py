"""models/highway.py: the gates at their limits and at the start, the sizes of the papers."""

import pytest
import torch
from torch import nn

import models
from models import highway, summary

MNIST = models.references("highway")["highway 10"]["options"]
KINDS = {
    "dense": (lambda: nn.Linear(6, 6), (2, 6)),
    "conv": (lambda: nn.Conv2d(6, 6, 3, padding=1), (2, 6, 5, 4)),
}


@pytest.fixture(params=KINDS.values(), ids=KINDS.keys())
def layer_and_input(request):
    torch.manual_seed(0)
    layer, shape = request.param
    return highway.Highway(layer, nn.Tanh()).double(), torch.randn(shape, dtype=torch.float64)


@pytest.mark.parametrize("bias", [-1e4, 1e4], ids=["T=0", "T=1"])
def test_limits(layer_and_input, bias):
    """The lecture notes: T = 0 gives y = x and the Jacobian I, T = 1 gives y = H(x) and H'(x), all
    bit-equal.
    """
    layer, x = layer_and_input
    nn.init.constant_(layer.gate[0].bias, bias)
    expected = layer.transform if bias > 0 else torch.clone
    assert torch.equal(layer(x), expected(x))
    jacobian = torch.autograd.functional.jacobian
    assert torch.equal(jacobian(layer, x), jacobian(expected, x))


def test_coupled_gates(layer_and_input):
    """1507.06228, section 2.2: on a zero input T is the sigmoid of its bias, 1 / (1 + e) at -1."""
    layer, x = layer_and_input
    nn.init.zeros_(layer.gate[0].weight), nn.init.zeros_(layer.gate[0].bias)
    torch.testing.assert_close(layer(x), (x + layer.transform(x)) / 2, rtol=1e-12, atol=0)


@pytest.mark.parametrize(("width", "gated", "parameters"), [(50, True, 5_100), (71, False, 5_112)])
def test_layer_sizes(width, gated, parameters):
    """One layer more of width n adds 2 (n^2 + n) parameters, n^2 + n without gates."""
    nine, ten = (
        summary.total(
            summary.on_meta("highway", MNIST | {"width": width, "gated": gated, "depth": depth})
        )
        for depth in (9, 10)
    )
    assert ten - nine == parameters


@pytest.mark.parametrize("gate_bias", [-1.0, -4.0])
def test_gates_start_near_their_bias(gate_bias):
    """Section 2.2: for a zero input T is the sigmoid of the bias, so 1 / (1 + e) at -1."""
    net = models.build("highway", **MNIST | {"gate_bias": gate_bias})
    gates = [
        layer.gate(torch.zeros(1, 50))
        for layer in net.modules()
        if isinstance(layer, highway.Highway)
    ]
    expected = torch.full((9, 1, 50), 1 / (1 + torch.e**-gate_bias))
    torch.testing.assert_close(torch.stack(gates), expected, rtol=1e-6, atol=0)


@pytest.mark.parametrize(
    ("depth", "pooled_after"), [(8, [3, 6, 9]), (3, [2, 3, 4]), (9, [4, 7, 10])]
)
def test_convolutions_in_three_equal_stages(depth, pooled_after):
    """By hand: a pool ends each third of the depth + 1 convolutions, the larger parts first."""
    net = summary.on_meta("highway", MNIST | {"kind": "conv", "depth": depth, "width": 4})
    counts, convolutions = [], 0
    for layer in net.features:
        convolutions += isinstance(layer, nn.Conv2d | highway.Highway)
        counts += [convolutions] if isinstance(layer, nn.MaxPool2d) else []
    assert counts == pooled_after


@pytest.mark.parametrize(
    "wrong", [{"kind": "deep"}, {"activation": "elu"}, {"depth": 0}, {"kind": "conv", "depth": 2}]
)
def test_wrong_options(wrong):
    """A wrong value is refused; the sentence names architecture, option and value."""
    option, value = list(wrong.items())[-1]
    with pytest.raises(ValueError, match=rf"^highway: expected {option} .+, got {value!r}; "):
        models.build("highway", **MNIST | wrong)
