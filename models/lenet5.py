"""LeNet-5: the network for handwritten characters of 1998, as published and as taught today.

LeCun, Bottou, Bengio, Haffner 1998, "Gradient-based learning applied to document recognition",
Proceedings of the IEEE 86(11), pp. 2278-2324, section II.B, figure 2 and table I; squashing
function: appendix A.

    stage      layers                                                      output at 32 x 32
    features   C1: conv 5x5, squash                                        6 x 28 x 28
               S2: sum of 2x2, trainable coefficient and bias, squash      6 x 14 x 14
               C3: conv 5x5, 60 of the 96 pairs of maps connected, squash  16 x 10 x 10
               S4: as S2                                                   16 x 5 x 5
               C5: conv 5x5 (all that is left of the map), squash          120
               F6: dense, squash                                           84
    head       distances to fixed 7 x 12 bitmaps of the classes            10

`full_c3`, `subsampling: average`, `output: linear` make the network that is taught as LeNet-5
today: every pair of C3 connected, plain average pools, a dense output; 61,706 parameters in place
of 60,000. The defaults are the paper's network.

Differs from the paper: the loss is the caller's cross-entropy over the ten distances (the paper's
eq. 9 adds a constant rubbish class); weights start from torch's U(-1, 1) / sqrt(fan-in) (the
paper's U(-2.4, 2.4) / fan-in gave .961-.967 where this gave .967-.972); coefficients start as a
plain average; the bitmaps are drawn here, in the paper's format; C5 shrinks with the input (16
pixels at least), so that 28 pixels need no border.

Expected on scikit-learn's digits, enlarged to 32 x 32 (1,137 training images, batch 32, 20 epochs,
test accuracy of 3 seeds, one core): .967-.972 (Adam 2e-3, cosine, 4 s); .983-.989 with rotation by
10 degrees and shift by a tenth (Adam 5e-3, one-cycle, 5 s).
"""

import random
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models import layers, options

PAPER = "LeCun et al. 1998"
CODE_WIDTH = 7 * 12  # units of F6 = pixels of a bitmap
CODE_SEED = 1998  # for other than ten classes
MAPS = {"C1": 6, "C3": 16, "C5": 120}

# Table I of the paper: row = map of S2, column = map of C3.
C3_TABLE = """
    X . . . X X X . . X X X X . X X
    X X . . . X X X . . X X X X . X
    X X X . . . X X X . . X . X X X
    . X X X . . X X X X . . X . X X
    . . X X X . . X X X X . X X . X
    . . . X X X . . X X X X . X X X
"""

# Targets of F6 for the digits 0-4 and 5-9: # is +1, . is -1.
BITMAPS = """
    ..###..  ...#...  .#####.  .#####.  ....##.
    .##.##.  ..##...  ##...##  ##...##  ...###.
    ##...##  .###...  .....##  .....##  ..####.
    ##...##  ...#...  .....##  .....##  .##.##.
    ##...##  ...#...  ....##.  ....##.  ##..##.
    ##...##  ...#...  ...##..  ..###..  ##..##.
    ##...##  ...#...  ..##...  ....##.  #######
    ##...##  ...#...  .##....  .....##  #######
    ##...##  ...#...  ##.....  .....##  ....##.
    ##...##  ...#...  ##.....  ##...##  ....##.
    .##.##.  ...#...  #######  ##...##  ....##.
    ..###..  .#####.  #######  .#####.  ....##.

    #######  ..####.  #######  .#####.  .#####.
    #######  .##....  #######  ##...##  ##...##
    ##.....  ##.....  .....##  ##...##  ##...##
    ##.....  ##.....  .....##  ##...##  ##...##
    ######.  ##.....  ....##.  .##.##.  ##...##
    .#####.  ######.  ....##.  ..###..  .######
    .....##  ##...##  ...##..  .##.##.  ..#####
    .....##  ##...##  ...##..  ##...##  .....##
    .....##  ##...##  ..##...  ##...##  .....##
    ##...##  ##...##  ..##...  ##...##  .....##
    ##...##  ##...##  .##....  ##...##  ....##.
    .#####.  .#####.  .##....  .#####.  .####..
"""

IMAGE = {"in_channels": 1, "size": (32, 32), "classes": 10}
REFERENCE = {
    "LeNet-5": {
        "options": IMAGE,
        "input": (1, 32, 32),
        "trainable": 60_000,
        "fixed": 840,  # the bitmaps
        "source": "156 + 12 + 1,516 + 32 + 48,120 + 10,164",
    },
    "LeNet-5 modern": {
        "options": IMAGE | {"full_c3": True, "subsampling": "average", "output": "linear"},
        "input": (1, 32, 32),
        "trainable": 61_706,
        "fixed": 0,
        "source": "156 + 2,416 + 48,120 + 10,164 + 850",
    },
}


class Squash(nn.Tanh):
    """Return 1.7159 tanh(2x / 3), elementwise: it maps 1 to 1 and -1 to -1 (the paper's appendix
    A).
    """

    def forward(self, x: Tensor) -> Tensor:
        return 1.7159 * super().forward(2 / 3 * x)


