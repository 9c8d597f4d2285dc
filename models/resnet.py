"""ResNet: layers learn what to add to their input, so that more than a hundred of them train.

He, Zhang, Ren, Sun 2015, "Deep Residual Learning for Image Recognition", arXiv:1512.03385: table 1
for ImageNet, section 4.2 for CIFAR-10 (6n + 2 layers), section 3.3 for the shortcuts; the
bottleneck of figure 5 from depth 50 on.

    stage   family imagenet, depth 18 (50)  output at 224 x 224   family cifar        at 32 x 32
    conv1   conv 7x7 / 2, BN, ReLU          64 x 112 x 112        conv 3x3, BN, ReLU  16 x 32 x 32
    pool1   max pool 3x3 / 2                64 x 56 x 56
    stage1  2 (3) blocks: conv2_x           64 (256) x 56 x 56    n blocks            16 x 32 x 32
    stage2  2 (4) blocks, the first / 2     128 (512) x 28 x 28   n blocks            32 x 16 x 16
    stage3  2 (6) blocks, the first / 2     256 (1024) x 14 x 14  n blocks            64 x 8 x 8
    stage4  2 (3) blocks, the first / 2     512 (2048) x 7 x 7
    pool    mean over the map               512 (2048)                                64
    head    dense                           1000                                      10

`shortcut: none` leaves out every addition: the plain nets of the same depth, whose training error
rises with depth. `stride_in` says which convolution of a bottleneck strides: the paper's first 1x1,
or the 3x3 as torchvision has it ("v1.5"); blocks of two convolutions always stride in the first.
`batch_norm: false` gives the convolutions biases instead, to study how the gradient fades.
`zero_init` starts the last batch normalisation of every block at 0, so that the untrained network
is its shortcuts (Goyal et al. 2017, arXiv:1706.02677, section 5.1): without it, a hundred layers
learn nothing from a thousand images in a hundred steps.

The defaults are the paper's ResNet-20 for CIFAR-10 with option A, which takes images of any size;
for photos set `family: imagenet`, a depth of table 1 and `shortcut: B`.

Differs from the paper: the dense layer, too, starts from N(0, 2 / fan-in), He et al. 2015,
arXiv:1502.01852, which the paper cites for the convolutions (torchvision takes fan-out); option A
pads half of its zero channels before and half after the input's, because the published CIFAR
weights do (the paper leaves the place open).
"""

import re
from typing import Any, Literal

import torch.nn.functional as F
from torch import Tensor, nn

from models import layers, options
from models.options import Positive

PAPER = "He et al. 2015"
TABLE_1 = {
    18: (2, 2, 2, 2),
    34: (3, 4, 6, 3),
    50: (3, 4, 6, 3),
    101: (3, 4, 23, 3),
    152: (3, 8, 36, 3),
}
BOTTLENECK_FROM = 50
SOURCES = {
    "imagenet": "meta of torchvision's weights, num_params",
    "cifar": "sum over section 4.2; table 6 of the paper has them in millions",
}
WIDTHS = {"imagenet": (64, 128, 256, 512), "cifar": (16, 32, 64)}
CHOICES = {"family": WIDTHS, "shortcut": ("A", "B", "C", "none"), "stride_in": ("first", "3x3")}

# How the keys of published weights become ours, in this order.
# github.com/akamaster/pytorch_resnet_cifar10 says shortcut and linear, torchvision downsample and
# fc.
RENAMED = [
    (r"^(conv1|bn1)\.", r"features.\1."),
    (r"^layer(\d\.\d+)\.(conv|bn)", r"features.stage\1.residual.\2"),
    (r"^layer(\d\.\d+)\.(shortcut|downsample)\.", r"features.stage\1.shortcut."),
    (r"^(linear|fc)\.", "head."),
]


