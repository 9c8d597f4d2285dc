"""Detectors: average precision on a user's own boxes in COCO's format."""

from typing import Any

import numpy as np
import numpy.typing as npt

from convline.errors import InputError
from convline.images.annotations import read_coco
from convline.images.detector import Detector
from convline.images.image_model import Options
from convline.metrics.detection import (
    ALL,
    finds_by_class,
    match_finds,
    mean_curve,
    precision_curve,
)
from convline.report.evaluate.answers import (
    Report,
    Truth,
    Unread,
    answers,
    format_proportion,
    label_indices,
    proportion,
)
from convline.report.text_table import format_table
from convline.runtime.sources import Source


def evaluate(model: Detector, truth: Truth) -> Report:
    """Return COCO's average precision, and how many boxes are found and finds right at the model's
    own least score.

    Average precision ranks all finds; a box is found by a find of its class that overlaps it by
    half or more.
    """
    images, labels = read_coco(*truth.coco())
    if not labels:
        raise InputError(truth.where, "expected boxes, got captions alone")
    indices = np.array(label_indices(model.labels, labels, truth.where))
    unread: Unread = []
    sources = [Source(str(image.path)) for image in images]
    boxes, labels_found, scores, true = [], [], [], []
    for place, one in answers(model, sources, Options(min_score=0), truth.where, unread):
        boxes.append(one.boxes)
        labels_found.append(np.array([model.labels.index(label) for label in one.labels], int))
        scores.append(one.scores)
        y_labels = indices[images[place].labels][:, None]
        true.append(np.concatenate([images[place].boxes, y_labels], axis=1))
    count = np.array([len(one) for one in scores])
    found = _stack(boxes, 0), _stack(labels_found, -1), _stack(scores, 0), count
    y = _stack(true, -1)
    least = model.document.min_score
    shown = (found[1] >= 0) & (found[2] >= least)
    right = shown & (match_finds(found, y) >= 0)
    matched = finds_by_class(found, y, len(model.labels))
    curves = [precision_curve(one) for one in matched]
    return {
        "images": len(count),
        "map50": float(mean_curve(matched).mean()),
        "map": float(mean_curve(matched, ALL).mean()),
        "min_score": least,
        "found": proportion(int(right.sum()), int((y[..., 4] >= 0).sum())),
        "right": proportion(int(right.sum()), int(shown.sum())),
        "classes": [
            {
                "label": label,
                "boxes": int(matched[index].truths.sum()),
                "ap50": None if curve is None else float(curve.mean()),
                "found": int((right & (found[1] == index)).sum()),
                "finds": int((shown & (found[1] == index)).sum()),
            }
            for index, (label, curve) in enumerate(zip(model.labels, curves, strict=True))
        ],
        "unread": unread,
    }


def _stack(rows: list[npt.NDArray[Any]], fill: int) -> npt.NDArray[Any]:
    """Return the rows of each image (N, M, ...), filled up to the most of any image, at least 1."""
    stacked = np.full((len(rows), max(1, *map(len, rows)), *rows[0].shape[1:]), fill, rows[0].dtype)
    for whole, some in zip(stacked, rows, strict=True):
        whole[: len(some)] = some
    return stacked


def tables(report: Report) -> list[str]:
    figures = [
        ["images", report["images"]],
        ["mAP at .5", report["map50"]],
        ["mAP at .5 to .95", report["map"]],
        [f"boxes found, score {report['min_score']:g} or more", format_proportion(report["found"])],
        ["finds that are right", format_proportion(report["right"])],
    ]
    keys = ("label", "boxes", "ap50", "found", "finds")
    classes = [["class", "boxes", "AP at .5", "found", "finds"]]
    classes += [[one[key] for key in keys] for one in report["classes"]]
    return [format_table(figures), format_table(classes, right_aligned=range(1, 5))]
