"""AlexNet: the network that won ILSVRC 2012, for 1000 classes of photographs, in its two-GPU form.

Krizhevsky, Sutskever, Hinton 2012, "ImageNet classification with deep convolutional neural
networks", NIPS 25, section 3 and figure 2.

    stage      layers                                                     output at 227 x 227
    features   conv1 11x11 stride 4, ReLU, local response normalisation   96 x 55 x 55
               max pool 3x3 stride 2                                      96 x 27 x 27
               conv2 5x5, 2 groups, ReLU, local response normalisation    256 x 27 x 27
               max pool 3x3 stride 2                                      256 x 13 x 13
               conv3 3x3, ReLU; conv4 3x3, 2 groups, ReLU                 384 x 13 x 13
               conv5 3x3, 2 groups, ReLU                                  256 x 13 x 13
               max pool 3x3 stride 2, flatten                             9,216
    head       2 x (dense, ReLU, dropout)                                 4,096
               dense                                                      1,000

Section 3's claims are options: `activation` (3.1), `groups` 1 or 2 (3.2), `normalisation` (3.3),
`pool` (3.4). The lecture notes have separate windows, 2x2 stride 2: the same 6 x 6 map at 227
pixels, and 39 x 39 are enough. The defaults are the paper's network.

Differs from the paper: 227 pixels, since 224 do not fit its stem ((224 - 11) / 4 + 1 = 54.25); the
two GPUs are two groups of one convolution; dropped units are scaled up in training, not the kept
ones down in testing (equal in expectation); the first dense layer is as wide as the map of the
entry's images, 67 x 67 at least. Not the paper's: `normalisation: batch`, batch normalisation
(Ioffe & Szegedy 2015) in the two places of the local one, and `init: he`.
"""

from typing import Literal

from torch import Tensor, nn

from models import layers, options
from models.options import Fraction

PAPER = "Krizhevsky et al. 2012"
DENSE = 4096
POOLS = {
    "overlapping": (3, 67),
    "separate": (2, 39),
}  # window of the three stride-2 pools, least input
NORMALISATIONS = {
    "local": lambda maps: layers.LocalResponseNorm(),
    "batch": nn.BatchNorm2d,
    "none": lambda maps: None,
}
ACTIVATIONS = {"relu": nn.ReLU, "tanh": nn.Tanh}
INITS = {"paper": "normal", "he": "he"}
BIAS_ONE = (
    "features.conv2",
    "features.conv4",
    "features.conv5",
    "head.fc6",
    "head.fc7",
)  # section 5

IMAGE = {"in_channels": 3, "size": (227, 227), "classes": 1000}
REFERENCE = {
    name: {
        "options": IMAGE | changed,
        "input": (3, 227, 227),
        "trainable": count,
        "fixed": fixed,
        "source": source,
    }
    for name, changed, count, fixed, source in (
        ("AlexNet", {}, 60_965_224, 0, "sum over the layers of section 3"),
        ("AlexNet ungrouped", {"groups": 1}, 62_378_344, 0, "sum over the layers without groups"),
        (
            "AlexNet 2x2 pools",
            {"pool": "separate"},
            60_965_224,
            0,
            "as AlexNet: the last map has 6 x 6 pixels, too",
        ),
        (
            "AlexNet batch norm",
            {"normalisation": "batch"},
            60_965_928,
            704,
            "AlexNet and 2 * (96 + 256); as many fixed",
        ),
    )
}


def check_options(size: tuple[int, int], pool: str) -> None:
    """Raise ValueError for images that are too small for the stem and the pools."""
    _, least = options.choose("alexnet", "pool", pool, POOLS)
    options.require_size("alexnet", size, least)


class AlexNet(nn.Module):
    """Return logits (N, K) for standardised images (N, C, H, W)."""

    def __init__(
        self,
        *,
        in_channels: int,
        size: tuple[int, int],
        classes: int,
        groups: Literal[1, 2] = 2,
        pool: Literal["overlapping", "separate"] = "overlapping",
        normalisation: Literal["local", "batch", "none"] = "local",
        activation: Literal["relu", "tanh"] = "relu",
        dropout: Fraction = 0.5,
        init: Literal["paper", "he"] = "paper",
    ) -> None:
        """`groups`: of conv2, conv4 and conv5; `dropout`: probability of dropping a unit of fc6 and
        fc7.
        """
        super().__init__()
        check_options(size, pool)
        window, _ = POOLS[pool]
        norm = options.choose("alexnet", "normalisation", normalisation, NORMALISATIONS)
        act = options.choose("alexnet", "activation", activation, ACTIVATIONS)
        options.choose("alexnet", "groups", groups, {1: "one GPU", 2: "two GPUs"})
        self.features = layers.named(
            conv1=nn.Conv2d(in_channels, 96, 11, stride=4),
            act1=act(),
            norm1=norm(96),
            pool1=nn.MaxPool2d(window, stride=2),
            conv2=nn.Conv2d(96, 256, 5, padding=2, groups=groups),
            act2=act(),
            norm2=norm(256),
            pool2=nn.MaxPool2d(window, stride=2),
            conv3=nn.Conv2d(256, 384, 3, padding=1),
            act3=act(),
            conv4=nn.Conv2d(384, 384, 3, padding=1, groups=groups),
            act4=act(),
            conv5=nn.Conv2d(384, 256, 3, padding=1, groups=groups),
            act5=act(),
            pool5=nn.MaxPool2d(window, stride=2),
            flatten=nn.Flatten(),
        )
        (units,) = layers.feature_shape(self.features, in_channels, size)
        self.head = layers.named(
            fc6=nn.Linear(units, DENSE),
            act6=act(),
            drop6=nn.Dropout(dropout),
            fc7=nn.Linear(DENSE, DENSE),
            act7=act(),
            drop7=nn.Dropout(dropout),
            fc8=nn.Linear(DENSE, classes),
        )
        layers.initialise(self, options.choose("alexnet", "init", init, INITS))
        if init == "paper":
            for name in BIAS_ONE:
                layers.fill_bias(self.get_submodule(name), 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(x))


Model = AlexNet
