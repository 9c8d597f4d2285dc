"""Inception v3: GoogLeNet's modules with factorised convolutions and batch normalisation.

Szegedy, Vanhoucke, Ioffe, Shlens, Wojna 2015, "Rethinking the Inception Architecture for Computer
Vision", arXiv:1512.00567, table 1 and figures 5-8; the auxiliary classifier: section 4. The modules
are torchvision's, with its names for the weights.

    stage                        layers                                         output at 299 x 299
    Conv2d_1a, 2a, 2b, maxpool1  conv 3x3 / 2, 3x3, 3x3 same, max pool 3x3 / 2  64 x 73 x 73
    Conv2d_3b, 4a, maxpool2      conv 1x1, 3x3, max pool 3x3 / 2                192 x 35 x 35
    Mixed_5b-d                   3 modules with 5x5 and twice 3x3               256, 288, 288 x 35^2
    Mixed_6a                     conv 3x3 / 2 and max pool side by side         768 x 17 x 17
    Mixed_6b-e                   4 modules with 1x7 and 7x1 (figure 6)          768 x 17 x 17
    Mixed_7a                     conv 3x3 / 2 and max pool side by side         1280 x 8 x 8
    Mixed_7b-c                   2 modules, 1x3 and 3x1 in parallel (fig. 7)    2048 x 8 x 8
    avgpool                      mean over the map, dropout                     2048
    head                         dense                                          1000
    aux, after Mixed_6e          mean pool 5x5 / 3, conv 1x1, conv 5x5, dense   128 x 5 x 5, 768, K

`aux: true`, the default as in the paper, adds the auxiliary classifier, which speaks in training
only and needs 299 pixels: below, its 5x5 convolution has no room.

Differs from the paper, as the published weights do: the stem ends with conv 1x1, 3x3 and a pool
(table 1: three conv 3x3), and Mixed_5b-d keep a branch with a 5x5 (figure 5: two 3x3). Differs from
torchvision: ReLUs are layers, so that explanations can hook them; weights start from N(0, 2 /
fan-in), He et al. 2015 (training on ten classes begins at a cross-entropy of 3.3-3.6, by
torchvision's N(0, .1) at 5.3-9.8; chance is 2.3).
"""

from functools import partial
from typing import Any

from torch import Tensor, nn
from torchvision.models import inception

from models import layers, options
from models.options import Fraction

PAPER = "Szegedy et al. 2015"
LEAST, LEAST_AUX = 75, 299
AUXILIARY = "Mixed_6e"

OPTIONS = {"in_channels": 3, "size": (299, 299), "classes": 1000}
REFERENCE = {
    name: {
        "options": OPTIONS | {"aux": aux},
        "input": (3, 299, 299),
        "trainable": trainable,
        "fixed": fixed,
        "source": "torchvision's Inception3 with and without its head",
    }
    for name, aux, trainable, fixed in (
        ("Inception v3", False, 23_834_568, 34_432),
        ("Inception v3 with auxiliary head", True, 27_161_264, 36_224),
    )
}


class Convolution(nn.Sequential):
    """Return (N, out, H', W'): convolution, batch normalisation, ReLU.

    It is torchvision's block with the ReLU as a layer."""

    def __init__(self, channels: int, out: int, **shape: Any) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, out, bias=False, **shape)
        self.bn = nn.BatchNorm2d(out, eps=1e-3)
        self.relu = nn.ReLU()


MODULES = ("InceptionA", "InceptionB", "InceptionC", "InceptionD", "InceptionE", "InceptionAux")
BLOCKS = [
    Convolution,
    *(partial(getattr(inception, name), conv_block=Convolution) for name in MODULES),
]


def check_options(size: tuple[int, int], aux: bool) -> None:
    """Raise ValueError for images that are too small, with the auxiliary classifier or without."""
    least, cure = (LEAST_AUX, "enlarge size, or set aux: false") if aux else (LEAST, "enlarge size")
    options.require_size("inception3", size, least, cure)


class Inception3(nn.Module):
    """Return logits (N, K) for standardised images (N, C, H, W).

    In training with `aux` a pair with the auxiliary logits."""

    def __init__(
        self,
        *,
        in_channels: int,
        size: tuple[int, int],
        classes: int,
        aux: bool = True,
        dropout: Fraction = 0.5,
    ) -> None:
        """`aux`: with the auxiliary classifier; `dropout`: before the head."""
        super().__init__()
        check_options(size, aux)
        net = inception.Inception3(
            classes, aux, inception_blocks=BLOCKS, init_weights=False, dropout=dropout
        )
        net.Conv2d_1a_3x3 = Convolution(in_channels, 32, kernel_size=3, stride=2)
        self.aux, self.head = net.AuxLogits, net.fc
        stages = {
            name: layer
            for name, layer in net.named_children()
            if layer not in (self.aux, self.head)
        }
        self.features = layers.named(**stages, flatten=nn.Flatten())
        layers.initialise(self, "he")

    def training_only(self) -> list[nn.Module]:
        """Return the auxiliary classifier, as `summary.Trimmed` has it."""
        return [] if self.aux is None else [self.aux]

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        auxiliary = []
        for name, stage in self.features.named_children():
            x = stage(x)
            if name == AUXILIARY and self.aux is not None and self.training:
                auxiliary.append(self.aux(x))
        logits = self.head(x)
        return (logits, *auxiliary) if auxiliary else logits


Model = Inception3
