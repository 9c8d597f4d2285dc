"""VGG: depth from 3x3 convolutions alone. Configuration D is VGG-16, E is VGG-19.

Simonyan & Zisserman 2015, "Very deep convolutional networks for large-scale image recognition",
ICLR, arXiv:1409.1556, table 1.

    stage      layers, configuration D                output at 224 x 224
    features   2 x (conv 3x3, ReLU), max pool 2x2     64 x 112 x 112
               2 x (conv 3x3, ReLU), max pool 2x2     128 x 56 x 56
               3 x (conv 3x3, ReLU), max pool 2x2     256 x 28 x 28
               3 x (conv 3x3, ReLU), max pool 2x2     512 x 14 x 14
               3 x (conv 3x3, ReLU), max pool 2x2     512 x 7 x 7
    head       2 x (dense, ReLU, dropout)             4,096
               dense                                  1,000

The defaults are VGG-16, configuration D, with xavier.

Differs from the paper: the first dense layer is as wide as the map of the entry's images (32 x 32
at least leave one pixel). `batch_norm` (after each convolution) came later. `init`: the paper
trained A from normal weights and began the deeper ones from A, later found xavier enough for all
(section 3.1); normal is Krizhevsky's standard deviation .01 here, the paper prints a variance of
.01. A layer of 512 maps scales its signal by sqrt(9 * 512 / 2) * .01 = .48, by 4.8 at a variance of
.01: neither carries through 16 layers. he, not the paper's, scales by 1.
"""

from typing import Literal

from torch import Tensor, nn

from models import layers, options
from models.options import Fraction

PAPER = "Simonyan & Zisserman 2015"
DENSE = 4096

# Table 1 in its own words, less "conv": kernel size - maps. M is maxpool, LRN as in the table.
TABLE_1 = {
    "A": "3-64 M 3-128 M 3-256 3-256 M 3-512 3-512 M 3-512 3-512 M",
    "A-LRN": "3-64 LRN M 3-128 M 3-256 3-256 M 3-512 3-512 M 3-512 3-512 M",
    "B": "3-64 3-64 M 3-128 3-128 M 3-256 3-256 M 3-512 3-512 M 3-512 3-512 M",
    "C": "3-64 3-64 M 3-128 3-128 M 3-256 3-256 1-256 M 3-512 3-512 1-512 M 3-512 3-512 1-512 M",
    "D": "3-64 3-64 M 3-128 3-128 M 3-256 3-256 3-256 M 3-512 3-512 3-512 M 3-512 3-512 3-512 M",
    "E": "3-64 3-64 M 3-128 3-128 M 3-256 3-256 3-256 3-256 M "
    "3-512 3-512 3-512 3-512 M 3-512 3-512 3-512 3-512 M",
}
COUNTS = {"A": 132_863_336, "B": 133_047_848, "C": 133_638_952, "D": 138_357_544, "E": 143_667_240}
COUNTS["A-LRN"] = COUNTS["A"]
BATCH_NORM = {
    "A": 5_504,
    "B": 5_888,
    "D": 8_448,
    "E": 11_008,
}  # scales and shifts; as many moving means and variances

IMAGE = {"in_channels": 3, "size": (224, 224), "classes": 1000}
REFERENCE = {
    f"VGG {configuration}{' batch norm' if added else ''}": {
        "options": IMAGE | {"configuration": configuration, "batch_norm": added > 0},
        "input": (3, 224, 224),
        "trainable": COUNTS[configuration] + added,
        "fixed": added,
        "source": "sum over table 1; table 2 of the paper has them in millions",
    }
    for configuration, added in [*((c, 0) for c in TABLE_1), *BATCH_NORM.items()]
}


def convolutions(in_channels: int, column: str, batch_norm: bool) -> nn.Sequential:
    """Return the layers of one column of table 1, from (N, in_channels, H, W) to (N, 512 * H / 32 *
    W / 32).
    """
    steps: list[nn.Module] = []
    for word in column.split():
        if word == "M":
            steps.append(nn.MaxPool2d(2))
        elif word == "LRN":
            steps.append(layers.LocalResponseNorm())
        else:
            kernel_size, maps = map(int, word.split("-"))
            steps.append(nn.Conv2d(in_channels, maps, kernel_size, padding=kernel_size // 2))
            steps += [nn.BatchNorm2d(maps), nn.ReLU()] if batch_norm else [nn.ReLU()]
            in_channels = maps
    return nn.Sequential(*steps, nn.Flatten())


def weights_from(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return torchvision's weights of the same configuration under the keys of `Vgg`; they fit at
    224 x 224.
    """
    return {key.replace("classifier.", "head."): tensor for key, tensor in state.items()}


def check_options(size: tuple[int, int]) -> None:
    """Raise ValueError for images that leave no pixel after five pools."""
    options.require_size("vgg", size, 32)


class Vgg(nn.Module):
    """Return logits (N, K) for standardised images (N, C, H, W)."""

    def __init__(
        self,
        *,
        in_channels: int,
        size: tuple[int, int],
        classes: int,
        configuration: Literal["A", "A-LRN", "B", "C", "D", "E"] = "D",
        batch_norm: bool = False,
        dropout: Fraction = 0.5,
        init: Literal["normal", "xavier", "he"] = "xavier",
    ) -> None:
        """`configuration`: a column of table 1; `dropout`: probability of dropping a unit of the
        two dense layers.
        """
        super().__init__()
        column = options.choose("vgg", "configuration", configuration, TABLE_1)
        check_options(size)
        self.features = convolutions(in_channels, column, batch_norm)
        (units,) = layers.feature_shape(self.features, in_channels, size)
        self.head = nn.Sequential(
            *(nn.Linear(units, DENSE), nn.ReLU(), nn.Dropout(dropout)),
            *(nn.Linear(DENSE, DENSE), nn.ReLU(), nn.Dropout(dropout)),
            nn.Linear(DENSE, classes),
        )
        layers.initialise(self, init)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(x))


Model = Vgg
