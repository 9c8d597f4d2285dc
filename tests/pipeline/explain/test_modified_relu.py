"""Every ReLU becomes a module of its own; without that, guided backpropagation silently is the
plain gradient.
"""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
import torchvision
from captum.attr import Deconvolution, GuidedBackprop
from torch import Tensor, nn

from pipeline.core.errors import StageError
from pipeline.explain import modified_relu

pytestmark = pytest.mark.filterwarnings("ignore:Setting backward hooks on ReLU")


class Down(nn.Module):
    """y = -relu(x), its ReLU a function."""

    def forward(self, x: Tensor) -> Tensor:
        return -F.relu(x)


class Twice(nn.Module):
    """y = -relu(relu(x) - 1): one module called twice."""

    def __init__(self) -> None:
        super().__init__()
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        return -self.relu(self.relu(x) - 1)


class Loop(nn.Module):
    """A block with a ReLU that is called twice."""

    def __init__(self) -> None:
        super().__init__()
        self.part = nn.Sequential(nn.Linear(1, 1), nn.ReLU())

    def forward(self, x: Tensor) -> Tensor:
        return self.part(self.part(x))


class Asks(nn.Module):
    """A forward that branches on values, which torch.fx cannot trace."""

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x) if x.sum() > 0 else x


def attributed(method: type, net: nn.Module, *values: float) -> list[float]:
    x = torch.tensor([values]).T.requires_grad_()  # (N, 1)
    return method(net).attribute(x, target=0).detach().flatten().tolist()


def test_captum_is_silently_wrong_on_functional_relus_and_the_rewrite_is_right() -> None:
    """d(-relu(x)) / dx = -1 at x = 2; guided, a ReLU passes no gradient below 0."""
    assert attributed(GuidedBackprop, Down(), 2.0) == [-1.0]  # the plain gradient: wrong
    net = modified_relu.replace_relus(nn.Sequential(Down()), torch.ones(1, 1))
    assert attributed(GuidedBackprop, net, 2.0) == [0.0]
    assert attributed(Deconvolution, nn.Sequential(nn.ReLU(), nn.Identity()), -2.0) == [
        1.0
    ]  # not of what came in


def test_a_module_called_twice_becomes_two() -> None:
    net = modified_relu.replace_relus(nn.Sequential(Twice()), torch.ones(1, 1))
    x = torch.tensor([[3.0], [0.5], [-1.0]])
    assert (
        torch.equal(net(x), torch.tensor([[-2.0], [0.0], [0.0]])) and x[2] == -1
    )  # nothing inplace
    assert sum(isinstance(module, nn.ReLU) for module in net.modules()) == 2


def test_relu6_is_a_relu_and_a_cap() -> None:
    net = modified_relu.replace_relus(nn.Sequential(nn.Sequential(nn.ReLU6())), torch.ones(1, 1))
    assert net(torch.tensor([[-1.0], [2.0], [9.0]])).flatten().tolist() == [0.0, 2.0, 6.0]
    assert [type(module) for module in net[0][0]] == [nn.ReLU, modified_relu.ClampAtSix]


def test_a_network_of_separate_relus_is_unchanged() -> None:
    net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Flatten(), nn.LazyLinear(3))
    before = [*net]
    assert modified_relu.replace_relus(net, torch.ones(2, 1, 5, 5)) is net and [*net] == before


def test_what_cannot_be_rewritten_is_an_error() -> None:
    with pytest.raises(
        StageError,
        match=r"ReLUs of Asks are functions, and torch.fx cannot trace it .*write them as",
    ):
        modified_relu.replace_relus(nn.Sequential(Asks()), torch.ones(1, 1))
    with pytest.raises(StageError, match=r"is called more than once; give each call"):
        modified_relu.replace_relus(nn.Sequential(Loop()), torch.ones(1, 1))


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["googlenet", "resnet18", "densenet121", "mobilenet_v2", "inception_v3"]
)
def test_torchvisions_networks_are_rewritten(name: str) -> None:
    """Functional, shared and capped ReLUs: bit-equal outputs, the modules are still there, and the
    guided maps differ.
    """
    more = (
        {"aux_logits": False, "init_weights": False}
        if name in ("googlenet", "inception_v3")
        else {}
    )
    torch.manual_seed(0)
    net = torchvision.models.get_model(name, num_classes=3, **more).eval()
    x = torch.rand(2, 3, 96, 96)
    before, parts = (
        net(x),
        {name for name, _ in net.named_children()} - {"aux1", "aux2", "AuxLogits", "dropout"},
    )
    whole = modified_relu.replace_relus(nn.Sequential(net), x)
    assert torch.equal(whole(x), before)
    assert parts <= {name for name, _ in whole[0].named_children()}
    x.requires_grad_()
    (plain,) = torch.autograd.grad(whole(x)[:, 0].sum(), x)
    guided_map = GuidedBackprop(whole).attribute(x, target=0)
    assert (guided_map - plain).abs().max() > 0.1 * plain.abs().max()