def _reference(
    family: str, depth: int, shortcut: str, trainable: int, fixed: int
) -> dict[str, Any]:
    shape, classes = ((3, 224, 224), 1000) if family == "imagenet" else ((3, 32, 32), 10)
    image = {"in_channels": 3, "size": shape[1:], "classes": classes}
    return {
        "options": image | {"family": family, "depth": depth, "shortcut": shortcut},
        "input": shape,
        "trainable": trainable,
        "fixed": fixed,  # two moving statistics for each channel of batch normalisation
        "source": SOURCES[family],
    }


REFERENCE = {
    "ResNet-18": _reference("imagenet", 18, "B", 11_689_512, 9_600),
    "ResNet-34": _reference("imagenet", 34, "B", 21_797_672, 17_024),
    "ResNet-50": _reference("imagenet", 50, "B", 25_557_032, 53_120),
    "ResNet-101": _reference("imagenet", 101, "B", 44_549_160, 105_344),
    "ResNet-152": _reference("imagenet", 152, "B", 60_192_808, 151_424),
    "ResNet-20 CIFAR": _reference("cifar", 20, "A", 269_722, 1_376),
    "ResNet-20 CIFAR B": _reference("cifar", 20, "B", 269_722 + 2_560 + 192, 1_376 + 192),
    "plain-20 CIFAR": _reference("cifar", 20, "none", 269_722, 1_376),
    "ResNet-32 CIFAR": _reference("cifar", 32, "A", 464_154, 2_272),
    "ResNet-44 CIFAR": _reference("cifar", 44, "A", 658_586, 3_168),
    "ResNet-56 CIFAR": _reference("cifar", 56, "A", 853_018, 4_064),
    "ResNet-110 CIFAR": _reference("cifar", 110, "A", 1_727_962, 8_096),
}


