"""Faster R-CNN: a network proposes boxes, a second one names what is in each, on one feature map.

Ren, He, Girshick, Sun 2017, "Faster R-CNN: Towards real-time object detection with region proposal
networks", IEEE TPAMI 39(6), arXiv:1506.01497, section 3; the second network is that of Girshick
2015, "Fast R-CNN", ICCV, arXiv:1504.08083, section 2.

    stage      layers, backbone small                             output at 80 x 80
    features   conv 3x3, BN, ReLU, max pool 2x2                   16 x 40 x 40
               conv 3x3, BN, ReLU, max pool 2x2                   32 x 20 x 20
               2 x (conv 3x3, BN, ReLU)                           64 x 20 x 20
    rpn        conv 3x3, ReLU; conv 1x1: 9 scores, 9 x 4 offsets  3,600 anchors
    proposals  the best after non-maximum suppression             48 boxes
    head       RoI align 5 x 5, 2 x (dense, ReLU)                 48 x 128
               dense: K + 1 classes, K x 4 offsets                48 x (K + 1), 48 x K x 4
    finds      non-maximum suppression by class, the best         32 boxes, labels, scores

Every shape is fixed, so that the network is one ONNX graph: there are always `proposals` boxes, of
which some may not be valid, and `most` finds, of which the first `count` are. `backbone: vgg` is
VGG-16 up to conv5_3, as in the paper; with `pooled: 7`, `width: 4096` the network has the paper's
size. `backbone: zoo` is a convolutional network of torchvision, `name`, up to a map of `stride`,
with its published weights if the recipe has `weights: {file: imagenet}`; googlenet, inception,
regnet and transformers, whose layers are not one chain of maps, are refused. `scales` are the sides
of the square anchors in pixels: set them to the sizes of your objects.

Expected on `scenes` (2,000 images of 80 x 80 pixels with 1 to 6 digits, batch 16, AdamW 4e-3,
one-cycle, 6 epochs in bf16; 400 unseen scenes): a mean average precision of .977 at an overlap of
.5, of .81 as COCO's mean over .5 to .95.

Differs from the paper: the backbone is a small VGG with batch normalization, whose stride is 4, for
images of 64 to 96 pixels with objects of 12 to 28 (the paper: VGG-16, stride 16, 600 pixels,
anchors of 128, 256, 512), and trains from scratch; RoI align (He et al. 2017, arXiv:1703.06870) in
place of RoI pooling, which `pooling: pool` gives; the RPN's score is one logit in place of two (the
paper's footnote 3); both networks train together from the first step (section 3.2, "approximate
joint training"; the paper's tables are of its 4-step training), and on anchors that cross the
image's border, too; 48 proposals from 192 anchors, in training and after it (300 from 6,000, in
training 2,000); no dropout; hidden layers start from he, since they are not pretrained.
"""

import copy
import math
from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torchvision import ops

from models import layers, options, resnet, vgg, zoo
from models.boxes import decode, gather_rows, nms_mask, odds
from models.options import Positive

PAPER = "Ren et al. 2017"
TASK = "detection"

RATIOS = (0.5, 1.0, 2.0)  # of height to width
CANDIDATES = 4  # anchors that suppression chooses a proposal from
PROPOSAL_OVERLAP = 0.7  # section 3.3
FIND_OVERLAP = 0.3  # of the authors' code, github.com/rbgirshick/py-faster-rcnn, TEST.NMS
LEAST_SCORE = 0.05  # of a find, there
LEAST_ODDS = LEAST_SCORE / (1 - LEAST_SCORE)
POINTS = 2  # of RoI align, in each direction of a bin

SMALL = "3-16 M 3-32 M 3-64 3-64"  # in the words of vgg.TABLE_1
STRIDES = {"small": 4, "vgg": 16, "resnet": 16}  # zoo's is an option
PROBE = 256  # side in pixels of an image that measures strides
NO_TRUNK = ("googlenet", "inception", "maxvit", "regnet", "swin", "vit")  # not one chain of maps

