"""Metrics of semantic segmentation, from the confusion matrix of the pixels of each image.

Long et al. 2015, "Fully convolutional networks for semantic segmentation", section 5; Farabet et
al. 2013, "Learning hierarchical features for scene labeling", report pixel and class accuracy.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

VOID = 255  # pixels that are not judged


def confusions(masks: Sequence[Array] | Array, y: Sequence[Array] | Array, classes: int) -> Array:
    """Return pixels by true class (row) and answered class (column) of each image, (N, K, K).

    masks and y: uint8 (N, H, W), or lists of (H, W). Pixels whose truth is VOID are left out.
    """
    counts = []
    for mask, truth in zip(masks, y, strict=True):
        judged = truth != VOID
        pairs = classes * truth[judged].astype(np.int64) + mask[judged]
        counts.append(np.bincount(pairs, minlength=classes**2).reshape(classes, classes))
    return np.stack(counts)


def class_overlaps(confusion: Array) -> Array:
    """Return the intersection over union of each class, (K,); NaN where no true pixel is of it."""
    hits, true = np.diag(confusion), confusion.sum(1)
    union = true + confusion.sum(0) - hits
    return np.asarray(np.divide(hits, union, out=np.full(len(hits), np.nan), where=true > 0))


def mean_overlap(counts: Array, rows: Array | slice = slice(None)) -> float:
    """Return mean IoU over the classes that occur in the truth of the images `rows`.

    counts: of `confusions`. It is 0 where every pixel is VOID.
    """
    overlaps = class_overlaps(counts[rows].sum(0))
    return float(np.nanmean(overlaps)) if np.isfinite(overlaps).any() else 0.0


def pixel_accuracies(confusion: Array) -> tuple[float, float]:
    """Return the share of pixels that are right, and the mean of this share over the classes.

    Both are 0 where every pixel is VOID.
    """
    right, true = np.diag(confusion), confusion.sum(1)
    occurs = true > 0
    if not occurs.any():
        return 0.0, 0.0
    return float(right.sum() / true.sum()), float((right[occurs] / true[occurs]).mean())
