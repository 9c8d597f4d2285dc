"""Detection: mean average precision of the finds."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
from convline.images.detector import Detector, FindsGap, compare_finds
from convline.metrics.detection import HALF, SHOWN, finds_by_class

from pipeline.check.differences import require_shapes
from pipeline.check.metric_loss import MetricLoss, drawn_loss
from pipeline.check.predictions import Model, Outputs
from pipeline.check.predictions import answers as answers
from pipeline.data.dataset import Data
from pipeline.evaluate.detection import drawn_precision, measure_detection
from pipeline.evaluate.metrics import compare_with_constant

NAMED = 5  # finds at the edge, at most
PAIRS_A_TIE = 100  # pairs of finds, for each that may be of two boxes
BEYOND = (
    "{count} finds are on one side alone, at the edge of a threshold or of a suppression, "
    "or another box of the same score"
)


def compare(
    model: Model, outputs: Outputs, expected: Outputs, count: int, close: float
) -> dict[str, Any]:
    """Return the differences of finds, matched one to one; in `beyond` the number of those that
    only one side has for a reason, or that are another box, and in `edge` some of them.

    The reason is a score at the edge of a threshold, or one below the score from which `infer`
    shows finds, where rounding may change which of two boxes suppresses the other. The threshold is
    torch's lowest score, for the network's own is not in the file; the edge is as wide as the file
    may differ from torch. Boxes differ in shares of the image's longer side. A find that only one
    side has for no such reason is a difference of 1. Of a hundred pairs one may be of two boxes
    with the same score, of which rounding decides which is kept; it is no difference then.
    """
    require_shapes(outputs, expected, count)
    assert isinstance(model, Detector)
    longer, close = max(model.rule.size), max(close, model.golden_atol)
    min_score = model.document.min_score
    least = float(expected[2][is_valid(expected)].min(initial=min_score))
    edge, found = list[str](), list[FindsGap]()
    for row in range(count):
        pair = one_image(outputs, row), one_image(expected, row)
        gap = compare_finds(*pair, longer, least, close)
        named = gap.edge
        if gap.lost and not (shown := compare_finds(*pair, longer, min_score, close)).lost:
            named, gap = [*gap.edge, *gap.lost], shown
        found.append(gap)
        edge += [f"image {row}{name.removeprefix('image 0')}" for name in named]
    ties = [
        (boxes, scores, row)
        for row, gap in enumerate(found)
        for boxes, scores in gap.pairs
        if scores <= close < boxes
    ]
    allowed = sum(len(gap.pairs) for gap in found) // PAIRS_A_TIE
    for boxes, scores, row in sorted(ties, reverse=True)[:allowed]:
        found[row].pairs.remove((boxes, scores))
        edge.insert(0, f"image {row}: another box of the same score, {boxes:.4f} apart")
    differences = np.array([gap.difference for gap in found])
    largest = float(differences.max(initial=0.0))
    return {
        "finite": all(bool(np.isfinite(one).all()) for one in outputs),
        "max_difference": largest,
        "relative": largest,  # scores are at most 1, boxes are in shares of the longer side
        "mean_difference": float(differences.mean()) if count else 0.0,
        "worst_row": int(differences.argmax()) if count else 0,
        "beyond": len(edge),
        "edge": edge[:NAMED],
    }


def is_valid(outputs: Outputs) -> np.ndarray:
    """Return which rows of finds are finds, bool (N, K)."""
    _, labels, _, count = outputs
    return np.arange(labels.shape[1]) < count[:, None]


def one_image(outputs: Outputs, row: int) -> tuple[np.ndarray, ...]:
    """Return the outputs (1, ...) of one image of a batch."""
    return tuple(output[row : row + 1] for output in outputs)


def measure(
    found: Outputs, torch: Outputs, source: Data
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Return mAP50 and its worth, and {"boxes", "labels", "scores", "count", "y"}."""
    y = np.asarray(source.y["test"])
    arrays = dict(zip(("boxes", "labels", "scores", "count"), found, strict=True))
    return measure_detection(found, torch, y, source.about["labels"]), arrays | {"y": y}


def record(found: Outputs) -> np.ndarray:
    """Return the finds as one array float32 (N, K, 6): box, label and score.

    The label is -1 in the rows beyond an image's finds.
    """
    boxes, labels, scores, _ = found
    return np.concatenate(
        [boxes, np.where(is_valid(found), labels, -1)[..., None], scores[..., None]],
        2,
        dtype=np.float32,
    )


def compare_with_baseline(metric: dict[str, Any], source: Data) -> dict[str, Any]:
    """Return how mAP50 compares with that of the mean box of the most frequent class."""
    return compare_with_constant(metric)


def lose(fp32: Outputs, found: Outputs, source: Data) -> MetricLoss:
    """Return the mAP50 that the variant loses, and the share of images with the same finds.

    The same are as many finds of each class, with a score of SHOWN or more.
    """
    y, classes = np.asarray(source.y["test"]), len(source.about["labels"])
    fp32_matched, matched = (finds_by_class(one, y, classes, HALF) for one in (fp32, found))
    fp32_shown, shown = (count_shown(one, classes) for one in (fp32, found))
    agreement = float((fp32_shown == shown).all(1).mean())
    precisions = partial(drawn_precision, fp32_matched), partial(drawn_precision, matched)
    return drawn_loss(*precisions, len(y), agreement)


def count_shown(found: Outputs, classes: int) -> np.ndarray:
    """Return the finds of each class with a score of SHOWN or more, int64 (N, K)."""
    _, labels, scores, _ = found
    shown = is_valid(found) & (scores >= SHOWN)
    return (shown[..., None] & (labels[..., None] == np.arange(classes))).sum(1)