REFERENCE = {
    "Faster R-CNN VGG-16": {
        "options": {
            "in_channels": 3,
            "size": (600, 1000),
            "classes": 20,
            "backbone": "vgg",
            "scales": (128, 256, 512),
            "width": 4096,
            "pooled": 7,
            "proposals": 300,
        },
        "input": (3, 600, 1000),
        # 13 convolutions 14,714,688; RPN 2,359,808 + 513 * 9 * 5; dense 102,764,544 + 16,781,312;
        # heads 4,097 * (21 + 80)
        "trainable": 137_057_234,
        "fixed": 0,
        "source": "sum over the layers of sections 3.1 and 4, VGG-16 and 20 classes",
    },
}


def grid_anchors(height: int, width: int, stride: int, scales: Sequence[int]) -> Tensor:
    """Return the anchors (height * width * 9, 4) of a feature map, corners in pixels.

    Row by row, cell by cell; in a cell scale by scale, and of each scale the three ratios, all of
    area scale ** 2, around the middle of the cell's pixels.
    """
    sides = [(s / r**0.5 / 2, s * r**0.5 / 2) for s in scales for r in RATIOS]  # half width, height
    shapes = torch.tensor([[-w, -h, w, h] for w, h in sides])
    y, x = ((torch.arange(count) + 0.5) * stride for count in (height, width))
    rows, columns = torch.meshgrid(y, x, indexing="ij")
    centres = torch.stack([columns, rows, columns, rows], -1)  # (height, width, 4)
    return (centres.unsqueeze(2) + shapes).reshape(-1, 4)


def bin_weights(low: Tensor, high: Tensor, side: int, length: int) -> Tensor:
    """Return the share (N, R, side, length) of each of `length` cells in `side` bins from low to
    high (N, R): linear interpolation at POINTS points of each bin, averaged. As in RoiAlign a point
    up to a cell beyond the map takes the last cell's value, one further away 0: a map without
    padding is smaller than its image.
    """
    points = (torch.arange(side * POINTS, device=low.device) + 0.5) / (side * POINTS)
    at = low.unsqueeze(2) + (high - low).unsqueeze(2) * points - 0.5
    near = ((at >= -1) & (at <= length)).unsqueeze(3)
    at = at.clamp(0, length - 1)
    distance = (at.unsqueeze(3) - torch.arange(length, device=low.device)).abs()
    return ((1 - distance).clamp(min=0) * near).unflatten(2, (side, POINTS)).mean(3)


def align_by_products(maps: Tensor, boxes: Tensor, side: int, scale: float) -> Tensor:
    """Return what `ops.roi_align` returns for boxes (N, R, 4) inside the image: (N * R, C, side,
    side) of maps (N, C, H, W).

    Bilinear interpolation is a product of rows and one of columns. Its gradient takes a fifth of
    the time of torchvision's on the CPU, and is repeatable on a GPU.
    """
    height, width = maps.shape[2:]
    x_min, y_min, x_max, y_max = (boxes * scale).unbind(2)
    rows = bin_weights(y_min, y_max, side, height).flatten(1, 2)  # (N, R * side, H)
    columns = bin_weights(x_min, x_max, side, width).unsqueeze(2)  # (N, R, 1, side, W)
    lines = rows @ maps.permute(0, 2, 3, 1).flatten(2)  # (N, R * side, W * C)
    lines = lines.unflatten(2, (width, -1)).unflatten(1, (-1, side))  # (N, R, side, W, C)
    return (columns @ lines).flatten(0, 1).permute(0, 3, 1, 2)


class ProposalNetwork(nn.Module):
    """Return objectness logits (N, A) and box offsets (N, A, 4) of a map (section 3.1)."""

    def __init__(self, channels: int, anchors: int) -> None:
        super().__init__()
        self.hidden = nn.Sequential(nn.Conv2d(channels, channels, 3, padding=1), nn.ReLU())
        self.objectness = nn.Conv2d(channels, anchors, 1)
        self.offsets = nn.Conv2d(channels, 4 * anchors, 1)

    def forward(self, maps: Tensor) -> tuple[Tensor, Tensor]:
        hidden = self.hidden(maps)
        objectness = self.objectness(hidden).permute(0, 2, 3, 1).flatten(1)  # (N, H * W * 9)
        offsets = self.offsets(hidden).permute(0, 2, 3, 1).flatten(1)
        return objectness.float(), offsets.unflatten(1, (-1, 4)).float()


