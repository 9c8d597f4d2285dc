"""Learn a sparse code of image patches, to compare with a network's filters."""

from __future__ import annotations

import warnings

import numpy as np
from sklearn.exceptions import ConvergenceWarning

ATOMS, PATCHES, PASSES = 64, 3000, 2


def sample_patches(
    images: np.ndarray, height: int, width: int, rng: np.random.Generator
) -> np.ndarray:
    """Return up to PATCHES flattened patches (n, C * height * width), no uniform ones."""
    n, rows, columns, _ = images.shape
    corners = (
        rng.integers(0, limit, 2 * PATCHES) for limit in (n, rows - height + 1, columns - width + 1)
    )
    patches = np.stack(
        [images[i, y : y + height, x : x + width] for i, y, x in zip(*corners, strict=True)]
    )
    flat = patches.transpose(0, 3, 1, 2).reshape(len(patches), -1).astype(np.float64)
    flat -= flat.mean(1, keepdims=True)
    return np.asarray(flat[flat.std(1) > 0.1 * flat.std()][:PATCHES])


def whiten(patches: np.ndarray, damping: float = 0.01) -> np.ndarray:
    """Return patches (n, d) with equal power in all directions, but the weakest.

    These are damped, as in Olshausen & Field. scikit-learn's whitening PCA has no damping, and
    would enlarge their noise.
    """
    power, axes = np.linalg.eigh(np.cov(patches.T))
    scaled = patches @ axes / np.sqrt(power + damping * power.max())
    return np.asarray(scaled @ axes.T)


def learn_sparse_code(patches: np.ndarray, seed: int) -> np.ndarray:
    """Return atoms (m, d): a few of them together approximate any whitened patch (n, d).

    Olshausen & Field 1996, "Emergence of simple-cell receptive field properties by learning a
    sparse code for natural images", Nature 381, pp. 607-609; learned by the algorithm of Mairal et
    al. 2009.
    """
    from sklearn.decomposition import MiniBatchDictionaryLearning

    patches = whiten(patches)
    patches /= patches.std()
    learner = MiniBatchDictionaryLearning(
        min(ATOMS, patches.shape[1]),
        alpha=1.0,
        max_iter=PASSES,
        batch_size=256,
        fit_algorithm="cd",
        random_state=seed,
    )
    with warnings.catch_warnings():
        # the inner loop of a step need not converge: the next step continues
        warnings.simplefilter("ignore", ConvergenceWarning)
        return np.asarray(learner.fit(patches).components_)


def absolute_cosines(filters: np.ndarray, atoms: np.ndarray) -> np.ndarray:
    """Return |cosine| (n, m) of filters (n, d) and atoms (m, d), each without its mean."""
    unit = []
    for rows in (filters, atoms):
        rows = rows - rows.mean(1, keepdims=True)
        unit.append(rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12))
    return np.asarray(np.abs(unit[0] @ unit[1].T))
