"""Average precision of object detection, as COCO defines it.

Lin et al. 2014, "Microsoft COCO: Common Objects in Context"; the details are those of COCOeval in
pycocotools, to which a test holds this module. Finds are the outputs of a detector: boxes float32
(N, K, 4) as x_min, y_min, x_max, y_max, labels int64 (N, K), scores float32 (N, K), falling, and
count int64 (N,), the number of rows of each image that are valid. Truth is y float32 (N, M, 5): a
box and the index of its class, -1 in the rows beyond an image's boxes.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Finds = Sequence[Array]  # boxes, labels, scores, count

THRESHOLDS = np.linspace(0.5, 0.95, 10)  # of intersection over union
RECALLS = np.linspace(0, 1, 101)  # where precision is read off its curve
MOST = 100  # finds of a class in an image that average precision ranks, those of the best scores
HALF = THRESHOLDS[:1]
SHOWN = 0.5  # least score of a find that `infer images` prints unless it is told another
AT_HALF, ALL = slice(0, 1), slice(None)  # of THRESHOLDS


def box_overlaps(first: Array, second: Array) -> Array:
    """Return the intersection over union float64 (F, M) of boxes (F, 4) and (M, 4)."""
    first, second = first.astype(np.float64)[:, None], second.astype(np.float64)[None]
    low = np.maximum(first[..., :2], second[..., :2])
    high = np.minimum(first[..., 2:], second[..., 2:])
    shared = np.prod(np.clip(high - low, 0, None), -1)
    areas = [np.prod(boxes[..., 2:] - boxes[..., :2], -1) for boxes in (first, second)]
    union = areas[0] + areas[1] - shared
    return np.asarray(np.divide(shared, union, out=np.zeros_like(shared), where=union > 0))


def match_finds(finds: Finds, y: Array, threshold: float = 0.5) -> Array:
    """Return for each find the row of y that it finds, -1 where it finds none, int64 (N, K).

    From the best score down, each find takes the free box of its class that it overlaps most, if by
    `threshold` at least; of equal ones the last, as COCOeval.
    """
    boxes, labels, _, count = finds
    taken = np.full(labels.shape, -1)
    for row, truth in enumerate(y):
        overlaps = box_overlaps(boxes[row, : count[row]], truth[:, :4])
        overlaps[labels[row, : count[row], None] != truth[:, 4]] = -1
        for find, over in enumerate(overlaps):
            best = len(over) - 1 - int(over[::-1].argmax())
            if over[best] >= threshold:
                taken[row, find] = best
                overlaps[:, best] = -1
    return taken


@dataclass(frozen=True)
class ClassFinds:
    """The finds of one class in all images, best score first, and which of them are right."""

    image: Array  # int64 (F,), the row of each find's image
    right: Array  # bool (thresholds, F)
    truths: Array  # int64 (N,), boxes of this class in each image


def finds_by_class(
    finds: Finds, y: Array, classes: int, thresholds: Array = THRESHOLDS
) -> list[ClassFinds]:
    """Return the finds of each class, matched with the boxes of y at each threshold: of each image
    the MOST of the best scores.
    """
    _, labels, scores, count = finds
    right = np.stack([match_finds(finds, y, threshold) >= 0 for threshold in thresholds])
    valid = np.arange(labels.shape[1]) < count[:, None]
    matched = []
    for label in range(classes):
        own = valid & (labels == label)
        image, find = np.nonzero(own & (own.cumsum(1) <= MOST))
        order = np.argsort(-scores[image, find], kind="stable")
        truths = (y[..., 4] == label).sum(1)
        matched.append(ClassFinds(image[order], right[:, image, find][:, order], truths))
    return matched


def precision_curve(
    found: ClassFinds, thresholds: slice = AT_HALF, images: Array | None = None
) -> Array | None:
    """Return precision at each recall of RECALLS, (thresholds, 101); None without a true box.

    It is the highest precision at this recall or a higher one, 0 beyond the highest recall. images:
    how often each image counts, (N,), once by default; a draw of the bootstrap repeats some.
    """
    images = np.ones(len(found.truths), np.int64) if images is None else images
    if not (total := images @ found.truths):
        return None
    right, weight = found.right[thresholds], images[found.image]
    hits, tried = np.cumsum(right * weight, axis=1), np.cumsum(weight)
    precision = np.zeros((len(right), len(tried) + 1))
    precision[:, :-1] = hits / np.maximum(tried, 1)
    highest = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
    reached = [np.searchsorted(recall, RECALLS) for recall in hits / total]
    return np.stack([row[at] for row, at in zip(highest, reached, strict=True)])


def mean_curve(
    matched: list[ClassFinds], thresholds: slice = AT_HALF, rows: Array | None = None
) -> Array:
    """Return the mean of `precision_curve` over the classes that have a box, (thresholds, 101).

    Its mean is mean average precision. rows: numbers of the images that count, all by default.
    Zeros where no class has a box.
    """
    n = len(matched[0].truths)
    images = None if rows is None else np.bincount(rows, minlength=n)
    curves = [precision_curve(found, thresholds, images) for found in matched]
    known = [curve for curve in curves if curve is not None]
    return np.mean(known, axis=0) if known else np.zeros((1, len(RECALLS)))


def average_precision(finds: Finds, y: Array, classes: int) -> tuple[float, float]:
    """Return mean average precision at an overlap of .5, and its mean over .5, .55, ... .95."""
    matched = finds_by_class(finds, y, classes)
    return float(mean_curve(matched).mean()), float(mean_curve(matched, ALL).mean())
