"""The sections of a detector's page: finds over test images, precision and recall, mistakes."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from convline.errors import describe_count
from convline.metrics.detection import (
    ALL,
    RECALLS,
    SHOWN,
    ClassFinds,
    box_overlaps,
    finds_by_class,
    match_finds,
    precision_curve,
)

from pipeline.plots.classifier import draw_precision_recall
from pipeline.plots.finds import Kind, draw_finds
from pipeline.plots.style import Picture
from pipeline.report.class_metrics import MAX_CURVES, WORST_CURVES, proportion_cell
from pipeline.report.mistakes import (
    MAX_ROWS,
    format_row,
    names_of_test_images,
    shorten_name,
    write_mistakes,
)
from pipeline.report.result_files import Entry
from pipeline.report.tables import Cell, Column, Table

THRESHOLDS = (0.1, 0.3, 0.5, 0.7, 0.9)
OVERLAP = 0.5  # from which on a find is right
MAX_PICTURES = 12
TITLES = ("True boxes", "Found", "Finds", "Precision", "Recall", "AP50", "AP")


@dataclass(frozen=True)
class JudgedFinds:
    """The finds of the test images and their truth; arrays as in convline.metrics.detection."""

    boxes: np.ndarray
    labels: np.ndarray
    scores: np.ndarray
    count: np.ndarray
    y: np.ndarray

    @property
    def finds(self) -> tuple[np.ndarray, ...]:
        return self.boxes, self.labels, self.scores, self.count

    @cached_property
    def taken(self) -> np.ndarray:
        """The row of y that each find takes, -1 for a false one, int64 (N, K)."""
        return match_finds(self.finds, self.y, OVERLAP)

    def above(self, score: float) -> np.ndarray:
        """Return which finds have this score or more, bool (N, K)."""
        valid = np.arange(self.labels.shape[1]) < self.count[:, None]
        return np.asarray(valid & (self.scores >= score))

    @cached_property
    def right(self) -> np.ndarray:
        return self.above(SHOWN) & (self.taken >= 0)

    @cached_property
    def false(self) -> np.ndarray:
        return self.above(SHOWN) & (self.taken < 0)

    @cached_property
    def missed(self) -> np.ndarray:
        """Which rows of y are true boxes without a find, bool (N, M)."""
        missed = self.y[..., 4] >= 0
        image, find = np.nonzero(self.right)
        missed[image, self.taken[image, find]] = False
        return missed

    def mistaken_for(self, image: int, find: int) -> int | None:
        """Return the true class of the missed box that a false find lies on, None for none."""
        missed = self.y[image, self.missed[image]]
        overlaps = box_overlaps(self.boxes[image, find][None], missed[:, :4])[0]
        if not len(missed) or overlaps.max() < OVERLAP:
            return None
        return int(missed[overlaps.argmax(), 4])


def detector_context(entry: Entry, img: Path) -> dict[str, Any] | None:
    """Return the context of detector.html.j2; None before stage check has run on these data."""
    if entry.predictions is None or entry.metric is None:
        return None
    arrays = (entry.predictions[name] for name in ("boxes", "labels", "scores", "count", "y"))
    found, labels = JudgedFinds(*arrays), entry.results["data"]["labels"]
    names = names_of_test_images(entry, len(found.y))
    matched = finds_by_class(found.finds, found.y, len(labels))
    rows = sorted(measure_classes(found, matched), key=badness)
    mistakes = list_mistakes(found, names, labels)
    if mistakes:
        write_mistakes(img.parent / f"{entry.name}.mistakes.csv", mistakes)
    return {
        "shown": SHOWN,
        "counts": [int(kind.sum()) for kind in (found.right, found.missed, found.false)],
        "truths": int((found.y[..., 4] >= 0).sum()),
        "n": len(found.y),
        "worst": describe_worst_class(rows, labels),
        "classes": class_table(rows, labels),
        "curves": draw_curves(rows, matched, labels, img / f"{entry.name}.precision-recall.png"),
        "all_curves": sum(row["truths"] > 0 for row in rows) <= MAX_CURVES,
        "thresholds": [threshold_row(found, score) for score in THRESHOLDS],
        "pictures": draw_pictures(entry, found, names, img),
        "mistakes": [format_row(row) for row in mistakes[:MAX_ROWS]],
        "mistakes_count": len(mistakes),
        "csv": f"{entry.name}.mistakes.csv",
    }


def measure_classes(found: JudgedFinds, matched: list[ClassFinds]) -> list[dict[str, Any]]:
    """Return the counts at score SHOWN and the average precisions of each class.

    Average precisions are None for a class without a true box.
    """
    rows = []
    for k, of_class in enumerate(matched):
        finds, hits = (
            int((kind & (found.labels == k)).sum()) for kind in (found.above(SHOWN), found.right)
        )
        curves = precision_curve(of_class, ALL)
        rows.append(
            {
                "class": k,
                "truths": int(of_class.truths.sum()),
                "hits": hits,
                "finds": finds,
                "ap50": None if curves is None else float(curves[0].mean()),
                "ap": None if curves is None else float(curves.mean()),
            }
        )
    return rows


def badness(row: dict[str, Any]) -> tuple[bool, float, float]:
    """Return what sorts the worst class first, and classes without a true box last."""
    return row["ap50"] is None, row["ap50"] or 0, row["ap"] or 0


def describe_worst_class(rows: list[dict[str, Any]], labels: list[str]) -> str:
    worst = rows[0]
    if worst["ap50"] is None:
        return "No test image has a true box."
    if worst["hits"] == worst["finds"] == worst["truths"]:
        return "Each class is found without a mistake."
    return (
        f"The worst class is {labels[worst['class']]} (average precision {worst['ap50']:.3f}): "
        f"{worst['hits']:,} of its {worst['truths']:,} true boxes are found, and "
        f"{describe_count(worst['finds'] - worst['hits'], 'false find')} of it."
    )


def class_table(rows: list[dict[str, Any]], labels: list[str]) -> Table:
    """Return a sortable row for each class."""
    columns = [Column("Class"), *(Column(title, number=True) for title in TITLES)]
    return Table(columns, [class_row(row, labels[row["class"]]) for row in rows])


def class_row(row: dict[str, Any], label: str) -> list[Cell]:
    counts = [row[key] for key in ("truths", "hits", "finds")]
    shares = [row["hits"] / row[of] if row[of] else None for of in ("finds", "truths")]
    return [
        Cell(label, label),
        *[Cell(f"{count:,}", count) for count in counts],
        *[proportion_cell(share) for share in (*shares, row["ap50"], row["ap"])],
    ]


def draw_curves(
    rows: list[dict[str, Any]], matched: list[ClassFinds], labels: list[str], path: Path
) -> Picture | None:
    """Draw precision over recall of all classes or of the worst; None without a true box."""
    tested = [row for row in rows if row["ap50"] is not None]
    curves = []
    for row in tested if len(tested) <= MAX_CURVES else tested[:WORST_CURVES]:
        curve = precision_curve(matched[row["class"]])
        assert curve is not None
        curves.append((labels[row["class"]], row["ap50"], curve[0, ::-1], RECALLS[::-1]))
    return draw_precision_recall(curves, path) if curves else None


def threshold_row(found: JudgedFinds, score: float) -> list[str]:
    """Return score, finds of this score or more, their precision, and the recall."""
    above = found.above(score)
    finds, hits = int(above.sum()), int((above & (found.taken >= 0)).sum())
    truths = int((found.y[..., 4] >= 0).sum())
    shares = (f"{hits / of:.3f}" if of else "–" for of in (finds, truths))
    return [f"{score:g}", f"{finds:,}", *shares]


def list_mistakes(found: JudgedFinds, names: list[str], labels: list[str]) -> list[dict[str, Any]]:
    """Return a row for each false find, the highest score first, and then for each missed box.

    Boxes are in pixels of the network's input.
    """
    sides = ("x_min", "y_min", "x_max", "y_max")
    false, missed = np.argwhere(found.false).tolist(), np.argwhere(found.missed).tolist()
    false.sort(key=lambda at: -found.scores[*at])
    rows = []
    for image, find in false:
        other = found.mistaken_for(image, find)
        what = {
            "file": names[image],
            "mistake": "false" if other is None else "wrong class",
            "predicted": labels[found.labels[image, find]],
            "true": "" if other is None else labels[other],
            "score": float(found.scores[image, find]),
        }
        rows.append(what | dict(zip(sides, found.boxes[image, find].tolist(), strict=True)))
    for image, truth in missed:
        *box, label = found.y[image, truth].tolist()
        what = {"file": names[image], "mistake": "missed", "predicted": ""}
        what |= {"true": labels[int(label)], "score": ""}
        rows.append(what | dict(zip(sides, box, strict=True)))
    return rows


def draw_pictures(
    entry: Entry, found: JudgedFinds, names: list[str], img: Path
) -> list[dict[str, Any]] | None:
    """Draw the finds of the images with most mistakes, the worst first; None without images."""
    if entry.images is None:
        return None
    mistakes = found.false.sum(1) + found.missed.sum(1)
    shown = []
    for row in np.argsort(-mistakes, kind="stable")[:MAX_PICTURES].tolist():
        boxes = list_boxes(found, row, entry.results["data"]["labels"])
        text = describe_boxes(boxes)
        path = img / f"{entry.name}.finds{row}.png"
        picture = draw_finds(entry.images[row], boxes, f"{names[row]}: {text}.", path)
        name = names[row]
        shown.append({"picture": picture, "text": text, "name": name, "short": shorten_name(name)})
    return shown


def list_boxes(
    found: JudgedFinds, row: int, labels: list[str]
) -> list[tuple[np.ndarray, str, Kind]]:
    """Return box, name and kind of the finds and of the missed boxes of an image."""
    boxes: list[tuple[np.ndarray, str, Kind]] = []
    for find in np.flatnonzero(found.above(SHOWN)[row]).tolist():
        kind: Kind = "right" if found.right[row, find] else "false"
        name = f"{labels[found.labels[row, find]]} {found.scores[row, find]:.2f}"
        boxes.append((found.boxes[row, find], name, kind))
    for *box, label in found.y[row, found.missed[row]]:
        boxes.append((np.array(box), labels[int(label)], "missed"))
    return boxes


def describe_boxes(boxes: list[tuple[np.ndarray, str, Kind]]) -> str:
    """Return the names of an image's boxes by their kind: "right 3 0.98, 7 0.95; missed 1"."""
    kinds: dict[str, list[str]] = {}
    for _, name, kind in boxes:
        kinds.setdefault(kind, []).append(name)
    listed = [f"{kind} {', '.join(names)}" for kind, names in kinds.items()]
    return "; ".join(listed) or "no box and no find"
