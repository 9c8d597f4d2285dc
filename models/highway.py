"""Highway network: gates let a signal pass a layer unchanged, so that a hundred layers still train.

Srivastava, Greff, Schmidhuber 2015, "Highway networks", arXiv:1505.00387, and "Training very deep
networks", NIPS 28, arXiv:1507.06228: eq. 3, section 2.2 (gate bias), section 3.1 (dense) and
section 3.2 (convolutions on MNIST).

    stage                 layers                               output at 28 x 28
    features   "dense"    flatten, dense, activation           50
                          9 highway layers                     50
               "conv"     conv 3x3, activation                 16 x 28 x 28
                          2 highway layers, max pool 2x2       16 x 14 x 14
                          3 highway layers, max pool 2x2       16 x 7 x 7
                          3 highway layers, max pool 2x2       16 x 3 x 3
                          flatten                              144
    head                  dense                                10

A highway layer is y = H(x) T(x) + x (1 - T(x)): H is the activation of a dense layer or of a 3x3
convolution, T the sigmoid of another. `gated: false` makes plain layers, the paper's comparison, as
large at width 71 (71^2 + 71 = 5,112) as highway layers at width 50 (2 (50^2 + 50) = 5,100). The
defaults are the dense network of ten layers.

Differs from the paper: it gives the convolutions' number (9 with the stem, so `depth: 8`) and width
(16, 32), not the pools; three of 2x2 and a dense head on what they leave make 38,730 and 151,178
parameters, its 39 K and 151 K. It drew the activation and the gates' bias for every run; here they
are options (bias: -1 to -4, the deeper the lower).
"""

import math
from collections.abc import Callable
from typing import Literal

from torch import Tensor, nn

from models import layers, options
from models.options import Positive

PAPER = "Srivastava et al. 2015"
ACTIVATIONS = {"relu": nn.ReLU, "tanh": nn.Tanh}

MNIST = {"in_channels": 1, "size": (28, 28), "classes": 10}
REFERENCE = {
    name: {
        "options": MNIST
        | dict(zip(("kind", "depth", "width", "activation", "gated"), options, strict=True)),
        "input": (1, 28, 28),
        "trainable": count,
        "fixed": 0,
        "source": source,
    }
    for name, options, count, source in (
        (
            "highway 10",
            ("dense", 9, 50, "tanh", True),
            85_660,
            "39,250 + 9 * 2 * (50^2 + 50) + 510",
        ),
        ("plain 10", ("dense", 9, 71, "tanh", False), 102_463, "55,735 + 9 * (71^2 + 71) + 720"),
        (
            "highway conv 16",
            ("conv", 8, 16, "relu", True),
            38_730,
            "160 + 8 * 2 * (9 * 16^2 + 16) + 1,450",
        ),
        (
            "highway conv 32",
            ("conv", 8, 32, "relu", True),
            151_178,
            "320 + 8 * 2 * (9 * 32^2 + 32) + 2,890",
        ),
    )
}


class Highway(nn.Module):
    """Return H(x) T(x) + x (1 - T(x)), shaped as x (1507.06228, eq. 3); `layer` makes the affine
    map of each.
    """

    def __init__(self, layer: Callable[[], nn.Module], activation: nn.Module) -> None:
        super().__init__()
        self.gate = nn.Sequential(
            layer(), nn.Sigmoid()
        )  # first, so that the last convolution is one of H
        self.transform = nn.Sequential(layer(), activation)

    def forward(self, x: Tensor) -> Tensor:
        t = self.gate(x)
        return self.transform(x) * t + x * (1 - t)


def dense(
    in_channels: int, size: tuple[int, int], width: int
) -> tuple[nn.Module, Callable[[], nn.Module]]:
    """Return the first affine map, (N, C, H, W) to (N, width), and a maker of all others."""
    first = nn.Sequential(nn.Flatten(), nn.Linear(in_channels * math.prod(size), width))
    return first, lambda: nn.Linear(width, width)


def conv(
    in_channels: int, size: tuple[int, int], width: int
) -> tuple[nn.Module, Callable[[], nn.Module]]:
    """Return the first affine map, (N, C, H, W) to (N, width, H, W), and a maker of all others."""
    first = nn.Conv2d(in_channels, width, kernel_size=3, padding=1)
    return first, lambda: nn.Conv2d(width, width, kernel_size=3, padding=1)


POOLS = {"dense": 0, "conv": 3}  # pools of 2x2, which part the layers


def check_options(size: tuple[int, int], kind: str, depth: int) -> None:
    """Raise ValueError where the pools have too few layers or pixels."""
    pools = options.choose("highway", "kind", kind, POOLS)
    options.require_size("highway", size, 2**pools)
    if depth < max(1, pools):
        raise ValueError(
            f"highway: expected depth {max(1, pools)} or more, got {depth}; add layers"
        )


class HighwayNetwork(nn.Module):
    """Return logits (N, K) for standardised images (N, C, H, W)."""

    def __init__(
        self,
        *,
        in_channels: int,
        size: tuple[int, int],
        classes: int,
        kind: Literal["dense", "conv"] = "dense",
        depth: Positive = 9,
        width: Positive = 50,
        activation: Literal["relu", "tanh"] = "tanh",
        gated: bool = True,
        gate_bias: float = -1.0,
    ) -> None:
        """`depth`: highway layers, after a plain one; `gated`: false makes all plain; `gate_bias`:
        where T's starts.
        """
        super().__init__()
        check_options(size, kind, depth)
        affine, pools = {"dense": dense, "conv": conv}[kind], POOLS[kind]
        act = options.choose("highway", "activation", activation, ACTIVATIONS)
        first, another = affine(in_channels, size, width)
        steps = [first, act()]
        for k in range(2, depth + 2):  # the k-th layer of depth + 1
            steps.append(Highway(another, act()) if gated else nn.Sequential(another(), act()))
            if pools * k % (depth + 1) < pools:  # ends one of `pools` equal parts
                steps.append(nn.MaxPool2d(2))
        self.features = nn.Sequential(*steps, nn.Flatten())
        (units,) = layers.feature_shape(self.features, in_channels, size)
        self.head = nn.Linear(units, classes)
        layers.initialise(self, "he")  # 1507.06228, section 3
        for layer in self.modules():
            if isinstance(layer, Highway):
                layers.fill_bias(layer.gate[0], gate_bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(x))


Model = HighwayNetwork