def weights_from(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return published weights under our names.

    Known are akamaster's for CIFAR-10, torchvision's for ImageNet, and our own."""
    renamed = {}
    for name, tensor in state.items():
        for pattern, replacement in RENAMED:
            name = re.sub(pattern, replacement, name)
        renamed[name] = tensor
    return renamed


def convolution(
    k: int, channels: int, out: int, kernel: int, stride: int, batch_norm: bool
) -> dict[str, nn.Module]:
    """Return the layers of the k-th convolution by name, (N, C, H, W) to (N, out, H / s, W / s)."""
    conv = nn.Conv2d(channels, out, kernel, stride, padding=kernel // 2, bias=not batch_norm)
    return {f"conv{k}": conv} | ({f"bn{k}": nn.BatchNorm2d(out)} if batch_norm else {})


class ZeroPadded(nn.Module):
    """Option A: return every stride-th pixel, and `more` further channels of zeros."""

    def __init__(self, more: int, stride: int) -> None:
        super().__init__()
        self.more, self.stride = more, stride

    def forward(self, x: Tensor) -> Tensor:
        before = self.more // 2
        return F.pad(
            x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, before, self.more - before)
        )


def shortcut_path(
    option: str, channels: int, out: int, stride: int, batch_norm: bool
) -> nn.Module | None:
    """Return the path around the convolutions (section 3.3); None for `none`.

    It is the input itself where the shapes allow it, except in option C.
    """
    changes = stride != 1 or channels != out
    if option == "none":
        return None
    if option == "C" or (option == "B" and changes):
        return nn.Sequential(*convolution(1, channels, out, 1, stride, batch_norm).values())
    return ZeroPadded(out - channels, stride) if changes else nn.Identity()


class Block(nn.Module):
    """Return ReLU(F(x) + shortcut of x), eq. 1; F is convolutions of (channels, kernel, stride),
    ReLU between them.
    """

    def __init__(
        self, channels: int, plan: list[tuple[int, int, int]], shortcut: str, batch_norm: bool
    ) -> None:
        super().__init__()
        residual: dict[str, nn.Module] = {}
        before, strides = channels, 1
        for k, (out, kernel, stride) in enumerate(plan, start=1):
            residual |= convolution(k, before, out, kernel, stride, batch_norm) | {
                f"relu{k}": nn.ReLU()
            }
            before, strides = out, strides * stride
        residual.popitem()  # the last ReLU comes after the addition
        self.residual = layers.named(**residual)
        self.shortcut = shortcut_path(shortcut, channels, before, strides, batch_norm)
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        y = self.residual(x)
        return self.relu(y if self.shortcut is None else y + self.shortcut(x))


def check_options(
    family: str, depth: int, shortcut: str, batch_norm: bool, zero_init: bool
) -> None:
    """Raise ValueError for a depth that the family has not, and for `zero_init` of a plain net."""
    if family == "cifar" and (depth < 8 or depth % 6 != 2):
        needed = f"expected depth 6n + 2 in family cifar, got {depth}"
        other = ", or set family: imagenet" if depth in TABLE_1 else ""
        raise ValueError(f"resnet: {needed}; choose 20, 32, 44, 56, 110{other}")
    if family == "imagenet":
        options.choose("resnet", "depth", depth, TABLE_1)
    if zero_init and (shortcut == "none" or not batch_norm):
        needed = "expected shortcuts and batch_norm for zero_init, got neither or one"
        raise ValueError(f"resnet: {needed}; set it false")


class ResNet(nn.Module):
    """Return logits (N, K) for standardised images (N, C, H, W) of any size."""

    def __init__(
        self,
        *,
        in_channels: int,
        size: tuple[int, int],
        classes: int,
        family: Literal["cifar", "imagenet"] = "cifar",
        depth: Positive = 20,
        shortcut: Literal["A", "B", "C", "none"] = "A",
        batch_norm: bool = True,
        stride_in: Literal["first", "3x3"] = "first",
        zero_init: bool = False,
    ) -> None:
        """`family`: imagenet or cifar; `shortcut`: A, B, C or none; `stride_in`: first or 3x3, of a
        bottleneck.
        """
        super().__init__()
        for option, value in (("family", family), ("shortcut", shortcut), ("stride_in", stride_in)):
            options.choose("resnet", option, value, dict.fromkeys(CHOICES[option]))
        check_options(family, depth, shortcut, batch_norm, zero_init)
        cifar, widths = family == "cifar", WIDTHS[family]
        blocks_of = [(depth - 2) // 6] * 3 if cifar else TABLE_1[depth]
        channels = widths[0]
        kernel, stride = (3, 1) if cifar else (7, 2)
        stem = convolution(1, in_channels, channels, kernel, stride, batch_norm) | {
            "relu1": nn.ReLU()
        }
        if not cifar:
            stem["pool1"] = nn.MaxPool2d(kernel_size=3, stride=2, padding=1)
        self.features = layers.named(**stem)
        for k, blocks in enumerate(blocks_of):
            stage = nn.Sequential()
            for stride in [1 if k == 0 else 2] + [1] * (blocks - 1):
                plan = [(widths[k], 3, stride), (widths[k], 3, 1)]
                if not cifar and depth >= BOTTLENECK_FROM:
                    first, second = (stride, 1) if stride_in == "first" else (1, stride)
                    plan = [(widths[k], 1, first), (widths[k], 3, second), (4 * widths[k], 1, 1)]
                stage.append(Block(channels, plan, shortcut, batch_norm))
                channels = plan[-1][0]
            self.features.add_module(f"stage{k + 1}", stage)
        self.features.add_module("pool", nn.AdaptiveAvgPool2d(1))
        self.features.add_module("flatten", nn.Flatten())
        self.head = nn.Linear(channels, classes)
        layers.initialise(self, "he")
        if zero_init:
            for block in self.modules():
                if isinstance(block, Block):
                    last = block.residual[-1]
                    assert isinstance(last, nn.BatchNorm2d)
                    nn.init.zeros_(last.weight)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(x))


Model = ResNet