class BoxHead(nn.Module):
    """Return class logits (M, K + 1), background first, and offsets (M, K, 4) of pooled regions."""

    def __init__(self, units: int, width: int, classes: int) -> None:
        super().__init__()
        self.hidden = nn.Sequential(
            *(nn.Flatten(), nn.Linear(units, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU())
        )
        self.logits = nn.Linear(width, classes + 1)
        self.offsets = nn.Linear(width, 4 * classes)

    def forward(self, regions: Tensor) -> tuple[Tensor, Tensor]:
        hidden = self.hidden(regions)
        return self.logits(hidden).float(), self.offsets(hidden).unflatten(1, (-1, 4)).float()


def small_features(in_channels: int, *_: object) -> nn.Sequential:
    """Return the convolutions of the table above."""
    return vgg.convolutions(in_channels, SMALL, batch_norm=True)[:-1]  # without Flatten


def vgg_features(in_channels: int, *_: object) -> nn.Sequential:
    """Return VGG-16 up to conv5_3: without the last pool (section 4)."""
    return vgg.convolutions(in_channels, vgg.TABLE_1["D"], batch_norm=False)[:-2]


def resnet_features(in_channels: int, *_: object) -> nn.Sequential:
    """Return ResNet-18 up to conv4_x, as He et al. 2015, arXiv:1512.03385, appendix A."""
    net = resnet.ResNet(
        in_channels=in_channels,
        size=(224, 224),
        classes=1,
        family="imagenet",
        depth=18,
        shortcut="B",
    )
    return net.features[:-3]  # without stage4, pool, Flatten


def zoo_features(in_channels: int, name: str, stride: int) -> nn.Sequential:
    """Return torchvision's network up to the last map of at most `stride` pixels a cell.

    Its layers keep their names. Raises ValueError for a network that is not one chain of maps, and
    for one without a map of this stride.
    """
    if zoo.require_known(name).startswith(NO_TRUNK):
        fitting = "resnet18, mobilenet_v2, squeezenet1_1, efficientnet_b0"
        raise ValueError(f"fasterrcnn: expected a chain of layers, got {name}; take {fitting}")
    net: nn.Module = zoo.Zoo(in_channels=in_channels, size=(224, 224), classes=1, name=name).net  # type: ignore[arg-type]
    trunk = getattr(net, "features", getattr(net, "layers", net))
    kept, cell, probe = {}, 1.0, torch.zeros(1, 3, PROBE, PROBE, device="meta")
    for place, layer in trunk.named_children():
        if isinstance(layer, nn.Linear):
            break
        probe = copy.deepcopy(layer).to("meta").eval()(probe)
        if (
            PROBE / probe.shape[2] > 1.5 * stride
        ):  # maps without padding are smaller by a cell or so
            break
        kept[place], cell = layer, PROBE / probe.shape[2]
    if cell < stride / 1.5:
        expected = f"expected a network with a map of stride {stride}, got {name}"
        cure = f"set stride: {2 ** round(math.log2(cell))}, or take another network"
        raise ValueError(f"fasterrcnn: {expected}, whose last up to it has {cell:.0f}; {cure}")
    return layers.named(**kept)


def torchvision_weights(name: str, **options: object) -> dict[str, Tensor]:
    """Return the ImageNet weights of `backbone: zoo`, under torchvision's names."""
    return zoo.torchvision_weights(name)


def start_weights(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return what a classifier, or another detector, gives a detector: weights of its features."""
    names = {name: name.removeprefix("net.").removeprefix("layers.") for name in state}
    return {f"features.{names[n].removeprefix('features.')}": state[n] for n in state}


BACKBONES: dict[str, Callable[[int, str, int], nn.Sequential]] = {
    "small": small_features,
    "vgg": vgg_features,
    "resnet": resnet_features,
    "zoo": zoo_features,
}
POOLING: dict[str, Callable[..., Tensor]] = {
    "align": lambda maps, boxes, side, scale: ops.roi_align(maps, boxes, side, scale, POINTS, True),
    "pool": ops.roi_pool,
}
# Deviations of the head's offsets, which training divides them by: the authors' code,
# BBOX_NORMALIZE_STDS; Girshick 2015, section 2.3, has targets of unit variance.
HEAD_DEVIATIONS = (0.1, 0.1, 0.2, 0.2)


def check_options(
    in_channels: int,
    size: tuple[int, int],
    backbone: str,
    scales: Sequence[int],
    name: str,
    stride: int,
) -> None:
    """Raise ValueError for no scale, for options of another backbone, and for images that leave no
    cell of the feature map.
    """
    if not scales:
        raise ValueError("fasterrcnn: expected scales, one or more, got []; write [10, 15, 22]")
    if backbone == "zoo" and in_channels != 3:
        needed = f"expected 3 channels for backbone zoo, got {in_channels}"
        raise ValueError(f"fasterrcnn: {needed}; set `colour: rgb`")
    if backbone != "zoo" and (name, stride) != ("squeezenet1_1", 16):  # the defaults
        given = f"name {name}, stride {stride} with backbone {backbone}"
        cure = "set backbone: zoo, or leave name and stride out"
        raise ValueError(f"fasterrcnn: expected backbone zoo for them, got {given}; {cure}")
    options.require_size("fasterrcnn", size, STRIDES.get(backbone, 2 * stride))


class FasterRCNN(nn.Module):
    """Return boxes (N, most, 4), labels int64 and scores (N, most), count int64 (N,).

    Of standardised images (N, C, H, W). Boxes are corners x_min, y_min, x_max, y_max in pixels,
    scores are probabilities and fall; rows from count on are 0.
    """

    anchors: Tensor
    limits: Tensor
    deviations: Tensor

    def __init__(
        self,
        *,
        in_channels: int,
        size: tuple[int, int],
        classes: int,
        backbone: Literal["small", "vgg", "resnet", "zoo"] = "small",
        scales: Sequence[Positive] = (10, 15, 22),
        pooling: Literal["align", "pool"] = "align",
        pooled: Positive = 5,
        width: Positive = 128,
        proposals: Positive = 48,
        most: Positive = 32,
        anchor_samples: Positive = 256,
        region_samples: Positive = 64,
        name: str = "squeezenet1_1",
        stride: Literal[4, 8, 16, 32] = 16,
    ) -> None:
        """`scales`: sides of the anchors in pixels; `pooled`: side of a pooled region; `width`:
        units of the two dense layers; `most`: finds of an image; `anchor_samples`,
        `region_samples`: of an image, that the two losses are of; `name`, `stride`:
        of `backbone: zoo`, as torchvision spells it, and pixels a cell of its map.
        """
        super().__init__()
        features = options.choose("fasterrcnn", "backbone", backbone, BACKBONES)
        options.choose("fasterrcnn", "pooling", pooling, POOLING)
        check_options(in_channels, size, backbone, scales, name, stride)
        self.stride = STRIDES.get(backbone, stride)
        self.pooling, self.pooled = pooling, pooled
        self.anchor_samples, self.region_samples = anchor_samples, region_samples
        self.features = features(in_channels, name, stride)
        channels, rows, columns = layers.feature_shape(self.features, in_channels, size)
        self.rpn = ProposalNetwork(channels, len(scales) * len(RATIOS))
        self.head = BoxHead(channels * pooled**2, width, classes)
        anchors = grid_anchors(rows, columns, self.stride, scales)
        self.proposals = min(proposals, len(anchors))
        self.most = min(most, classes * self.proposals)
        height, width_px = size
        limits = torch.tensor([width_px, height, width_px, height], dtype=torch.float32)
        self.register_buffer("anchors", anchors, persistent=False)
        self.register_buffer("limits", limits, persistent=False)
        self.register_buffer("deviations", torch.tensor(HEAD_DEVIATIONS), persistent=False)
        layers.initialise(self, "he")
        for layer, deviation in (
            *((self.rpn.objectness, 0.01), (self.rpn.offsets, 0.01)),  # section 3.1
            *((self.head.logits, 0.01), (self.head.offsets, 0.001)),  # Girshick 2015, section 2.3
        ):
            nn.init.normal_(layer.weight, std=deviation)

    def clip(self, boxes: Tensor) -> Tensor:
        """Return boxes (..., 4) cut at the image's border."""
        return boxes.clamp(min=0).minimum(self.limits)

    def propose(self, objectness: Tensor, offsets: Tensor) -> tuple[Tensor, Tensor]:
        """Return the best proposals (N, R, 4) after suppression, and which are valid, bool (N, R).

        The others fill up: suppression may leave fewer.
        """
        count = min(CANDIDATES * self.proposals, len(self.anchors))
        scores, index = objectness.topk(count, dim=1)
        boxes = self.clip(decode(gather_rows(offsets, index), self.anchors[index]))
        kept = nms_mask(boxes, scores, PROPOSAL_OVERLAP, -math.inf)
        scores, index = scores.masked_fill(~kept, -math.inf).topk(self.proposals, dim=1)
        return gather_rows(boxes, index), scores > -math.inf

    def pool(self, maps: Tensor, boxes: Tensor) -> Tensor:
        """Return the pooled regions (N * R, C, pooled, pooled) of boxes (N, R, 4)."""
        if self.training and self.pooling == "align":
            return align_by_products(maps, boxes, self.pooled, 1 / self.stride)
        image = torch.arange(boxes.shape[0], device=boxes.device, dtype=boxes.dtype)
        image = image.view(-1, 1, 1).expand(-1, boxes.shape[1], 1)
        regions = torch.cat([image, boxes], 2).flatten(0, 1)  # (N * R, 5)
        return POOLING[self.pooling](maps.float(), regions, self.pooled, 1 / self.stride)

    def judge(self, maps: Tensor, boxes: Tensor) -> tuple[Tensor, Tensor]:
        """Return class logits (N, R, K + 1) and offsets (N, R, K, 4) of boxes (N, R, 4)."""
        logits, offsets = self.head(self.pool(maps, boxes))
        shape = (-1, boxes.shape[1])
        return logits.unflatten(0, shape), offsets.unflatten(0, shape)

    def select(
        self, boxes: Tensor, valid: Tensor, logits: Tensor, offsets: Tensor
    ) -> tuple[Tensor, ...]:
        """Return the finds: each class's boxes after suppression, the best of all classes."""
        boxes = decode(offsets * self.deviations, boxes.unsqueeze(2))
        boxes = self.clip(boxes).transpose(1, 2)  # (N, K, R, 4)
        probabilities = logits.softmax(2)
        ranks = odds(probabilities)[..., 1:].masked_fill(~valid.unsqueeze(2), 0.0)
        ranks = ranks.transpose(1, 2)  # (N, K, R)
        kept = nms_mask(boxes.flatten(0, 1), ranks.flatten(0, 1), FIND_OVERLAP, LEAST_ODDS)
        scores = probabilities[..., 1:].transpose(1, 2)
        scores = (scores * kept.view_as(scores)).flatten(1)
        scores, index = scores.topk(self.most, dim=1)
        found = scores > 0
        labels = index // boxes.shape[2] * found
        boxes = gather_rows(boxes.flatten(1, 2), index) * found.unsqueeze(2)
        return boxes, labels, scores, found.sum(1)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        maps = self.features(x)
        boxes, valid = self.propose(*self.rpn(maps))
        return self.select(boxes, valid, *self.judge(maps, boxes))


Model = FasterRCNN
