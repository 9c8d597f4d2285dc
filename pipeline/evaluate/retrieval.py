"""Retrieval (R15): the training images whose features lie nearest to a test image's, and how many are of its class."""

from __future__ import annotations

from typing import Any

import numpy as np

NEAREST = 5
QUERIES_AT_ONCE = 256  # queries: all of MNIST's at once would rank 600 million pairs in memory


def measure_retrieval(
    database: np.ndarray, queries: np.ndarray, classes: np.ndarray, asked: np.ndarray
) -> tuple[dict[str, Any], np.ndarray]:
    """Return precision and mean average precision, and the rows (N, NEAREST) nearest to each query, Euclidean.

    database: features (M, F) of images of `classes` (M,); queries: features (N, F) of images of `asked` (N,). Average
    precision is over the whole ranking; beside it stands what a ranking by chance would give.
    """
    x = database.astype(np.float64)
    nearest, found = (
        [],
        [],
    )  # rows; of each query the precision, the average precision, and that of chance
    for rows in np.array_split(np.arange(len(queries)), -(-len(queries) // QUERIES_AT_ONCE)):
        q = queries[rows].astype(np.float64)
        distances = (q**2).sum(1)[:, None] - 2 * q @ x.T + (x**2).sum(1)
        order = np.argsort(distances, axis=1, kind="stable")
        hits = classes[order] == asked[rows, None]  # (n, M), the nearest first
        precision = np.cumsum(hits, 1) / np.arange(1, hits.shape[1] + 1)
        average = (precision * hits).sum(1) / np.maximum(hits.sum(1), 1)
        nearest.append(order[:, :NEAREST])
        found.append(np.stack([hits[:, :NEAREST].mean(1), average, hits.mean(1)], 1))
    precision_at, mean_average, by_chance = np.concatenate(found).mean(0).tolist()
    facts = {
        "nearest": NEAREST,
        "precision": precision_at,
        "mean_average_precision": mean_average,
        "by_chance": by_chance,
        "queries": len(queries),
        "database": len(x),
    }
    return facts, np.concatenate(nearest)
