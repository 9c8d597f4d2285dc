"""Detection: the losses of proposals and of regions, and the samples that they are taken over.

Ren et al. 2017, arXiv:1506.01497, section 3.1; Girshick 2015, arXiv:1504.08083, section 2.3.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from models.boxes import encode, gather_rows
from pipeline.data.dataset import Data
from pipeline.params.schema import ResolvedTrain
from pipeline.train.batches import Batches, Split, image_batches

HAS_ACCURACY = False

# Least overlap with a true box, as intersection over union.
ANCHOR_POSITIVE, ANCHOR_NEGATIVE = 0.7, 0.3  # an anchor between them is not in the loss
REGION_POSITIVE = 0.5  # a region below is background
ANCHOR_SHARE, REGION_SHARE = 0.5, 0.25  # of positives in a sample, at most


class Losses(NamedTuple):
    """The mean losses of a batch, scalars, in the order in which the paper adds them."""

    objectness: Tensor
    anchor_boxes: Tensor
    labels: Tensor
    region_boxes: Tensor


def load_batches(source: Data, split: str, net: Any, on: torch.device) -> Batches:
    """Return images uint8 (N, C, H, W) and boxes with their labels, float32 (N, M, 5)."""
    return image_batches(source, split, on)


def forward(net: Any, x: Tensor, y: Tensor, train: ResolvedTrain) -> Losses:
    """Return the losses of a batch.

    The samples are drawn at random in training, and by the same numbers each time in evaluation.
    """
    inner = net.net
    random = None if inner.training else torch.Generator(x.device).manual_seed(0)
    maps = inner.features(net.standardise(x))
    objectness, offsets = inner.rpn(maps)
    proposals, valid = inner.propose(objectness.detach(), offsets.detach())
    boxes, labels, truths = sample_regions(proposals, valid, y, inner.region_samples, random)
    logits, region_offsets = inner.judge(maps, boxes)
    region_goals = encode(truths, boxes) / inner.deviations
    return Losses(
        *anchor_losses(objectness, offsets, inner.anchors, y, inner.anchor_samples, random),
        *region_losses(logits, region_offsets, labels, region_goals),
    )


def anchor_losses(
    objectness: Tensor,
    offsets: Tensor,
    anchors: Tensor,
    y: Tensor,
    count: int,
    random: torch.Generator | None = None,
) -> tuple[Tensor, Tensor]:
    """Return the losses of `count` anchors (A, 4) of each image: of their logits, of their offsets.

    Eq. 1. Its second term is divided by the sampled anchors, too: the paper's lambda / N_reg is 10
    / 2400, and its N_cls is 256.
    """
    overlaps = overlap(anchors.expand(len(y), -1, 4), y)
    positive, negative = draw(*label_anchors(overlaps), count, ANCHOR_SHARE, random)
    sampled = positive | negative
    goals = encode(gather_rows(y[..., :4], overlaps.argmax(2)), anchors)
    logits = F.binary_cross_entropy_with_logits(
        objectness, positive.float(), sampled.float(), reduction="sum"
    )
    return logits / sampled.sum(), box_loss(offsets, goals, positive) / sampled.sum()


def region_losses(
    logits: Tensor, offsets: Tensor, labels: Tensor, goals: Tensor
) -> tuple[Tensor, Tensor]:
    """Return the losses of regions: of their class logits, and of the offsets of their own class.

    logits (N, R, K + 1), offsets (N, R, K, 4), goals (N, R, 4); labels (N, R) are 0 for background,
    -1 for none. Girshick 2015, eq. 1 to 3, with lambda 1.
    """
    sampled, positive = labels >= 0, labels > 0
    own_class = (labels - 1).clamp(min=0)[..., None, None].expand(-1, -1, 1, 4)
    own = offsets.gather(2, own_class)[:, :, 0]  # (N, R, 4)
    return (
        F.cross_entropy(logits.flatten(0, 1), labels.flatten(), ignore_index=-1),
        box_loss(own, goals, positive) / sampled.sum(),
    )


def box_loss(offsets: Tensor, goals: Tensor, positive: Tensor) -> Tensor:
    """Return the summed smooth L1 loss of the positive rows of offsets and goals (N, A, 4).

    The others are masked, and not left out: to count them, a GPU would have to be waited for.
    """
    reached = torch.where(positive[..., None], goals, offsets.detach())  # goals there may be inf
    return F.smooth_l1_loss(offsets, reached, reduction="sum")


def overlap(boxes: Tensor, y: Tensor) -> Tensor:
    """Return the intersection over union (N, A, M) of boxes (N, A, 4) and true ones (N, M, 5).

    It is -1 where an image has no M-th box.
    """
    # A plane of all boxes for each true one: sums along four numbers, or six, are slow on a CPU.
    left, top, right, bottom = boxes.permute(2, 0, 1).contiguous().unsqueeze(2)  # each (N, 1, A)
    true = y[..., :4].permute(2, 0, 1).unsqueeze(3)  # 4 x (N, M, 1)
    width = torch.minimum(right, true[2]) - torch.maximum(left, true[0])
    height = torch.minimum(bottom, true[3]) - torch.maximum(top, true[1])
    both = width.clamp(min=0) * height.clamp(min=0)  # (N, M, A)
    areas = (right - left) * (bottom - top), (true[2] - true[0]) * (true[3] - true[1])
    shares = both / (areas[0] + areas[1] - both)
    return shares.masked_fill(y[..., 4:] < 0, -1).transpose(1, 2)


def label_anchors(overlaps: Tensor) -> tuple[Tensor, Tensor]:
    """Return which anchors are positive and which are negative, bool (N, A).

    overlaps (N, A, M). Positive are (i) the anchors of the highest overlap with a true box, (ii)
    those above ANCHOR_POSITIVE with any one.
    """
    highest = (overlaps == overlaps.amax(1, keepdim=True)) & (overlaps > 0)
    best = overlaps.amax(2)
    positive = highest.any(2) | (best > ANCHOR_POSITIVE)
    return positive, ~positive & (best < ANCHOR_NEGATIVE)


def draw(
    positive: Tensor, negative: Tensor, count: int, share: float, random: torch.Generator | None
) -> tuple[Tensor, Tensor]:
    """Return the positives and negatives, bool (N, A), of a random sample of `count` in each row.

    At most `share` of them are positive; negatives fill up.
    """
    keys = torch.rand(positive.shape, generator=random, device=positive.device)
    most = torch.full_like(positive[:, :1], int(share * count), dtype=torch.int64)
    positive = draw_from(positive, keys, most, count)
    return positive, draw_from(negative, keys, count - positive.sum(1, keepdim=True), count)


def draw_from(group: Tensor, keys: Tensor, size: Tensor, most: int) -> Tensor:
    """Return the members of a group, bool (N, A), with the `size` (N, 1) smallest keys (N, A).

    Keys are below 1, sizes at most `most`. It finds these alone: to sort all took a tenth of a
    training step.
    """
    keys = keys.masked_fill(~group, 1)
    smallest = F.pad(keys, (0, most + 1), value=1.0).topk(most + 1, largest=False).values
    return group & (keys < smallest.gather(1, size))


def sample_regions(
    proposals: Tensor, valid: Tensor, y: Tensor, count: int, random: torch.Generator | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Return regions (N, R, 4), their labels int64 (N, R), and the nearest true boxes (N, R, 4).

    They are drawn from the proposals (N, P, 4) and the true boxes. Label 0 is background, a class's
    is one more than its index, -1 says that there was nothing to draw.
    """
    boxes = torch.cat([proposals, y[..., :4]], 1)
    valid = torch.cat([valid, y[..., 4] >= 0], 1)
    best, nearest = overlap(boxes, y).max(2)
    truths = gather_rows(y, nearest)  # (N, P + M, 5)
    positive = valid & (best >= REGION_POSITIVE)
    positive, negative = draw(positive, valid & ~positive, count, REGION_SHARE, random)
    labels = torch.where(positive, truths[..., 4].long() + 1, negative.long() - 1)
    drawn = (positive | negative).byte().topk(min(count, boxes.shape[1]), dim=1).indices
    return gather_rows(boxes, drawn), labels.gather(1, drawn), gather_rows(truths[..., :4], drawn)


def objective(outputs: Losses, y: Tensor, train: ResolvedTrain) -> Tensor:
    """Return the sum of the four losses, a scalar."""
    return torch.stack(outputs).sum()


def auxiliary_loss(outputs: Losses, y: Tensor, train: ResolvedTrain) -> float:
    """Return 0: there are no auxiliary heads."""
    return 0.0


def sum_correct(outputs: Losses, y: Tensor) -> Tensor:
    """Return 0: a find is right or wrong by its score's threshold, which stage check varies."""
    return torch.zeros((), device=y.device)


def statistics_forward(net: Any) -> Callable[[Tensor], object]:
    """Return the function from images to feature maps."""
    return lambda x: net.net.features(net.standardise(x))


def finish(net: Any, source: Data, validation: Split) -> None:
    """Leave the network as it is."""
