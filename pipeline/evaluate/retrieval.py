"""Image retrieval: rank the training images by their distance to a test image in feature space."""

from __future__ import annotations

from typing import Any

import numpy as np

NEAREST = 5
QUERIES_AT_ONCE = 256  # all of MNIST's at once would rank 600 million pairs in memory


def measure_retrieval(
    database: np.ndarray,
    queries: np.ndarray,
    database_labels: np.ndarray,
    query_labels: np.ndarray,
) -> tuple[dict[str, Any], np.ndarray]:
    """Return how often near images share the query's class, and the rows (N, NEAREST) nearest to
    each.

    database: features (M, F); queries: features (N, F); their labels: int (M,) and (N,). Distances
    are Euclidean. `precision` is over the NEAREST images, `mean_average_precision` over the whole
    ranking, `by_chance` the precision that a random ranking would have.
    """
    x = database.astype(np.float64)
    nearest, scores = [], []  # scores: of each query precision, average precision, by chance
    for rows in np.array_split(np.arange(len(queries)), -(-len(queries) // QUERIES_AT_ONCE)):
        q = queries[rows].astype(np.float64)
        distances = (q**2).sum(1)[:, None] - 2 * q @ x.T + (x**2).sum(1)
        order = np.argsort(distances, axis=1, kind="stable")
        hits = database_labels[order] == query_labels[rows, None]  # (n, M), the nearest first
        precision = np.cumsum(hits, 1) / np.arange(1, hits.shape[1] + 1)
        average_precision = (precision * hits).sum(1) / np.maximum(hits.sum(1), 1)
        nearest.append(order[:, :NEAREST])
        scores.append(np.stack([hits[:, :NEAREST].mean(1), average_precision, hits.mean(1)], 1))
    names = ("precision", "mean_average_precision", "by_chance")
    means = np.concatenate(scores).mean(0).tolist()
    return {"nearest": NEAREST, **dict(zip(names, means, strict=True))}, np.concatenate(nearest)