class Subsample(nn.Module):
    """Return maps (N, C, H / 2, W / 2): coefficient * (sum of the 2 x 2 window) + bias, by map."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.coefficient = nn.Parameter(torch.full((channels, 1, 1), 0.25))
        self.bias = nn.Parameter(torch.zeros(channels, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return self.coefficient * (4 * F.avg_pool2d(x, 2)) + self.bias


def connections() -> list[tuple[int, int]]:
    """Return the 60 connected pairs (map of C3, map of S2) of table I, by map of C3."""
    rows = [line.split() for line in C3_TABLE.split("\n") if line.strip()]
    return [
        (column, row)
        for column in range(MAPS["C3"])
        for row in range(MAPS["C1"])
        if rows[row][column] == "X"
    ]


class SparseC3(nn.Module):
    """Return maps (N, 16, H - 4, W - 4) for (N, 6, H, W).

    Each 5 x 5 kernel joins one connected pair of table I."""

    placement: Tensor

    def __init__(self) -> None:
        super().__init__()
        pairs = connections()
        self.weight = nn.Parameter(torch.empty(len(pairs), 5 * 5))  # (60, 25)
        self.bias = nn.Parameter(torch.empty(MAPS["C3"]))
        # A constant 0/1 matrix puts the 60 kernels into the dense one, so the exporter folds this
        # into a plain Conv.
        placement = torch.zeros(MAPS["C3"] * MAPS["C1"], len(pairs))
        for k, (out_map, in_map) in enumerate(pairs):
            placement[out_map * MAPS["C1"] + in_map, k] = 1
        self.register_buffer("placement", placement, persistent=False)
        self.reset_parameters([out_map for out_map, _ in pairs])

    def reset_parameters(self, out_maps: list[int]) -> None:
        """Draw from U(-1, 1) / sqrt(fan-in), torch's rule for a Conv2d, with each map's fan-in."""
        fan_in = [25 * out_maps.count(out_map) for out_map in range(MAPS["C3"])]
        with torch.no_grad():
            for weight, out_map in zip(self.weight, out_maps, strict=True):
                weight.uniform_(-(fan_in[out_map] ** -0.5), fan_in[out_map] ** -0.5)
            for bias, n in zip(self.bias, fan_in, strict=True):
                bias.uniform_(-(n**-0.5), n**-0.5)

    def forward(self, x: Tensor) -> Tensor:
        kernel = (self.placement @ self.weight).view(MAPS["C3"], MAPS["C1"], 5, 5)
        return F.conv2d(x, kernel, self.bias)


def class_codes(classes: int) -> Tensor:
    """Return the targets of F6, (K, 84), each +1 or -1.

    They are bitmaps of the digits for ten classes, else random codes."""
    if classes == 10:
        bands = [
            [line.split() for line in band.split("\n")]
            for band in BITMAPS.strip("\n").split("\n\n")
        ]
        bitmaps = ["".join(row[column] for row in band) for band in bands for column in range(5)]
        return torch.tensor(
            [[1.0 if pixel == "#" else -1.0 for pixel in bitmap] for bitmap in bitmaps]
        )
    generator = random.Random(CODE_SEED)
    return torch.tensor(
        [[generator.choice([-1.0, 1.0]) for _ in range(CODE_WIDTH)] for _ in range(classes)]
    )


class Rbf(nn.Module):
    """Return logits (N, K) for F6 (N, 84): minus the squared distance to each class's code (eq. 7),
    times SCALE.
    """

    # The paper reads a distance as minus the log-likelihood of a Gaussian around the code: SCALE =
    # 1 / (2 * variance). On digits .05 gave the least validation loss: .12-.13, against .13-.16 at
    # .1, .18 at .03 and .20 at 1.
    SCALE = 0.05
    codes: Tensor

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.register_buffer("codes", class_codes(classes))

    def forward(self, x: Tensor) -> Tensor:
        distance = (x.unsqueeze(1) - self.codes).square().sum(dim=2)  # (N, K)
        return -self.SCALE * distance


SUBSAMPLING = {"trainable": Subsample, "average": lambda channels: nn.AvgPool2d(2)}
OUTPUT = {"rbf": Rbf, "linear": lambda classes: nn.Linear(CODE_WIDTH, classes)}


def check_options(size: tuple[int, int]) -> None:
    """Raise ValueError for images that leave C5 no map."""
    options.require_size("lenet5", size, 16)


class LeNet5(nn.Module):
    """Return logits (N, K) for standardised images (N, C, H, W)."""

    def __init__(
        self,
        *,
        in_channels: int,
        size: tuple[int, int],
        classes: int,
        full_c3: bool = False,
        subsampling: Literal["trainable", "average"] = "trainable",
        output: Literal["rbf", "linear"] = "rbf",
    ) -> None:
        """`full_c3`: connect every pair of C3; `subsampling`: "trainable" or "average"; `output`:
        "rbf" or "linear".
        """
        super().__init__()
        check_options(size)
        pool = options.choose("lenet5", "subsampling", subsampling, SUBSAMPLING)
        head = options.choose("lenet5", "output", output, OUTPUT)
        height, width = (((pixels - 4) // 2 - 4) // 2 for pixels in size)  # after C1, S2, C3, S4
        self.features = layers.named(
            c1=nn.Conv2d(in_channels, MAPS["C1"], kernel_size=5),
            squash1=Squash(),
            s2=pool(MAPS["C1"]),
            squash2=Squash(),
            c3=nn.Conv2d(MAPS["C1"], MAPS["C3"], kernel_size=5) if full_c3 else SparseC3(),
            squash3=Squash(),
            s4=pool(MAPS["C3"]),
            squash4=Squash(),
            c5=nn.Conv2d(MAPS["C3"], MAPS["C5"], kernel_size=(height, width)),
            squash5=Squash(),
            flatten=nn.Flatten(),
            f6=nn.Linear(MAPS["C5"], CODE_WIDTH),
            squash6=Squash(),
        )
        self.head = head(classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(x))


Model = LeNet5
