"""What several architectures share: two layers, initial weights, shapes."""

import copy
from collections import OrderedDict
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models import options

# Keras's defaults in torch's terms: torch's momentum is 1 minus that of Keras, .99.
KERAS_BATCH_NORM: dict[str, Any] = {"eps": 1e-3, "momentum": 0.01}


class LocalResponseNorm(nn.Module):
    """Return (N, C, H, W), each value divided by (k + alpha * sum of squares) ** beta.

    The sum is over n neighbouring channels.

    Krizhevsky, Sutskever, Hinton 2012, section 3.3, with its constants. torch's layer of this name
    divides alpha by n (its alpha is five times the paper's). Written as a sum of slices, so that
    its gradient exports too.
    """

    def __init__(
        self, *, n: int = 5, k: float = 2.0, alpha: float = 1e-4, beta: float = 0.75
    ) -> None:
        super().__init__()
        self.n, self.k, self.alpha, self.beta = n, k, alpha, beta

    def forward(self, x: Tensor) -> Tensor:
        channels, reach = x.shape[1], self.n // 2
        squares = x.to(
            torch.promote_types(x.dtype, torch.float32)
        ).square()  # bf16 would lose them beside k
        squares = F.pad(squares, (0, 0, 0, 0, reach, reach))  # (N, C + n - 1, H, W)
        around = squares[:, :channels]
        for k in range(1, self.n):
            around = around + squares[:, k : k + channels]
        return x / (self.k + self.alpha * around) ** self.beta


class CausalConv1d(nn.Conv1d):
    """Return (N, channels, T) for (N, in_channels, T); step t sees no later step.

    Zeros precede the first step.

    With a stride the last of ceil(T / stride) outputs ends at the last step.
    """

    @property
    def past(self) -> int:
        """How many earlier steps an output sees."""
        return (self.kernel_size[0] - 1) * self.dilation[0]

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(F.pad(x, (self.past - (x.shape[2] - 1) % self.stride[0], 0)))

    def unpadded(self, x: Tensor) -> Tensor:
        """Return the outputs (N, channels, T - past), at stride 1, that see no step before x."""
        return super().forward(x)

    def step(self, x: Tensor, tail: Tensor) -> tuple[Tensor, Tensor]:
        """Return one more step's output (N, channels, 1) for (N, in_channels, 1), and the new tail.

        tail (N, in_channels, past): the steps before it.
        """
        seen = torch.cat([tail, x], 2)
        return super().forward(seen), seen[:, :, 1:]


def initialise(net: nn.Module, rule: str) -> None:
    """Draw every weight of convolutions and dense layers anew, biases 0.

    normal: N(0, .01), as in Krizhevsky et al. 2012, section 5. xavier: Glorot & Bengio 2010, eq.
    16, uniform. he: N(0, 2 / fan-in), He et al. 2015, arXiv:1502.01852, eq. 10, which keeps the
    variance through ReLU layers.
    """
    rules = {
        "normal": lambda w: nn.init.normal_(w, std=0.01),
        "xavier": nn.init.xavier_uniform_,
        "he": lambda w: nn.init.kaiming_normal_(w, nonlinearity="relu"),
    }
    draw = options.choose(type(net).__name__.lower(), "init", rule, rules)
    for layer in net.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            draw(layer.weight)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


def fill_bias(layer: nn.Module, value: float) -> None:
    """Set every bias of a layer to a value."""
    assert isinstance(layer.bias, Tensor)
    nn.init.constant_(layer.bias, value)


def named(**steps: nn.Module | None) -> nn.Sequential:
    """Return the layers in their order under their names, without those that are None."""
    return nn.Sequential(
        OrderedDict((name, layer) for name, layer in steps.items() if layer is not None)
    )


def require_steps(arch: str, x: Tensor, least: int) -> None:
    """Raise ValueError where series (N, T, D) have fewer steps T than the architecture needs."""
    if x.shape[1] < least:
        needed = f"expected at least {least} steps, got {x.shape[1]}"
        raise ValueError(f"{arch}: {needed}; give a longer window")


def feature_shape(features: nn.Module, in_channels: int, size: tuple[int, int]) -> torch.Size:
    """Return (C, H, W) of the feature map, computed on the meta device."""
    shapes_only = copy.deepcopy(features).to("meta").eval()
    with torch.no_grad():
        maps: Tensor = shapes_only(torch.zeros(1, in_channels, *size, device="meta"))
    return maps.shape[1:]
