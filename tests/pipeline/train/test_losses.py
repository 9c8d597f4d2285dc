"""The loss, the penalties in both conventions, and the weight decay of the optimizers."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from pipeline.params.schema import ResolvedTrain
from pipeline.train import losses, optim

PLAIN = ResolvedTrain(epochs=1)


@pytest.fixture
def logits() -> torch.Tensor:
    return torch.randn(6, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 3


Y = torch.tensor([0, 3, 1, 1, 2, 0])


def log_softmax(z: np.ndarray) -> np.ndarray:
    return z - np.log(np.exp(z).sum(1, keepdims=True))


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 1.0])
def test_cross_entropy_with_label_smoothing(logits: torch.Tensor, smoothing: float) -> None:
    """Szegedy et al.

    2016, arXiv:1512.00567, section 7: targets (1 - e) onehot + e / K, in numpy.
    """
    target = np.eye(4)[Y] * (1 - smoothing) + smoothing / 4
    expected = -(target * log_softmax(logits.numpy())).sum(1).mean()
    got = losses.cross_entropy(logits, Y, PLAIN.updated(label_smoothing=smoothing))
    assert float(got) == pytest.approx(expected, rel=1e-12)


def test_forecasts_are_fitted_by_squared_error() -> None:
    """The mean, not the sum."""
    output, y = torch.tensor([[1.0, 2.0]]), torch.tensor([[0.0, 4.0]])
    assert float(losses.forecast_error(output, y, PLAIN)) == (1 + 4) / 2


def test_softmax_clip_is_keras_formula(logits: torch.Tensor) -> None:
    """Keras's categorical_crossentropy in numpy: probabilities clipped to [1e-7, 1 - 1e-7], then
    -log.
    """
    logits = logits * 10  # some clipped at either end
    clipped = np.exp(log_softmax(logits.numpy())).clip(1e-7, 1 - 1e-7)
    assert (clipped == 1e-7).any() and (clipped == 1 - 1e-7).any()
    got = losses.cross_entropy(logits, Y, PLAIN.updated(loss="softmax-clip"))
    assert float(got) == pytest.approx(-np.log(clipped[np.arange(6), Y]).mean(), rel=1e-12)


def test_a_saturated_wrong_sample_gets_no_gradient_from_softmax_clip() -> None:
    """Class 1 is right, class 0 is 40 ahead: the gradient of cross-entropy is (1, -1), that of
    softmax-clip 0.
    """
    pulls = {}
    for name in ("cross-entropy", "softmax-clip"):
        wrong = torch.tensor([[40.0, 0.0]], requires_grad=True)
        losses.cross_entropy(wrong, torch.tensor([1]), PLAIN.updated(loss=name)).backward()
        pulls[name] = wrong.grad.numpy()
    np.testing.assert_allclose(pulls["cross-entropy"], [[1, -1]], rtol=1e-6)
    assert (pulls["softmax-clip"] == 0).all()


@pytest.fixture
def net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(8, 3)
    ).double()


@pytest.mark.parametrize(
    ("l1", "l2"), [(0.3, 0.0), (0.0, 0.2), (0.3, 0.2)], ids=["L1", "L2", "elastic net"]
)
@pytest.mark.parametrize(("convention", "factor"), [("full", 1.0), ("half", 0.5)])
def test_penalties(net: nn.Module, l1: float, l2: float, convention: str, factor: float) -> None:
    """numpy over the two weight arrays; biases and batch norm are left out."""
    weights = [net[i].weight.detach().numpy() for i in (0, 3)]
    expected = sum(l1 * np.abs(w).sum() + factor * l2 * (w**2).sum() for w in weights)
    train = PLAIN.updated(l1=l1, l2=l2, l2_convention=convention)
    assert losses.penalty(net, train).item() == pytest.approx(expected, rel=1e-12)


def test_no_penalty_costs_nothing(net: nn.Module) -> None:
    assert losses.penalty(net, PLAIN) == 0.0


def test_a_bias_with_more_dimensions_is_still_a_bias() -> None:
    """LeNet-5's subsampling holds its biases as (C, 1, 1)."""
    layer = nn.Module()
    layer.weight, layer.bias = (
        nn.Parameter(torch.full((2, 1, 1), 3.0)),
        nn.Parameter(torch.full((2, 1, 1), 5.0)),
    )
    assert losses.penalty(layer, PLAIN.updated(l1=1.0)).item() == 6.0


