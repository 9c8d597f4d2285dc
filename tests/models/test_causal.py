"""models/causal.py: causality, receptive field, padding."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

import models
from models import causal


def causal_net(**options):
    torch.manual_seed(0)
    return models.build(
        "causal", **{"series": 2, "horizon": 40, "channels": 8, "kernel_size": 5} | options
    ).eval()


@pytest.mark.parametrize("activation", ["none", "relu"])
@pytest.mark.parametrize("dilations", [[1, 1, 1, 1], [1, 2, 4, 8]])
def test_causal_means_bit_equal(dilations, activation):
    """With S = T every step is forecast: changing step t changes output t and nothing before it."""
    net = causal_net(dilations=dilations, activation=activation)
    x = torch.randn(3, 40, 2)
    for t in (0, 17, 39):
        other = x.clone()
        other[:, t] += 1
        same = (net(x) == net(other)).all(2)
        assert same[:, :t].all() and not same[:, t].any()


@pytest.mark.parametrize(
    ("dilations", "reach"), [([1, 1, 1, 1], 17), ([1, 2, 4, 8], 61), ([], 1), ([3], 13)]
)
def test_receptive_field(dilations, reach):
    """1 + (k - 1) * sum(dilations), k = 5. With positive weights nothing cancels: the last step's
    gradient reaches its whole field, but between the taps of a lone dilated layer.
    """
    net = causal_net(dilations=dilations, activation="none", horizon=1)
    assert net.receptive_field == reach
    for parameter in net.parameters():
        nn.init.constant_(parameter, 0.1)
    x = torch.ones(1, 70, 2, requires_grad=True)
    net(x).sum().backward()
    reached = x.grad[0, :, 0].nonzero().flatten()
    assert reached.min() == 70 - reach and reached.max() == 69
    assert len(reached) == (5 if dilations == [3] else reach)


@pytest.mark.parametrize("steps", [100, 70, 69, 45])
def test_training_computes_what_the_last_forecasts_see(steps):
    """Forecasts and gradients are those of evaluation, which computes all outputs, also where the
    last ten see padding (they see 61 + 9 steps); where they see none, it is less work.
    """
    net, x, found, work = causal_net(horizon=10), torch.randn(3, steps, 2), [], []
    for training in (False, True):
        net.train(training).zero_grad()
        with FlopCounterMode(display=False) as counter:
            y = net(x)
        work.append(counter.get_total_flops())
        y.square().sum().backward()
        found.append([y, *(weight.grad.clone() for weight in net.parameters())])
    torch.testing.assert_close(found[1], found[0], rtol=1e-4, atol=1e-5)
    assert (work[1] < work[0]) == (steps >= 70)


def test_causal_activation():
    """With ReLU the features are never negative, without they are."""
    x = torch.randn(2, 2, 40)
    linear, rectified = (
        causal_net(dilations=[1, 2], activation=kind).stages(x) for kind in ("none", "relu")
    )
    assert linear.min() < 0 and rectified.min() == 0
    with pytest.raises(
        ValueError, match="causal: expected activation none, relu, got 'tanh'; choose one"
    ):
        causal_net(dilations=[1], activation="tanh")


def test_causal_layer_is_left_padded_only():
    """A causal layer is an ordinary convolution of a series that has (k - 1) * dilation zeros put
    before it.
    """
    torch.manual_seed(0)
    layer, x = causal.CausalConv1d(2, 3, 5, dilation=4), torch.randn(2, 2, 30)
    padded = torch.cat([torch.zeros(2, 2, 16), x], dim=2)
    expected = F.conv1d(padded, layer.weight, layer.bias, dilation=4)
    torch.testing.assert_close(layer(x), expected, rtol=1e-6, atol=1e-6)
