"""What a classifier's page says of its test split: classes, confusions, confidence, mistakes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from pipeline.plots import style
from pipeline.report import class_metrics
from pipeline.report.confidence import confidence_context
from pipeline.report.mistakes import mistakes_context, names_of_test_images
from pipeline.report.result_files import Entry

MAX_QUERIES = 10  # one of each class
MAX_ROWS = 40  # of the table of classes; the others are folded away
MAX_MATRIX_CLASSES = 40  # of more classes, only the most frequent confusions are listed


def error_context(entry: Entry, img: Path) -> dict[str, Any] | None:
    """Return the context of classifier.html.j2; None before stage check has run on these data."""
    if entry.predictions is None or entry.metric is None:
        return None
    about = entry.results["data"]
    labels, truth = about["labels"], entry.predictions["y"]
    probabilities = entry.predictions["probabilities"]
    counts = confusion_matrix(truth, probabilities)
    classes = class_metrics.measure_classes(truth, probabilities, counts)
    curves = img / f"{entry.name}.precision-recall.png"
    return {
        "labels": labels,
        "matrix": counts.tolist() if len(labels) <= MAX_MATRIX_CLASSES else None,
        "pairs": frequent_confusions(counts, labels),
        "errors": int((probabilities.argmax(1) != truth).sum()),
        "n": len(truth),
        "worst": class_metrics.describe_worst_class(classes, labels),
        "classes": class_metrics.class_table(classes[:MAX_ROWS], labels),
        "other_classes": class_metrics.class_table(classes[MAX_ROWS:], labels),
        "curves": class_metrics.precision_recall_curves(
            classes, truth, probabilities, labels, curves
        ),
        "all_curves": sum(row["images"] > 0 for row in classes) <= class_metrics.MAX_CURVES,
        "confidence": confidence_context(truth, probabilities, entry.name, img),
        "mistakes": mistakes_context(entry, img),
        "neighbours": nearest_neighbours(entry, img),
    }


def nearest_neighbours(entry: Entry, img: Path) -> dict[str, Any] | None:
    """Draw test images beside their nearest training images in feature space, one per class."""
    database, classes = entry.array("train_x"), entry.array("train_y")
    if entry.predictions is None or "nearest" not in entry.predictions or entry.images is None:
        return None
    if database is None or classes is None:
        return None
    if entry.predictions["nearest"].max(initial=0) >= len(classes):  # of earlier training images
        return None
    labels, truth = entry.results["data"]["labels"], entry.predictions["y"]
    first_of_class = [np.flatnonzero(truth == k)[:1] for k in range(len(labels))]
    queries = np.concatenate(first_of_class)[:MAX_QUERIES]
    rows, names_of = [], names_of_test_images(entry, len(truth))
    for query in queries:
        nearest = entry.predictions["nearest"][query]
        names = [labels[k] for k in classes[nearest]]
        query_image, query_label = entry.images[query], labels[truth[query]]
        rows.append((query_image, query_label, [database[row] for row in nearest], names))
    picture = style.draw_neighbours(rows, img / f"{entry.name}.neighbours.png")
    return {
        "picture": picture,
        "files": [names_of[query] for query in queries],
        "facts": entry.results["check"]["retrieval"],
    }


def confusion_matrix(truth: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """Return counts (K, K): rows are true classes, columns are predicted classes."""
    counts = np.zeros((probabilities.shape[1],) * 2, np.int64)
    np.add.at(counts, (truth, probabilities.argmax(1)), 1)
    return counts


def frequent_confusions(
    counts: np.ndarray, labels: list[str], most: int = 10
) -> list[tuple[str, str, int]]:
    """Return (true label, predicted label, count) of the most frequent errors, in falling order."""
    off = counts - np.diag(np.diag(counts))
    order = np.argsort(-off, axis=None, kind="stable")[:most]
    cells = [np.unravel_index(cell, off.shape) for cell in order if off.flat[cell] > 0]
    return [(labels[i], labels[j], int(off[i, j])) for i, j in cells]
