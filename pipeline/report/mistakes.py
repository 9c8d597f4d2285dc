"""The wrong predictions of a classifier: by file, as a CSV file, and beside right ones."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.plots import style
from pipeline.plots.style import Picture
from pipeline.report.result_files import Entry

MAX_PICTURES = 12
MAX_ROWS = 500  # of the table on the page; mistakes.csv has all
MAX_NAME = 34  # characters of a file name below a picture
FORMULA = ("=", "+", "-", "@", "\t", "\r")


def mistakes_context(entry: Entry, img: Path) -> dict[str, Any]:
    """Return table and pictures of the wrong predictions, and write <entry>.mistakes.csv.

    `pictures` is None if the test images are missing.
    """
    assert entry.predictions is not None
    truth, probabilities = entry.predictions["y"], entry.predictions["probabilities"]
    labels = entry.results["data"]["labels"]
    names = names_of_test_images(entry, len(truth))
    wrong = most_confident_errors(truth, probabilities)
    rows = [mistake_row(row, truth, probabilities, names, labels) for row in wrong]
    file = f"{entry.name}.mistakes.csv"
    if rows:
        write_mistakes(img.parent / file, rows)
    return {
        "rows": [format_row(row) for row in rows[:MAX_ROWS]],
        "csv": file,
        "by_features": entry.test_features is not None,
        "pictures": mistakes_beside_right_images(entry, wrong, names, img),
    }


def names_of_test_images(entry: Entry, n: int) -> list[str]:
    """Return the file name of each of n test images; its number where stage data wrote no names."""
    return entry.test_names or [f"test image {row}" for row in range(n)]


def most_confident_errors(truth: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """Return the row indices of wrong predictions, highest predicted probability first."""
    rows = np.flatnonzero(probabilities.argmax(1) != truth)
    return rows[np.argsort(-probabilities[rows].max(1), kind="stable")]


def mistake_row(
    row: int, truth: np.ndarray, probabilities: np.ndarray, names: list[str], labels: list[str]
) -> dict[str, Any]:
    """Return what mistakes.csv says of the wrong prediction for one test image."""
    true, predicted = int(truth[row]), int(probabilities[row].argmax())
    return {
        "file": names[row],
        "true": labels[true],
        "predicted": labels[predicted],
        "probability": float(probabilities[row, predicted]),
        "probability_of_true": float(probabilities[row, true]),
    }


def format_row(row: dict[str, Any]) -> list[str]:
    return [f"{cell:.3f}" if isinstance(cell, float) else cell for cell in row.values()]


def write_mistakes(path: Path, rows: list[dict[str, Any]]) -> None:
    """Write rows as CSV; a text that a spreadsheet would run as a formula gets a ' before it."""
    with path.open("w", newline="", encoding="utf-8-sig") as file:  # Excel needs the mark
        lines = csv.writer(file)
        lines.writerow(rows[0])
        for row in rows:
            lines.writerow(
                f"{cell:.4f}" if isinstance(cell, float) else guard_formula(cell)
                for cell in row.values()
            )


def guard_formula(text: str) -> str:
    """Return the text with a ' before it if a spreadsheet would take it for a formula."""
    return f"'{text}" if text.startswith(FORMULA) else text


def shorten_name(name: str, most: int = MAX_NAME) -> str:
    """Return a name of at most `most` characters, its middle left out; the end is the longer part,
    since it tells files apart.
    """
    if len(name) <= most:
        return name
    head = (most - 1) // 3
    return f"{name[:head]}…{name[head + 1 - most :]}"


def mistakes_beside_right_images(
    entry: Entry, wrong: np.ndarray, names: list[str], img: Path
) -> list[dict[str, Any]] | None:
    """Return the pictures of each mistake: its own image, and right ones of the predicted and of
    the true class, each with its class, and file names.
    """
    if entry.images is None or entry.predictions is None:
        return None
    labels, features = entry.results["data"]["labels"], entry.test_features
    truth, probabilities = entry.predictions["y"], entry.predictions["probabilities"]
    shown = []
    for row in wrong[:MAX_PICTURES]:
        true, predicted = int(truth[row]), int(probabilities[row].argmax())
        beside = []
        for k in (predicted, true):
            other = nearest_right_image(row, k, truth, probabilities, features)
            if other is not None:
                alt = f"{names[other]}: {labels[k]}, classified correctly."
                picture = draw_test_image(entry, other, alt, img)
                beside.append({"picture": picture, "label": labels[k], "name": names[other]})
        alt = f"{names[row]}: {labels[true]}, taken for {labels[predicted]}."
        shown.append(
            {
                "picture": draw_test_image(entry, row, alt, img),
                "true": labels[true],
                "predicted": labels[predicted],
                "probability": float(probabilities[row, predicted]),
                "of_true": float(probabilities[row, true]),
                "name": names[row],
                "short": shorten_name(names[row]),
                "beside": beside,
            }
        )
    return shown


def nearest_right_image(
    row: int,
    k: int,
    truth: np.ndarray,
    probabilities: np.ndarray,
    features: np.ndarray | None,
) -> int | None:
    """Return the test image of class k, predicted as k, that is nearest to image `row`.

    Nearest by Euclidean distance of features (n, F); without features the one of the highest
    probability. None where no image of class k is right.
    """
    right = np.flatnonzero((truth == k) & (probabilities.argmax(1) == k))
    if not len(right):
        return None
    if features is None:
        return int(right[probabilities[right, k].argmax()])
    return int(right[((features[right] - features[row]) ** 2).sum(1).argmin()])


def draw_test_image(entry: Entry, row: int, alt: str, img: Path) -> Picture:
    """Write the picture of a test image, once for all places that show it."""
    assert entry.images is not None
    return style.save_enlarged(entry.images[row], img / f"{entry.name}.test{row}.png", alt)
