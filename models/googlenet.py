"""GoogLeNet: filters of several sizes side by side, 22 layers with a ninth of AlexNet's parameters.

Szegedy, Liu, Jia, Sermanet, Reed, Anguelov, Erhan, Vanhoucke, Rabinovich 2014, "Going deeper with
convolutions", arXiv:1409.4842, table 1 and figure 3; auxiliary classifiers: section 5; local
response normalisation with the constants of Krizhevsky et al. 2012.

    stage          layers                                                   output at 224 x 224
    stem           conv 7x7 / 2, max pool 3x3 / 2, LRN                      64 x 56 x 56
                   conv 1x1, conv 3x3, LRN, max pool 3x3 / 2                192 x 28 x 28
    inception3a-b  per module, concatenated: conv 1x1; conv 1x1, conv 3x3;  256, 480 x 28 x 28
    inception4a-e  conv 1x1, conv 5x5; max pool 3x3 / 1, conv 1x1           512, ..., 832 x 14 x 14
    inception5a-b  (before 4a and 5a: max pool 3x3 / 2)                     832, 1024 x 7 x 7
    pool           mean over the map, dropout                               1024
    head           dense                                                    1000
    aux, 4a and d  mean pool 5x5 / 3, conv 1x1, dense, dropout .7, dense    128 x 4 x 4, 1024, 1000

`module: naive` is figure 2(a): no 1x1 convolution before the 3x3 and 5x5 ones or after the pool, so
that a module passes on all channels it got and the depth grows to 4,944. `aux: true` adds the two
classifiers, which speak in training only; train.aux_weight .3 is the paper's. The defaults are the
paper's network with both; below 79 pixels set `aux: false`.

Differs from the paper: the last mean is over the whole map (7 x 7 at 224, as in the paper), so that
inputs of 31 pixels and more fit; the auxiliary dense layer is sized by the input's map, 79 pixels
at least; weights start as `init` says (the paper is silent; `he` keeps the signal through 22
layers).
"""

from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models import layers, options
from models.options import Fraction

PAPER = "Szegedy et al. 2014"
LEAST, LEAST_AUX = 31, 79  # the last pool has 2 x 2 pixels, and the auxiliary mean pool 5 x 5
AUXILIARY = ("inception4a", "inception4d")

# Table 1, columns "#1x1" to "pool proj": 1x1; 3x3 reduce, 3x3; 5x5 reduce, 5x5; pool projection.
TABLE_1 = {
    "3a": (64, 96, 128, 16, 32, 32),
    "3b": (128, 128, 192, 32, 96, 64),
    "4a": (192, 96, 208, 16, 48, 64),
    "4b": (160, 112, 224, 24, 64, 64),
    "4c": (128, 128, 256, 24, 64, 64),
    "4d": (112, 144, 288, 32, 64, 64),
    "4e": (256, 160, 320, 32, 128, 128),
    "5a": (256, 160, 320, 32, 128, 128),
    "5b": (384, 192, 384, 48, 128, 128),
}


def _reference(module: str, aux: bool, trainable: int, source: str) -> dict[str, Any]:
    image = {"in_channels": 3, "size": (224, 224), "classes": 1000}
    return {
        "options": image | {"module": module, "aux": aux},
        "input": (3, 224, 224),
        "trainable": trainable,
        "fixed": 0,
        "source": source,
    }


REFERENCE = {
    "GoogLeNet": _reference("reduced", False, 6_998_552, "sum over table 1"),
    "GoogLeNet with auxiliary heads": _reference(
        "reduced", True, 13_378_280, "table 1 and two heads of section 5"
    ),
    "GoogLeNet naive": _reference(
        "naive", False, 97_526_008, "table 1 without its reduce and pool proj columns"
    ),
}


