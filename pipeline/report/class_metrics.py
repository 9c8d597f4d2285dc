"""Precision, recall, F1 and average precision of each class, and its precision-recall curve."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from convline.report.confidence_interval import wilson_interval

from pipeline.plots.classifier import draw_precision_recall
from pipeline.plots.style import Picture
from pipeline.report.tables import Cell, Column, Table

MAX_CURVES = 10  # of more classes, the curves of WORST_CURVES are drawn
WORST_CURVES = 5
TITLES = ("Test images", "Precision", "Recall [95\u00a0%]", "F1", "Average precision")


def measure_classes(
    truth: np.ndarray, probabilities: np.ndarray, counts: np.ndarray
) -> list[dict[str, Any]]:
    """Return the metrics of each class, the lowest F1 first; classes without test images last.

    truth (n,), probabilities (n, K), counts: the confusion matrix (K, K). `precision` is None for a
    class that is never predicted; `recall`, `f1` and `average_precision` are None for a class
    without test images; `taken_for` is (class, images) of its most frequent wrong prediction.
    """
    rows = [measure_class(k, truth, probabilities[:, k], counts) for k in range(len(counts))]

    def badness(row: dict[str, Any]) -> tuple[bool, float, float]:
        return row["f1"] is None, row["f1"] or 0, row["average_precision"] or 0

    return sorted(rows, key=badness)


def measure_class(
    k: int, truth: np.ndarray, score: np.ndarray, counts: np.ndarray
) -> dict[str, Any]:
    """Return the metrics of class k, whose probability is `score` (n,)."""
    from sklearn.metrics import average_precision_score  # late: fails where torch is blocked

    images, predicted, hits = int(counts[k].sum()), int(counts[:, k].sum()), int(counts[k, k])
    row: dict[str, Any] = {"class": k, "images": images, "predicted": predicted, "hits": hits}
    row["precision"] = hits / predicted if predicted else None
    if not images:
        return row | dict.fromkeys(
            ("recall", "low", "high", "f1", "average_precision", "taken_for")
        )
    wrong = np.where(np.arange(len(counts)) == k, 0, counts[k])
    low, high = wilson_interval(hits, images)
    return row | {
        "recall": hits / images,
        "low": low,
        "high": high,
        "f1": 2 * hits / (images + predicted),
        "average_precision": float(average_precision_score(truth == k, score)),
        "taken_for": (int(wrong.argmax()), int(wrong.max())) if wrong.any() else None,
    }


def describe_worst_class(rows: list[dict[str, Any]], labels: list[str]) -> str:
    """Return sentences about the class of the lowest F1, and about classes without test images."""
    tested = [row for row in rows if row["images"]]
    text = "Each class has all its test images right."
    if tested and tested[0]["f1"] < 1:
        worst = tested[0]
        name, wrong = labels[worst["class"]], worst["predicted"] - worst["hits"]
        others = f"{wrong} images of other classes are" if wrong > 1 else "1 image of another is"
        are = "is" if worst["hits"] == 1 else "are"
        text = (
            f"The worst class is {name} (F1 {worst['f1']:.3f}): {worst['hits']} of its "
            f"{worst['images']} test images {are} classified correctly, and "
            f"{others if wrong else 'no image of another is'} taken for it"
        )
        if worst["taken_for"]:
            k, images = worst["taken_for"]
            times = "1 image" if images == 1 else f"{images} images"
            text += f"; it is most often taken for {labels[k]} ({times})"
        text += "."
    if untested := [labels[row["class"]] for row in rows if not row["images"]]:
        first = ", ".join(untested[:5]) + (", …" if len(untested) > 5 else "")
        many = "1 class has" if len(untested) == 1 else f"{len(untested)} classes have"
        text += f" {many} no test image: {first}."
    return text


def class_table(rows: list[dict[str, Any]], labels: list[str]) -> Table:
    """Return a sortable row for each class."""
    columns = [Column("Class"), *(Column(title, number=True) for title in TITLES)]
    return Table([*columns, Column("Most often taken for")], [class_row(r, labels) for r in rows])


def class_row(row: dict[str, Any], labels: list[str]) -> list[Cell]:
    label = labels[row["class"]]
    recall, taken = proportion_cell(row["recall"]), row["taken_for"]
    if row["images"]:
        interval = f"{recall.text} [{row['low']:.3f}, {row['high']:.3f}]"
        recall = Cell(interval, row["recall"])
    return [
        Cell(label, label),
        Cell(f"{row['images']:,}" if row["images"] else "no test image", row["images"]),
        proportion_cell(row["precision"]),
        recall,
        *[proportion_cell(row[key]) for key in ("f1", "average_precision")],
        Cell(f"{labels[taken[0]]} ({taken[1]})", labels[taken[0]]) if taken else Cell("–"),
    ]


def proportion_cell(proportion: float | None) -> Cell:
    return Cell("–") if proportion is None else Cell(f"{proportion:.3f}", proportion)


def precision_recall_curves(
    rows: list[dict[str, Any]],
    truth: np.ndarray,
    probabilities: np.ndarray,
    labels: list[str],
    path: Path,
) -> Picture | None:
    """Draw the curves of `rows`, of all classes or of the worst; None without test images."""
    from sklearn.metrics import precision_recall_curve  # late: fails where torch is blocked

    tested = [row for row in rows if row["images"]]
    if not tested:
        return None
    curves = []
    for row in tested if len(tested) <= MAX_CURVES else tested[:WORST_CURVES]:
        k = row["class"]
        precision, recall, _ = precision_recall_curve(truth == k, probabilities[:, k])
        curves.append((labels[k], row["average_precision"], precision, recall))
    return draw_precision_recall(sorted(curves, key=lambda curve: curve[1]), path)
