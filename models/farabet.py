"""Farabet's scene labelling network: one convnet at three scales and a classifier at every pixel.

Farabet, Couprie, Najman, LeCun 2013, "Learning hierarchical features for scene labeling", IEEE
Transactions on Pattern Analysis and Machine Intelligence 35(8), pp. 1915-1929, sections 3 and 5.

    stage      layers                                             output at 240 x 320
    pyramid    Laplacian, three scales, each normalised locally   3 x 240 x 320, 120 x 160, 60 x 80
    features   conv 7x7, tanh, max pool 2x2                       16 x 120 x 160, and so on
               conv 7x7, tanh, max pool 2x2                       64 x 60 x 80
               conv 7x7                                           256 x 60 x 80, 30 x 40, 15 x 20
    head       the three enlarged to the first one's size         768 x 60 x 80
               dense, of every pixel                              8 x 60 x 80
               enlarged to the image                              8 x 240 x 320

`features` is one network with one set of weights for all scales. `hidden: 1024` is the paper's
classifier of two layers, whose hidden units are tanh.

Differs from the paper: a filter sees all channels below it (the paper's see 8 of 16 and 32 of 64
maps, drawn at random), and those of the image as they come, RGB (YUV, of which 10 of the first
filters see Y and 6 see U and V); scales are halved by a mean of 2 x 2 pixels; borders are padded;
flat regions are not normalized to variance 1; training is end to end (first the features below a
linear classifier, then the classifier); behind it are no superpixels, no CRF and no segmentation
tree.

For thin objects the paper's map, a quarter of the image, is too coarse. `pools: 1` makes it a half:
the second pool is left out, and the third convolution dilated by 2, so that it sees as far (Yu &
Koltun 2016, "Multi-scale context aggregation by dilated convolutions", arXiv:1511.07122).
`activation: relu` (with He's initial weights) and `batch_norm` are later, too; the latter
normalizes over the pixels of all scales.

Expected on scenes of 5 or 6 handwritten digits, 64 x 64 (16,000 training scenes, each seen once;
maps 16, 32, 64 of 5x5, one pool, batch norm, batch 4, lr .01, balance .05, bf16; 122 s of a core):
mean IoU .82 over the ground and ten digits on unseen scenes, .86 on training scenes. On validation
scenes ink against ground reaches an IoU of .89, and the digit is right on .94 of that ink. The
number and size of steps count most: after 6,000 scenes of 2 to 6 digits batches of 4 reach .64 and
of 8 .55. Scenes that are also turned and scaled, with balance .15, end at .76. Without the
classifier's hidden layer it is .48 in place of .55.
"""

from collections import OrderedDict
from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from models import layers, options
from models.options import Count, Positive

PAPER = "Farabet et al. 2013"
TASK = "segmentation"
WINDOW = 15  # side of the neighbourhood in local normalization, section 5

STANFORD = {"in_channels": 3, "size": (240, 320), "classes": 8}  # the Stanford background dataset
REFERENCE = {
    "Farabet": {
        "options": STANFORD,
        "input": (3, 240, 320),
        "trainable": 861_832,
        "fixed": 0,
        "source": "2,368 + 50,240 + 803,072 + (768 + 1) * 8",
    },
    "Farabet two-layer classifier": {
        "options": STANFORD | {"hidden": 1024},
        "input": (3, 240, 320),
        "trainable": 1_651_336,
        "fixed": 0,
        "source": "2,368 + 50,240 + 803,072 + 769 * 1,024 + 1,025 * 8",
    },
}

ACTIVATIONS = {"tanh": nn.Tanh, "relu": nn.ReLU}


def enlarge(maps: Tensor, size: torch.Size, training: bool = False) -> Tensor:
    """Return maps (N, C, *size), interpolated between the centres of pixels.

    In training of float32, in mixed precision too: on the CPU in channels-last memory format, in
    which torch's gradient takes a sixth of the time (64 maps of 16 x 16 to 32 x 32); on a GPU,
    where it is slow if it is to be repeatable, by products.
    """
    if training and maps.is_cuda:
        return enlarge_by_products(maps, size)
    if training:
        maps = maps.float().contiguous(memory_format=torch.channels_last)
    return F.interpolate(maps, size=size, mode="bilinear", align_corners=False)