def convolutions(channels: int, *plan: tuple[int, int]) -> nn.Sequential:
    """Return a convolution and a ReLU for each (out, kernel): (N, last out, H, W)."""
    chain = nn.Sequential()
    for out, kernel in plan:
        chain.extend([nn.Conv2d(channels, out, kernel, padding=kernel // 2), nn.ReLU()])
        channels = out
    return chain


class DepthConcat(nn.Module):
    """Return the maps joined along channels, (N, sum of C, max H, max W), with borders of zeros.

    Where the difference is odd, the further row or column of zeros is at the bottom or right.
    """

    def forward(self, *maps: Tensor) -> Tensor:
        height, width = (max(x.shape[k] for x in maps) for k in (2, 3))
        return torch.cat(
            [x if x.shape[2:] == (height, width) else self.padded(x, height, width) for x in maps],
            1,
        )

    @staticmethod
    def padded(x: Tensor, height: int, width: int) -> Tensor:
        rows, columns = height - x.shape[2], width - x.shape[3]
        return F.pad(x, (columns // 2, columns - columns // 2, rows // 2, rows - rows // 2))


class Inception(nn.Module):
    """Return (N, out, H, W): the branches of figure 2 for one row of table 1, concatenated."""

    def __init__(self, channels: int, widths: tuple[int, ...], *, reduced: bool) -> None:
        super().__init__()
        n1, reduce3, n3, reduce5, n5, projection = widths
        self.branches = nn.ModuleList(
            [
                convolutions(channels, (n1, 1)),
                convolutions(channels, *[(reduce3, 1)] * reduced, (n3, 3)),
                convolutions(channels, *[(reduce5, 1)] * reduced, (n5, 5)),
                nn.Sequential(
                    nn.MaxPool2d(3, 1, padding=1),
                    *convolutions(channels, *[(projection, 1)] * reduced),
                ),
            ]
        )
        self.concat = DepthConcat()
        self.out = n1 + n3 + n5 + (projection if reduced else channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.concat(*[branch(x) for branch in self.branches])


def auxiliary_head(channels: int, height: int, width: int, classes: int) -> nn.Sequential:
    """Return the layers from (N, channels, height, width) to logits (N, K) of section 5."""
    pooled = ((height - 5) // 3 + 1) * ((width - 5) // 3 + 1)
    dense = [nn.Linear(128 * pooled, 1024), nn.ReLU(), nn.Dropout(0.7), nn.Linear(1024, classes)]
    return nn.Sequential(
        nn.AvgPool2d(5, stride=3), *convolutions(channels, (128, 1)), nn.Flatten(), *dense
    )


def check_options(size: tuple[int, int], aux: bool) -> None:
    """Raise ValueError for images that are too small, with auxiliary classifiers or without."""
    least, cure = (LEAST_AUX, "enlarge size, or set aux: false") if aux else (LEAST, "enlarge size")
    options.require_size("googlenet", size, least, cure)


class GoogLeNet(nn.Module):
    """Return logits (N, K) for standardised images (N, C, H, W).

    In training with `aux` a tuple with the logits of both auxiliary classifiers."""

    def __init__(
        self,
        *,
        in_channels: int,
        size: tuple[int, int],
        classes: int,
        module: Literal["reduced", "naive"] = "reduced",
        aux: bool = True,
        dropout: Fraction = 0.4,
        init: Literal["he", "normal", "xavier"] = "he",
    ) -> None:
        """`module`: reduced or naive; `dropout`: before the head; `init`: normal, xavier or he."""
        super().__init__()
        check_options(size, aux)
        reduced = options.choose("googlenet", "module", module, {"reduced": True, "naive": False})
        self.features, self.aux = nn.Sequential(), nn.ModuleDict()
        stem = [
            nn.Conv2d(in_channels, 64, 7, stride=2, padding=3),
            nn.ReLU(),
            nn.MaxPool2d(3, 2, ceil_mode=True),
        ]
        stem += [
            layers.LocalResponseNorm(),
            *convolutions(64, (64, 1), (192, 3)),
            layers.LocalResponseNorm(),
        ]
        self.features.add_module("stem", nn.Sequential(*stem))
        self.features.add_module("pool2", nn.MaxPool2d(3, 2, ceil_mode=True))
        channels = 192
        for name, widths in TABLE_1.items():
            if name in ("4a", "5a"):
                self.features.add_module(
                    f"pool{int(name[0]) - 1}", nn.MaxPool2d(3, 2, ceil_mode=True)
                )
            block = Inception(channels, widths, reduced=reduced)
            self.features.add_module(f"inception{name}", block)
            channels = block.out
            if aux and f"inception{name}" in AUXILIARY:
                maps, height, width = layers.feature_shape(self.features, in_channels, size)
                self.aux[f"inception{name}"] = auxiliary_head(maps, height, width, classes)
        self.features.add_module("pool", nn.AdaptiveAvgPool2d(1))
        self.features.add_module("flatten", nn.Flatten())
        self.features.add_module("drop", nn.Dropout(dropout))
        self.head = nn.Linear(channels, classes)
        layers.initialise(self, init)

    def training_only(self) -> list[nn.Module]:
        """Return the auxiliary classifiers, as `summary.Trimmed` has it."""
        return [self.aux]

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, ...]:
        auxiliary = []
        for name, stage in self.features.named_children():
            x = stage(x)
            if self.training and name in self.aux:
                auxiliary.append(self.aux[name](x))
        logits = self.head(x)
        return (logits, *auxiliary) if auxiliary else logits


Model = GoogLeNet
