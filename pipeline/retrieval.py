"""Retrieval (R15): the training images whose features lie nearest to a test image's, and how many are of its class."""

from __future__ import annotations

from typing import Any

import numpy as np

NEAREST = 5


def retrieve(
    database: np.ndarray, queries: np.ndarray, classes: np.ndarray, asked: np.ndarray
) -> tuple[dict[str, Any], np.ndarray]:
    """Return precision and mean average precision, and the rows (N, NEAREST) nearest to each query, Euclidean.

    database: features (M, F) of images of `classes` (M,); queries: features (N, F) of images of `asked` (N,). Average
    precision is over the whole ranking; beside it stands what a ranking by chance would give.
    """
    x, q = database.astype(np.float64), queries.astype(np.float64)
    distances = (q**2).sum(1)[:, None] - 2 * q @ x.T + (x**2).sum(1)
    order = np.argsort(distances, axis=1, kind="stable")
    hits = classes[order] == asked[:, None]  # (N, M), the nearest first
    precision = np.cumsum(hits, 1) / np.arange(1, hits.shape[1] + 1)
    average = (precision * hits).sum(1) / np.maximum(hits.sum(1), 1)
    facts = {
        "nearest": NEAREST,
        "precision": float(hits[:, :NEAREST].mean()),
        "mean_average_precision": float(average.mean()),
        "by_chance": float(hits.mean()),
        "queries": len(q),
        "database": len(x),
    }
    return facts, order[:, :NEAREST]
