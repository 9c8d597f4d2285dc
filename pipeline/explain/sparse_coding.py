"""A sparse code of image patches, to put beside a network's filters (V03): both may find the same structure."""

from __future__ import annotations

import warnings

import numpy as np

ATOMS, PATCHES, PASSES = 64, 3000, 2


def patches(images: np.ndarray, height: int, width: int, rng: np.random.Generator) -> np.ndarray:
    """Return patches (n, C * height * width) of images (N, H, W, C), those left out that are flat."""
    n, rows, columns, _ = images.shape
    corners = (
        rng.integers(0, limit, 2 * PATCHES) for limit in (n, rows - height + 1, columns - width + 1)
    )
    cut = np.stack(
        [images[i, y : y + height, x : x + width] for i, y, x in zip(*corners, strict=True)]
    )
    cut = cut.transpose(0, 3, 1, 2).reshape(len(cut), -1).astype(np.float64)
    cut -= cut.mean(1, keepdims=True)
    return cut[cut.std(1) > 0.1 * cut.std()][:PATCHES]


def whitened(cut: np.ndarray, damping: float = 0.01) -> np.ndarray:
    """Return patches (n, d) with equal power at all frequencies, save the weakest (Olshausen & Field damp them too)."""
    power, axes = np.linalg.eigh(np.cov(cut.T))
    return (cut @ axes / np.sqrt(power + damping * power.max())) @ axes.T


def sparse_code(cut: np.ndarray, seed: int) -> np.ndarray:
    """Return atoms (m, d) of which a few together make up any whitened patch (n, d).

    Olshausen & Field 1996, "Emergence of simple-cell receptive field properties by learning a sparse code for natural
    images", Nature 381, pp. 607-609; learned as Mairal et al. 2009 do.
    """
    from sklearn.decomposition import MiniBatchDictionaryLearning

    cut = whitened(cut)
    cut /= cut.std()
    learner = MiniBatchDictionaryLearning(
        min(ATOMS, cut.shape[1]),
        alpha=1.0,
        max_iter=PASSES,
        batch_size=256,
        fit_algorithm="cd",
        random_state=seed,
    )
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore"
        )  # a step's inner loop need not converge: the next one goes on
        return learner.fit(cut).components_


def likeness(filters: np.ndarray, atoms: np.ndarray) -> np.ndarray:
    """Return the |cosine| (n, m) of filters (n, d) and atoms (m, d), each less its mean: patches have none."""
    unit = []
    for rows in (filters, atoms):
        rows = rows - rows.mean(1, keepdims=True)
        unit.append(rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12))
    return np.abs(unit[0] @ unit[1].T)
