"""What a classifier gets wrong: its confusion matrix, its commonest and its surest mistakes, and nearest neighbours."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from pipeline.plots import style
from pipeline.report.results import Entry

MOST_QUERIES = 10  # one of each class
MOST_WRONG = 24  # pictures; what a reader looks at before losing interest
CONFUSION_LABELS = (
    40  # a larger matrix cannot be read; the most frequent confusions are listed instead
)


def section(entry: Entry, img: Path) -> dict[str, Any] | None:
    """Return the confusion matrix and the most wrong samples, or None before check has run."""
    if entry.answers is None:
        return None
    labels, truth, probabilities = (
        entry.results["data"]["labels"],
        entry.answers["y"],
        entry.answers["probabilities"],
    )
    counts = confusion(truth, probabilities)
    wrong = most_wrong(truth, probabilities)
    return {
        "labels": labels,
        "matrix": counts.tolist() if len(labels) <= CONFUSION_LABELS else None,
        "pairs": frequent_confusions(counts, labels),
        "errors": int((probabilities.argmax(1) != truth).sum()),
        "n": len(truth),
        "wrong": wrong_samples(entry, wrong, img),
        "neighbours": neighbours(entry, img),
    }


def neighbours(entry: Entry, img: Path) -> dict[str, Any] | None:
    """Return test images beside the training images that a head on features finds nearest, a few of each class."""
    database = entry.array("train_x")
    if (
        entry.answers is None
        or "nearest" not in entry.answers
        or entry.images is None
        or database is None
    ):
        return None
    labels, truth, nearest = (
        entry.results["data"]["labels"],
        entry.answers["y"],
        entry.answers["nearest"],
    )
    classes = entry.array("train_y")
    rows = []
    for query in [row for k in range(len(labels)) for row in np.flatnonzero(truth == k)[:1]][
        :MOST_QUERIES
    ]:
        found = nearest[query]
        names = [labels[k] for k in classes[found]]
        rows.append(
            (entry.images[query], labels[truth[query]], [database[row] for row in found], names)
        )
    picture = style.neighbour_rows(rows, img / f"{entry.name}.neighbours.png")
    return {"picture": picture, "facts": entry.results["check"]["retrieval"]}


def confusion(truth: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """Return counts (K, K): row is the true class, column the predicted one."""
    counts = np.zeros((probabilities.shape[1],) * 2, np.int64)
    np.add.at(counts, (truth, probabilities.argmax(1)), 1)
    return counts


def frequent_confusions(
    counts: np.ndarray, labels: list[str], most: int = 10
) -> list[tuple[str, str, int]]:
    """Return (true label, predicted label, count) of the commonest mistakes, commonest first."""
    off = counts - np.diag(np.diag(counts))
    order = np.argsort(-off, axis=None, kind="stable")[:most]
    cells = [np.unravel_index(cell, off.shape) for cell in order if off.flat[cell] > 0]
    return [(labels[i], labels[j], int(off[i, j])) for i, j in cells]


def most_wrong(truth: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """Return rows of wrong answers, the one given with the highest probability first."""
    rows = np.flatnonzero(probabilities.argmax(1) != truth)
    return rows[np.argsort(-probabilities[rows].max(1), kind="stable")][:MOST_WRONG]


def wrong_samples(entry: Entry, rows: np.ndarray, img: Path) -> list[dict[str, Any]] | None:
    """Return picture, labels and probability of each row, or None where the test images are not there."""
    if entry.images is None:
        return None
    labels, truth, probabilities = (
        entry.results["data"]["labels"],
        entry.answers["y"],
        entry.answers["probabilities"],
    )
    samples = []
    for place, row in enumerate(rows):
        answer = int(probabilities[row].argmax())
        sample = {"row": int(row), "true": labels[truth[row]], "answer": labels[answer]}
        sample |= {
            "probability": float(probabilities[row, answer]),
            "of_true": float(probabilities[row, truth[row]]),
        }
        alt = f"Test sample {row}: {sample['true']}, taken for {sample['answer']}."
        sample["picture"] = style.enlarge(
            entry.images[row], img / f"{entry.name}.wrong{place:02d}.png", alt
        )
        samples.append(sample)
    return samples
