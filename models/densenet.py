"""DenseNet: each layer of a block gets the maps of all layers before it, concatenated.

Huang, Liu, van der Maaten, Weinberger 2016, "Densely Connected Convolutional Networks",
arXiv:1608.06993, table 1. The blocks are torchvision's; a dense layer is BN, ReLU, conv 1x1, BN,
ReLU, conv 3x3 and appends k maps (k = 32; 48 in DenseNet-161), a transition halves channels, height
and width.

    stage    layers of DenseNet-121                  output at 224 x 224
    conv0    conv 7x7 / 2, BN, ReLU                  64 x 112 x 112
    pool0    max pool 3x3 / 2                        64 x 56 x 56
    block 1  6 dense layers; transition              256 x 56 x 56; 128 x 28 x 28
    block 2  12 dense layers; transition             512 x 28 x 28; 256 x 14 x 14
    block 3  24 dense layers; transition             1024 x 14 x 14; 512 x 7 x 7
    block 4  16 dense layers                         1024 x 7 x 7
    norm5    BN, ReLU, mean over the map             1024
    head     dense                                   1000

The defaults are DenseNet-121 without dropout, as the paper trains on ImageNet.

Differs from the paper: DenseNet-161 is the widest, as in torchvision and the authors' repository
(the paper's last version prints 264 in its place); dropout follows the 3x3 convolutions only (the
paper has it after all but the first convolution, .2 where data are not augmented); the dense layer,
too, starts from N(0, 2 / fan-in), He et al. 2015.
"""

from typing import Literal

import torchvision
from torch import Tensor, nn

from models import layers, options
from models.options import Fraction

PAPER = "Huang et al. 2016"
LEAST = 29  # below it the last transition pools a map of one pixel

COUNTS = {  # depth: parameters, moving statistics
    121: (7_978_856, 83_648),
    161: (28_681_000, 219_936),
    169: (14_149_480, 158_400),
    201: (20_013_928, 229_056),
}
REFERENCE = {
    f"DenseNet-{depth}": {
        "options": {"in_channels": 3, "size": (224, 224), "classes": 1000, "depth": depth},
        "input": (3, 224, 224),
        "trainable": trainable,
        "fixed": fixed,
        "source": "meta of torchvision's weights, num_params",
    }
    for depth, (trainable, fixed) in COUNTS.items()
}


def check_options(size: tuple[int, int]) -> None:
    """Raise ValueError for images that leave the last transition too small a map."""
    options.require_size("densenet", size, LEAST)


class DenseNet(nn.Module):
    """Return logits (N, K) for standardised images (N, C, H, W)."""

    def __init__(
        self,
        *,
        in_channels: int,
        size: tuple[int, int],
        classes: int,
        depth: Literal[121, 161, 169, 201] = 121,
        dropout: Fraction = 0.0,
    ) -> None:
        """`depth`: 121, 161, 169 or 201; `dropout`: probability of dropping a value that a dense
        layer appends.
        """
        super().__init__()
        check_options(size)
        options.choose("densenet", "depth", depth, COUNTS)
        net = torchvision.models.get_model(
            f"densenet{depth}", num_classes=classes, drop_rate=dropout
        )
        self.features, self.head = net.features, net.classifier
        width = self.features.conv0.out_channels
        self.features.conv0 = nn.Conv2d(
            in_channels, width, kernel_size=7, stride=2, padding=3, bias=False
        )
        self.features.add_module("relu5", nn.ReLU())
        self.features.add_module("pool", nn.AdaptiveAvgPool2d(1))
        self.features.add_module("flatten", nn.Flatten())
        for layer in self.modules():
            if isinstance(layer, nn.ReLU):
                layer.inplace = False  # explanations keep what goes into a ReLU
        layers.initialise(self, "he")

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(x))


Model = DenseNet
