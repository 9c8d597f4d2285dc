"""Stack: equal convolutions one after the other, to study one technique at a time.

The lecture notes on convolutional networks, "Padding", non-linearities, and stacked filters: three
of 3x3 see as far as one of 7x7 with 27 weights in place of 49 (Simonyan & Zisserman 2015, "Very
deep convolutional networks for large-scale image recognition", arXiv:1409.1556, section 2.3).

    stage      layers                                        output at 28 x 28, kernels [3, 3, 3]
    features   one (pad, conv, activation) for each kernel   16 x 28 x 28
               max pool 2x2, flatten                         3,136
    head       dense                                         10

`padding` chooses the values beyond the border: zeros; symmetric, the image mirrored with its edge
(numpy's name; torch's "reflect" leaves the edge out); circular, the opposite side; or valid, no
border, so that the map shrinks. The defaults are four convolutions of 3x3.
"""

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models import options
from models.options import Positive

PAPER = "lecture notes"
ACTIVATIONS = {"relu": nn.ReLU, "tanh": nn.Tanh, "sigmoid": nn.Sigmoid}

MNIST = {"in_channels": 1, "size": (28, 28), "classes": 10}
REFERENCE = {
    f"stack {' '.join(f'{k}x{k}' for k in kernels)}": {
        "options": MNIST | {"kernels": kernels},
        "input": (1, 28, 28),
        "trainable": count,
        "fixed": 0,
        "source": f"160 + {source} + 31,370",
    }
    for kernels, count, source in (
        ([3, 7], 44_090, "(49 * 16^2 + 16)"),
        ([3, 3, 3, 3], 38_490, "3 * (9 * 16^2 + 16)"),
    )
}


class Pad(nn.Module):
    """Return (N, C, H + 2 border, W + 2 border)."""

    def __init__(self, border: int, kind: str) -> None:
        super().__init__()
        self.border, self.kind = border, kind

    def forward(self, x: Tensor) -> Tensor:
        if self.kind == "circular":
            return F.pad(x, [self.border] * 4, mode="circular")
        for axis in (2, 3):
            size = x.shape[axis]
            before = x.narrow(axis, 0, self.border).flip(axis)
            after = x.narrow(axis, size - self.border, self.border).flip(axis)
            x = torch.cat([before, x, after], axis)
        return x


PADDINGS = {
    "zeros": lambda border: (nn.Identity(), border),
    "valid": lambda border: (nn.Identity(), 0),
    "symmetric": lambda border: (Pad(border, "symmetric"), 0),
    "circular": lambda border: (Pad(border, "circular"), 0),
}


def lost(kernels: Sequence[int], padding: str) -> int:
    """Return the pixels that convolutions without a border take from height and width."""
    return sum(kernel - 1 for kernel in kernels) if padding == "valid" else 0


def check_options(size: tuple[int, int], kernels: Sequence[int], padding: str) -> None:
    """Raise ValueError for kernels without a middle, and for images that they do not fit."""
    if not kernels or any(kernel % 2 == 0 for kernel in kernels):
        needed = f"expected kernels of odd sides, one and more, got {list(kernels)}"
        raise ValueError(f"stack: {needed}; write kernels: [3, 3]")
    options.require_size("stack", size, max(2 + lost(kernels, padding), max(kernels) // 2))


class Stack(nn.Module):
    """Return logits (N, K) for standardised images (N, C, H, W)."""

    def __init__(
        self,
        *,
        in_channels: int,
        size: tuple[int, int],
        classes: int,
        channels: Positive = 16,
        kernels: Sequence[Positive] = (3, 3, 3, 3),
        activation: Literal["relu", "tanh", "sigmoid"] = "relu",
        padding: Literal["zeros", "symmetric", "circular", "valid"] = "zeros",
    ) -> None:
        """`kernels`: the side of each convolution, odd; `activation`: relu, tanh or sigmoid."""
        super().__init__()
        check_options(size, kernels, padding)
        act = options.choose("stack", "activation", activation, ACTIVATIONS)
        pad = options.choose("stack", "padding", padding, PADDINGS)
        steps: list[nn.Module] = []
        for kernel in kernels:
            around, border = pad(kernel // 2)
            steps += [around, nn.Conv2d(in_channels, channels, kernel, padding=border), act()]
            in_channels = channels
        self.features = nn.Sequential(*steps, nn.MaxPool2d(2), nn.Flatten())
        height, width = ((side - lost(kernels, padding)) // 2 for side in size)
        self.head = nn.Linear(channels * height * width, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(x))


Model = Stack
