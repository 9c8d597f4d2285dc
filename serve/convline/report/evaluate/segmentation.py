"""Segmentation: overlap of the classes with a user's own masks."""

from dataclasses import replace
from pathlib import Path

import numpy as np

from convline.errors import InputError
from convline.images.annotations import draw_mask, find_mask_folders, read_coco, read_masks
from convline.images.image_model import Options
from convline.images.segmenter import Segmenter
from convline.metrics.segmentation import class_overlaps, confusions, mean_overlap, pixel_accuracies
from convline.report.evaluate.answers import Report, Truth, Unread, answers, label_indices
from convline.report.text_table import format_table
from convline.runtime.sources import Source


def evaluate(model: Segmenter, truth: Truth) -> Report:
    """Return mean IoU, pixel and class accuracy, and IoU of each class, over all pixels that are
    not void.

    The truth is a folder of masks, whose indices are the model's, or a COCO file with polygons.
    """
    if truth.where.lower().endswith(".json"):
        images, labels = read_coco(*truth.coco())
        if not any(polygons for image in images for polygons in image.polygons):
            got = f"got {'boxes' if labels else 'captions'} alone"
            raise InputError(truth.where, f"expected polygons, {got}; add some")
        indices = np.array(label_indices(model.labels[1:], labels, truth.where))
        images = [replace(image, labels=indices[image.labels]) for image in images]
    else:
        if truth.path and truth.labels:
            folders = Path(truth.path), Path(truth.labels)
        else:
            folders = find_mask_folders(Path(truth.where))
        images, _ = read_masks(*folders, model.labels[1:])
    unread: Unread = []
    sources = [Source(str(image.path)) for image in images]
    confusion = np.zeros((len(model.labels),) * 2, np.int64)
    for place, answer in answers(model, sources, Options(), truth.where, unread):
        masks = [np.asarray(answer.picture())], [draw_mask(images[place], model.labels)]
        confusion += confusions(*masks, len(model.labels))[0]
    overlaps, (pixels, classes) = class_overlaps(confusion), pixel_accuracies(confusion)
    return {
        "images": len(images) - len(unread),
        "mean_iou": mean_overlap(confusion[None]),
        "pixel_accuracy": pixels,
        "class_accuracy": classes,
        "classes": [
            {
                "label": label,
                "pixels": int(row.sum()),
                "iou": float(overlap),
                "accuracy": float(row[index] / row.sum()),
            }
            for index, (label, row, overlap) in enumerate(
                zip(model.labels, confusion, overlaps, strict=True)
            )
            if row.sum()
        ],
        "unread": unread,
    }


def tables(report: Report) -> list[str]:
    names = {"images": "images", "mean_iou": "mean IoU", "pixel_accuracy": "pixel accuracy"}
    names["class_accuracy"] = "class accuracy"
    keys = ("label", "pixels", "iou", "accuracy")
    classes = [["class", "pixels", "IoU", "accuracy"]]
    classes += [[one[key] for key in keys] for one in report["classes"]]
    return [
        format_table([[name, report[key]] for key, name in names.items()]),
        format_table(classes, right_aligned=range(1, 4)),
    ]