@pytest.mark.parametrize(("convention", "decay"), [("half", 0.2), ("full", 0.4)])
def test_l2_equals_weight_decay_of_sgd(convention: str, decay: float) -> None:
    """The gradient of l2 / 2 * w^2 is l2 * w, of l2 * w^2 twice that; equal after 5 steps with
    momentum.
    """
    ends = []
    for l2, weight_decay in ((0.2, 0.0), (0.0, decay)):
        torch.manual_seed(0)
        net = nn.Linear(5, 3, bias=False).double()
        x, y = torch.randn(7, 5, dtype=torch.float64), torch.randint(3, (7,))
        train = PLAIN.updated(l2=l2, l2_convention=convention)
        options = PLAIN.updated(optimizer="sgd", lr=0.1, momentum=0.9, weight_decay=weight_decay)
        optimizer = optim.make_optimizer(options, net.parameters())
        for _ in range(5):
            optimizer.zero_grad()
            (losses.cross_entropy(net(x), y, train) + losses.penalty(net, train)).backward()
            optimizer.step()
        ends.append(net.weight.detach())
    torch.testing.assert_close(*ends, rtol=1e-12, atol=0)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("sgd", torch.optim.SGD),
        ("adam", torch.optim.Adam),
        ("adamw", torch.optim.AdamW),
        ("adadelta", torch.optim.Adadelta),
        ("rmsprop", torch.optim.RMSprop),
    ],
)
def test_optimizers_take_their_options(net: nn.Module, name: str, kind: type) -> None:
    made = optim.make_optimizer(
        PLAIN.updated(
            optimizer=name, lr=0.3, momentum=0.8, nesterov=name == "sgd", weight_decay=0.01
        ),
        net.parameters(),
    )
    assert type(made) is kind
    group = made.param_groups[0]
    assert (group["lr"], group["weight_decay"]) == (0.3, 0.01)
    assert len(group["params"]) == len(list(net.parameters()))
    assert name != "sgd" or (group["momentum"] == 0.8 and group["nesterov"])


@pytest.mark.parametrize("supported", [True, False])
def test_autocast_by_name(supported: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """auto is fp32 on a CPU; bf16 computes products in bfloat16; fast does where the CPU has
    instructions for it.
    """
    monkeypatch.setattr(losses, "computes_in_bf16", lambda: supported)
    cpu, half = torch.device("cpu"), torch.bfloat16
    fast = half if supported else torch.float32
    for precision, dtype in (
        ("auto", torch.float32),
        ("fp32", torch.float32),
        ("bf16", half),
        ("fast", fast),
    ):
        with losses.autocast(precision, cpu):
            assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == dtype


# By hand: w = 1, gradient 2 and then 4, lr .1; each rule's own constants.
STEPS = {
    # v = .9 v + g, w -= lr v
    "sgd": lambda: (1 - 0.1 * 2, 1 - 0.1 * 2 - 0.1 * (0.9 * 2 + 4)),
    # Kingma & Ba 2015: m and v over their own weights; the first step is lr * sign(g)
    "adam": lambda: (
        0.9,
        0.9 - 0.1 * ((0.9 * 0.2 + 0.4) / 0.19) / math.sqrt((0.999 * 0.004 + 0.016) / 0.001999),
    ),
    # Zeiler 2012: sqrt(E[dx^2] + eps) / sqrt(E[g^2] + eps) * g, rho .9, eps 1e-6
    "adadelta": lambda: (
        1 - 0.1 * (d1 := math.sqrt(1e-6 / (0.4 + 1e-6)) * 2),
        1 - 0.1 * d1 - 0.1 * math.sqrt((0.1 * d1**2 + 1e-6) / (0.9 * 0.4 + 1.6 + 1e-6)) * 4,
    ),
}


@pytest.mark.parametrize("name", STEPS)
def test_two_steps_by_hand(name: str) -> None:
    net = nn.Linear(1, 1, bias=False).double()
    nn.init.ones_(net.weight)
    options = PLAIN.updated(optimizer=name, lr=0.1, momentum=0.9)
    optimizer = optim.make_optimizer(options, net.parameters())
    for gradient, expected in zip((2.0, 4.0), STEPS[name](), strict=True):
        net.weight.grad = torch.full_like(net.weight, gradient)
        optimizer.step()
        assert net.weight.item() == pytest.approx(expected, rel=1e-6)
