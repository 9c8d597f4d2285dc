"""Arithmetic of boxes for detectors, their training and their export.

Imports torchvision when suppression runs and not before: every training imports this file, and
torchvision takes longer to import than torch.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

MOST_GROWTH = math.log(1000 / 16)  # of a side, so that exp does not overflow; as in Detectron


@torch.library.custom_op("convline::nms_mask", mutates_args=())
def nms_mask(boxes: Tensor, scores: Tensor, overlap: float, least: float) -> Tensor:
    """Return which boxes non-maximum suppression keeps in each row, bool (M, R).

    boxes (M, R, 4), scores (M, R). A box is kept if its score is above `least` and no kept box of a
    higher score in its row overlaps it by more than `overlap`, as intersection over union. One
    operator, whose output has a fixed shape: stage export writes it as ONNX's NonMaxSuppression.
    """
    from torchvision import ops

    kept = torch.zeros_like(scores, dtype=torch.bool)
    for row in range(len(boxes)):
        (above,) = torch.where(scores[row] > least)
        kept[row, above[ops.nms(boxes[row, above], scores[row, above], overlap)]] = True
    return kept


@nms_mask.register_fake
def _(boxes: Tensor, scores: Tensor, overlap: float, least: float) -> Tensor:
    return torch.empty_like(scores, dtype=torch.bool)


def encode(boxes: Tensor, anchors: Tensor) -> Tensor:
    """Return the offsets (..., 4) that lead from anchors to boxes, both (..., 4) corners.

    Ren et al. 2017, arXiv:1506.01497, eq. 2.
    """
    size, anchor_size = boxes[..., 2:] - boxes[..., :2], anchors[..., 2:] - anchors[..., :2]
    shift = (boxes[..., :2] + size / 2 - anchors[..., :2] - anchor_size / 2) / anchor_size
    return torch.cat([shift, (size / anchor_size).log()], -1)


def decode(offsets: Tensor, anchors: Tensor) -> Tensor:
    """Return the boxes (..., 4) that offsets lead to from anchors; the inverse of `encode`."""
    anchor_size = anchors[..., 2:] - anchors[..., :2]
    centre = anchors[..., :2] + anchor_size / 2 + offsets[..., :2] * anchor_size
    size = anchor_size * offsets[..., 2:].clamp(max=MOST_GROWTH).exp()
    return torch.cat([centre - size / 2, centre + size / 2], -1)


def odds(probabilities: Tensor) -> Tensor:
    """Return p / (1 - p) of probabilities (..., K) that sum to 1, with 1 - p as the others' sum.

    They rank boxes as p does, but near 1 float32 has steps of 6e-8: at .9999 three digits of 1 - p
    are left, boxes tie, and rounding decides which of them suppresses the others.
    """
    before = F.pad(probabilities, (1, 0))[..., :-1].cumsum(-1)
    after = F.pad(probabilities, (0, 1))[..., 1:].flip(-1).cumsum(-1).flip(-1)
    return probabilities / (before + after)


def gather_rows(rows: Tensor, index: Tensor) -> Tensor:
    """Return rows (N, R, ...) of (N, A, ...) at index (N, R)."""
    index = index.reshape(*index.shape, *[1] * (rows.dim() - 2))
    return rows.gather(1, index.expand(*index.shape[:2], *rows.shape[2:]))