def enlarge_by_products(maps: Tensor, size: torch.Size) -> Tensor:
    """Return what `enlarge` does in training."""
    down, across = (shares(*sides, maps.device) for sides in zip(size, maps.shape[2:], strict=True))
    with torch.autocast("cuda" if maps.is_cuda else "cpu", enabled=False):
        return down @ maps.float() @ across.T


def shares(length: int, side: int, on: torch.device) -> Tensor:
    """Return the matrix (length, side) that interpolates `side` pixels at the centres of `length`
    ones, and takes the first or last one beyond theirs.
    """
    places = (torch.arange(length, device=on) + 0.5) * (side / length) - 0.5
    distance = (places.clamp(0, side - 1)[:, None] - torch.arange(side, device=on)).abs()
    return (1 - distance).clamp(min=0)


def band(side: int, on: torch.device) -> Tensor:
    """Return the matrix (side, side) that takes the mean of WINDOW neighbours, fewer at an end."""
    places = torch.arange(side, device=on)
    near = ((places[:, None] - places).abs() <= WINDOW // 2).float()
    return near / near.sum(1, keepdim=True)


class LocalNormalization(nn.Module):
    """Return (N, C, H, W): each channel less its mean around a pixel, over the deviation there.

    Around a pixel is a window of WINDOW x WINDOW, cut at the border. A deviation below its mean
    over the image counts as that mean, so that flat regions do not become noise (Jarrett et al.
    2009, "What is the best multi-stage architecture for object recognition?", section 2.1).
    """

    def __init__(self) -> None:
        super().__init__()
        reach = WINDOW // 2
        self.pools = nn.Sequential(  # of rows, then of columns: 30 additions in place of 225
            nn.AvgPool2d((WINDOW, 1), 1, (reach, 0), count_include_pad=False),
            nn.AvgPool2d((1, WINDOW), 1, (0, reach), count_include_pad=False),
        )

    def mean(self, x: Tensor) -> Tensor:
        """Return the mean of x around each pixel.

        In training as products, a tenth of the pools' time at 64 pixels; a served int8 file would
        quantize products. They are of float32 in mixed precision, too, as in evaluation.
        """
        if not self.training:
            pooled: Tensor = self.pools(x)
            return pooled
        down, across = (band(side, x.device) for side in x.shape[2:])
        with torch.autocast("cuda" if x.is_cuda else "cpu", enabled=False):
            return down @ x.float() @ across.T

    def forward(self, x: Tensor) -> Tensor:
        centred = x - self.mean(x)
        deviation = (self.mean(centred.square()) + 1e-6).sqrt()
        return centred / torch.maximum(deviation, deviation.mean((2, 3), keepdim=True))


def normalize_together(layer: _BatchNorm, scales: list[Tensor]) -> list[Tensor]:
    """Return maps (N, C, ., .) of each scale, normalized as one batch of pixels, in channels-last
    memory format.
    """
    lasts = [maps.permute(0, 2, 3, 1) for maps in scales]
    pixels = torch.cat([last.flatten(0, 2) for last in lasts])  # (P, C)
    normalized = layer(pixels.T[None, :, :, None]).squeeze(3).squeeze(0).T
    parts = normalized.split([last[..., 0].numel() for last in lasts])
    both = zip(parts, lasts, strict=True)
    return [part.view(last.shape).permute(0, 3, 1, 2) for part, last in both]


class ScalesDense(nn.Conv2d):
    """Return (N, out_channels, h, w), a dense layer at every place of maps (N, C, ., .) of each
    scale, enlarged to the first one's size h x w and joined.

    Joining and enlarging are linear as the layer is, so that each scale's own product is enlarged:
    at three scales 44 % of the multiply-adds of the product with what is enlarged.
    """

    def __init__(self, scales: int, channels: int, units: int) -> None:
        super().__init__(scales * channels, units, 1)
        self.channels = channels

    def forward(self, scales: list[Tensor]) -> Tensor:  # type: ignore[override]
        finest, *coarser = scales
        own, *others = self.weight.split(self.channels, 1)
        total = F.conv2d(finest, own, self.bias)
        for maps, weight in zip(coarser, others, strict=True):
            total = total + enlarge(F.conv2d(maps, weight), finest.shape[2:], self.training)
        return total


def halvings(pools: int, scales: int) -> int:
    """Return how often the image is halved up to the map of the coarsest scale."""
    return pools + scales - 1


def check_options(
    size: tuple[int, int], kernel_size: int, maps: Sequence[int], pools: int, scales: int
) -> None:
    """Raise ValueError for kernels without a middle, for more pools than convolutions have, and for
    images that are less than one pixel at the coarsest scale.
    """
    if kernel_size % 2 == 0:
        raise ValueError(
            f"farabet: expected kernel_size odd, got {kernel_size}; the middle is the pixel itself"
        )
    if not maps:
        raise ValueError("farabet: expected maps, one number or more, got []; write [16, 64, 256]")
    if pools >= len(maps):
        needed = f"pools of at most {len(maps) - 1}, one after each of maps but the last"
        raise ValueError(f"farabet: expected {needed}, got {pools}; lower it")
    options.require_size(
        "farabet", size, 2 ** halvings(pools, scales), "enlarge size, lower scales"
    )


class Farabet(nn.Module):
    """Return logits (N, K, H, W) for standardised images (N, C, H, W)."""

    def __init__(
        self,
        *,
        in_channels: int,
        size: tuple[int, int],
        classes: int,
        maps: Sequence[Positive] = (16, 64, 256),
        kernel_size: Positive = 7,
        pools: Count = 2,
        scales: Positive = 3,
        hidden: Count = 0,
        activation: Literal["tanh", "relu"] = "tanh",
        batch_norm: bool = False,
    ) -> None:
        """`maps`: of each convolution; `pools`: the first so many convolutions have a max pool;
        `hidden`: units of the classifier's first layer, 0 without it.
        """
        super().__init__()
        check_options(size, kernel_size, maps, pools, scales)
        act = options.choose("farabet", "activation", activation, ACTIVATIONS)
        self.scales, self.multiple = scales, 2 ** halvings(pools, scales)
        self.normalize = LocalNormalization()
        steps: dict[str, nn.Module] = {}
        for k, (before, after) in enumerate(zip((in_channels, *maps), maps, strict=False), 1):
            apart = 2 ** max(k - 1 - pools, 0)  # a pool that is left out takes no context away
            reach = apart * (kernel_size // 2)
            steps[f"conv{k}"] = nn.Conv2d(before, after, kernel_size, padding=reach, dilation=apart)
            if batch_norm:
                steps[f"norm{k}"] = nn.BatchNorm2d(after)
            if k < len(maps) or batch_norm:  # the paper's last layer is a filter bank alone
                steps[f"activation{k}"] = act()
            if k <= pools:
                steps[f"pool{k}"] = nn.MaxPool2d(2)
        self.features = nn.Sequential(OrderedDict(steps))
        first = ScalesDense(scales, maps[-1], hidden or classes)
        self.head = layers.named(
            dense1=first if hidden else None,
            activation=act() if hidden else None,
            dense2=nn.Conv2d(hidden, classes, 1) if hidden else first,
        )
        if activation == "relu":
            layers.initialise(self, "he")

    def pyramid(self, x: Tensor) -> list[Tensor]:
        """Return images at each scale, finest first, of which all but the last hold details alone.

        Burt & Adelson 1983, "The Laplacian pyramid as a compact image code".
        """
        details = []
        for _ in range(self.scales - 1):
            coarse = F.avg_pool2d(x, 2)
            details.append(x - enlarge(coarse, x.shape[2:]))
            x = coarse
        return [*details, x]

    def describe(self, scales: list[Tensor]) -> list[Tensor]:
        """Return the features of each scale, by the same layers."""
        for layer in self.features:
            if self.training and isinstance(layer, _BatchNorm):  # of all scales, as in evaluation
                scales = normalize_together(layer, scales)
            else:
                scales = [layer(maps) for maps in scales]
        return scales

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[2:]
        beyond = (0, -width % self.multiple, 0, -height % self.multiple)
        x = F.pad(x, beyond, mode="replicate")  # so that every scale is half of the one before
        scales = [self.normalize(scale) for scale in self.pyramid(x)]
        maps = self.describe(scales)
        return enlarge(self.head(maps), x.shape[2:], self.training)[:, :, :height, :width]


Model = Farabet
