"""Inception-ResNet-v2: Inception modules as residual functions, 40 of them, scaled down.

Szegedy, Ioffe, Vanhoucke, Alemi 2016, "Inception-v4, Inception-ResNet and the Impact of Residual
Connections on Learning", arXiv:1602.07261, figures 15-20; scaling of the residuals: section 3.3.

    stage     layers                                                       output at 299 x 299
    stem      conv 3x3 / 2, 3x3, 3x3 same, max pool 3x3 / 2                64 x 73 x 73
              conv 1x1, 3x3, max pool 3x3 / 2                              192 x 35 x 35
    mixed5b   Inception module with 1x1, 5x5, twice 3x3, mean pool         320 x 35 x 35
    block35   10 residual modules, scale .17 (Inception-ResNet-A)          320 x 35 x 35
    mixed6a   conv 3x3 / 2 and max pool side by side (Reduction-A)         1088 x 17 x 17
    block17   20 residual modules, scale .10 (Inception-ResNet-B)          1088 x 17 x 17
    mixed7a   conv 3x3 / 2 and max pool side by side (Reduction-B)         2080 x 8 x 8
    block8    9 residual modules, scale .20, and one, scale 1, no ReLU     2080 x 8 x 8
    last      conv 1x1                                                     1536 x 8 x 8
    pool      mean over the map, dropout                                   1536
    head      dense                                                        1000

Differs from the paper: it is the network of the published weights (TensorFlow's and timm's
inception_resnet_v2). The stem is Inception v3's, then mixed5b (figure 3 has two-way splits and ends
with 384 channels); 10, 20 and 10 blocks (figure 15: 5, 10 and 5) of 320, 1088 and 2080 channels
(figures 16, 17, 19: 384, 1154, 2048); a last 1x1 convolution; the scale differs from stage to stage
(the paper: .1 to .3). Weights start from N(0, 2 / fan-in), He et al. 2015.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from models import layers, options
from models.options import Fraction

PAPER = "Szegedy et al. 2016"
LEAST = 75  # the last map has 1 x 1 pixel

REFERENCE = {
    "Inception-ResNet-v2": {
        "options": {"in_channels": 3, "size": (299, 299), "classes": 1000},
        "input": (3, 299, 299),
        "trainable": 55_843_464,
        "fixed": 60_544,
        "source": "timm 1.0.31, inception_resnet_v2",
    },
}

# A convolution is (channels, kernel), which keeps height and width, or (channels, kernel, stride),
# without a border.
Plan = list[tuple[Any, ...] | str]
POOLS: dict[str, Callable[[], nn.Module]] = {
    "max": lambda: nn.MaxPool2d(3, stride=2),
    "mean": lambda: nn.AvgPool2d(3, 1, 1, count_include_pad=False),
}
STEM: Plan = [(32, 3, 2), (32, 3, 1), (64, 3), "max", (80, 1), (192, 3, 1), "max"]

# Stages in order. Side by side: the plans of the branches. Residual: how many blocks, scale, the
# plans of a block.
STAGES: dict[str, list[Plan] | tuple[int, float, list[Plan]]] = {
    "mixed5b": [[(96, 1)], [(48, 1), (64, 5)], [(64, 1), (96, 3), (96, 3)], ["mean", (64, 1)]],
    "block35": (10, 0.17, [[(32, 1)], [(32, 1), (32, 3)], [(32, 1), (48, 3), (64, 3)]]),
    "mixed6a": [[(384, 3, 2)], [(256, 1), (256, 3), (384, 3, 2)], ["max"]],
    "block17": (20, 0.10, [[(192, 1)], [(128, 1), (160, (1, 7)), (192, (7, 1))]]),
    "mixed7a": [
        [(256, 1), (384, 3, 2)],
        [(256, 1), (288, 3, 2)],
        [(256, 1), (288, 3), (320, 3, 2)],
        ["max"],
    ],
    "block8": (9, 0.20, [[(192, 1)], [(192, 1), (224, (1, 3)), (256, (3, 1))]]),
}


def chain(channels: int, plan: Plan) -> nn.Sequential:
    """Return the layers of a plan: pools; convolution, batch normalisation, ReLU."""
    result = nn.Sequential()
    for step in plan:
        if isinstance(step, str):
            result.append(POOLS[step]())
            continue
        out, kernel, *stride = step
        border: int | str = 0 if stride else "same"
        conv = nn.Conv2d(channels, out, kernel, stride[0] if stride else 1, border, bias=False)
        result.extend([conv, nn.BatchNorm2d(out, eps=1e-3), nn.ReLU()])
        channels = out
    return result


class Branches(nn.ModuleList):
    """Return (N, out, H', W'): what each plan makes of the input, concatenated."""

    def __init__(self, channels: int, plans: list[Plan]) -> None:
        super().__init__(chain(channels, plan) for plan in plans)
        self.out = sum(channels if plan == ["max"] else int(plan[-1][0]) for plan in plans)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([branch(x) for branch in self], 1)


class Residual(nn.Module):
    """Return ReLU(x + scale * F(x)), (N, channels, H, W).

    F is branches and a 1x1 convolution back to the channels of x."""

    def __init__(
        self, channels: int, scale: float, plans: list[Plan], *, relu: bool = True
    ) -> None:
        super().__init__()
        self.scale, self.branches = scale, Branches(channels, plans)
        self.project = nn.Conv2d(self.branches.out, channels, kernel_size=1)
        self.relu = nn.ReLU() if relu else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.relu(x + self.scale * self.project(self.branches(x)))


def check_options(size: tuple[int, int]) -> None:
    """Raise ValueError for images that are too small for the three reductions."""
    options.require_size("inceptionresnet", size, LEAST)


class InceptionResNet(nn.Module):
    """Return logits (N, K) for standardised images (N, C, H, W)."""

    def __init__(
        self, *, in_channels: int, size: tuple[int, int], classes: int, dropout: Fraction = 0.2
    ) -> None:
        """`dropout`: probability of dropping a value before the head."""
        super().__init__()
        check_options(size)
        stages: dict[str, nn.Module] = {"stem": chain(in_channels, STEM)}
        channels = 192
        for name, stage in STAGES.items():
            if isinstance(stage, list):
                stages[name] = branches = Branches(channels, stage)
                channels = branches.out
            else:
                blocks, scale, plans = stage
                block8 = nn.Sequential(*(Residual(channels, scale, plans) for _ in range(blocks)))
                stages[name] = block8  # block8 after the loop: the last stage
        block8.append(Residual(channels, 1, plans, relu=False))
        stages |= {
            "last": chain(channels, [(1536, 1)]),
            "pool": nn.AdaptiveAvgPool2d(1),
            "flatten": nn.Flatten(),
        }
        self.features = layers.named(**stages, drop=nn.Dropout(dropout))
        self.head = nn.Linear(1536, classes)
        layers.initialise(self, "he")

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(x))


Model = InceptionResNet
