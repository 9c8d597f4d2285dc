"""The sections of a segmenter's page: masks over test images, overlap by class, confusion."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from convline.images.draw import mask_palette
from convline.metrics.segmentation import class_overlaps, confusions, mean_overlap

from pipeline.plots.style import Picture, save_enlarged
from pipeline.report.class_metrics import proportion_cell
from pipeline.report.error_analysis import MAX_MATRIX_CLASSES
from pipeline.report.mistakes import names_of_test_images, shorten_name, write_mistakes
from pipeline.report.result_files import Entry
from pipeline.report.tables import Cell, Column, Table

MAX_PICTURES = 12
SIDE_PX = 128  # CSS pixels of a picture's longer side
FADED = 0.6  # of white over the background of a mask
TITLES = ("Share of pixels", "IoU", "Precision", "Recall")


def segmenter_context(entry: Entry, img: Path) -> dict[str, Any] | None:
    """Return the context of segmenter.html.j2; None before stage check has run on these data."""
    if entry.predictions is None or entry.metric is None:
        return None
    masks, truth = entry.predictions["masks"], entry.predictions["y"]
    labels = entry.results["data"]["labels"]
    names = names_of_test_images(entry, len(truth))
    counts = confusions(masks, truth, len(labels))
    overlaps = np.array([mean_overlap(counts[row : row + 1]) for row in range(len(counts))])
    worst = np.argsort(overlaps, kind="stable")
    csv = f"{entry.name}.mistakes.csv"
    write_mistakes(
        img.parent / csv, [image_row(row, counts[row], overlaps[row], names) for row in worst]
    )
    confusion = counts.sum(0)
    return {
        "labels": labels,
        "legend": {label: f"#{colour_of(k).hex()}" for k, label in enumerate(labels)},
        "n": len(truth),
        "worst": describe_worst_class(confusion, labels),
        "classes": class_table(confusion, labels),
        "matrix": confusion_shares(confusion) if len(labels) <= MAX_MATRIX_CLASSES else None,
        "pictures": draw_pictures(entry, worst[:MAX_PICTURES], overlaps, names, img),
        "csv": csv,
    }


def colour_of(k: int) -> bytes:
    """Return red, green and blue of class k in the pictures, as `infer` draws it."""
    return mask_palette()[3 * k : 3 * k + 3]


def image_row(row: int, counts: np.ndarray, overlap: float, names: list[str]) -> dict[str, Any]:
    """Return what the CSV file says of a test image, the mean IoU being that of its classes."""
    wrong = float(1 - np.diag(counts).sum() / max(counts.sum(), 1))
    return {"file": names[row], "mean_iou": float(overlap), "wrong_pixels": wrong}


def describe_worst_class(confusion: np.ndarray, labels: list[str]) -> str:
    overlaps = class_overlaps(confusion)
    if not np.isfinite(overlaps).any():
        return "Every test pixel is void."
    k = int(np.nanargmin(overlaps))
    text = f"The worst class is {labels[k]} (IoU {overlaps[k]:.3f})"
    lost = np.where(np.arange(len(labels)) == k, 0, confusion[k])
    if lost.any():
        share = f"{100 * lost.max() / confusion[k].sum():.1f} % of its pixels"
        text += f"; it is most often taken for {labels[lost.argmax()]}: {share}"
    return f"{text}."


def class_table(confusion: np.ndarray, labels: list[str]) -> Table:
    """Return a sortable row for each class, the lowest overlap first."""
    overlaps, hits = class_overlaps(confusion), np.diag(confusion)
    true, predicted = confusion.sum(1), confusion.sum(0)
    rows = []
    for k in np.argsort(overlaps, kind="stable").tolist():  # NaN, not in the truth, is last
        shares = (
            true[k] / max(true.sum(), 1),
            overlaps[k] if true[k] else None,
            hits[k] / predicted[k] if predicted[k] else None,
            hits[k] / true[k] if true[k] else None,
        )
        rows.append([Cell(labels[k], labels[k]), *map(proportion_cell, shares)])
    return Table([Column("Class"), *(Column(title, number=True) for title in TITLES)], rows)


def confusion_shares(confusion: np.ndarray) -> list[list[float]]:
    """Return which share of the pixels of each true class (row) has which answer (column)."""
    return (confusion / np.maximum(confusion.sum(1, keepdims=True), 1)).tolist()


def draw_pictures(
    entry: Entry, rows: np.ndarray, overlaps: np.ndarray, names: list[str], img: Path
) -> list[dict[str, Any]] | None:
    """Draw images, their true masks and the answered ones; None without images."""
    if entry.images is None:
        return None
    labels = entry.results["data"]["labels"]
    shown = []
    for row in rows.tolist():
        name, pictures = names[row], {}
        for kind in ("image", "y", "masks"):
            mask = None if kind == "image" else entry.prediction(kind)[row]
            path = img / f"{entry.name}.{kind}{row}.png"
            pictures[kind] = draw_mask(entry.images[row], mask, labels, name, path)
        overlap = float(overlaps[row])
        shown.append({**pictures, "overlap": overlap, "name": name, "short": shorten_name(name)})
    return shown


def draw_mask(
    image: np.ndarray, mask: np.ndarray | None, labels: list[str], name: str, path: Path
) -> Picture:
    """Write an image (H, W, C); of a mask (H, W) its classes in their colours over the faded image.

    The background, class 0, shows the image.
    """
    if mask is None:
        return save_enlarged(image, path, f"{name}.", SIDE_PX)
    colours = np.frombuffer(mask_palette(), np.uint8).reshape(256, 3)[mask]
    faded = (1 - FADED) * image + FADED * 255
    shown = np.where(mask[..., None] == 0, faded, colours).astype(np.uint8)
    shares = np.bincount(mask.ravel(), minlength=256)[: len(labels)] / mask.size
    text = ", ".join(f"{labels[k]} {percent(shares[k])}" for k in np.flatnonzero(shares))
    return save_enlarged(shown, path, f"{name}: {text}.", SIDE_PX)


def percent(share: float) -> str:
    return "below 1 %" if share < 0.01 else f"{100 * share:.0f} %"
