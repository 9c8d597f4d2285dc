"""The last hidden layer's features of test images in two dimensions (V24), and how far that picture can be trusted."""

from __future__ import annotations

from pathlib import Path

import matplotlib
import numpy as np

from pipeline.explain.activations import classifier, last_hidden, rounded
from pipeline.explain.pixels import tensor
from pipeline.explain.subject import Section, Shown, Subject, finite
from pipeline.plots.style import INK, Picture, drawing

NEIGHBOURS = 5
PLATE = {"facecolor": "white", "edgecolor": "none", "alpha": 0.7, "pad": 1}


def section(subject: Subject) -> Section | None:
    """Return the map of up to `points` test images; None for series."""
    net = classifier(subject)
    if net is None:
        return None
    from sklearn.manifold import TSNE, trustworthiness

    images, classes = subject.samples(subject.settings.points)
    features = finite(last_hidden(net, tensor(images)), "a feature of the last hidden layer")
    perplexity = min(
        30.0, (len(features) - 1) / 3
    )  # van der Maaten & Hinton 2008, section 2: 5 to 50
    places = TSNE(
        perplexity=perplexity, init="pca", random_state=subject.settings.seed
    ).fit_transform(features)
    facts = {
        "points": len(places),
        "trustworthiness": rounded(trustworthiness(features, places, n_neighbors=NEIGHBOURS)),
        "knn_features": rounded(nearest(features, classes)),
        "knn_map": rounded(nearest(places, classes)),
    }
    path, size = subject.folder / "embedding.png", (560, 420)
    draw(places, classes, subject.labels, path, size)
    caption = (
        f"t-SNE of {len(places)} test images' features in the last hidden layer ({features.shape[1]} wide). The "
        f"{NEIGHBOURS} nearest neighbours name the class of {facts['knn_features']:.1%} of them rightly in the "
        f"features and of {facts['knn_map']:.1%} on this map; its trustworthiness is {facts['trustworthiness']:.3f}."
    )
    return Section(
        "Embedding",
        [Shown(Picture(path.name, *size, "Test images by their features."), caption)],
        {"embedding": facts},
    )


def nearest(points: np.ndarray, classes: np.ndarray) -> float:
    """Return how often the commonest class of a point's nearest neighbours, itself apart, is its own."""
    from sklearn.neighbors import NearestNeighbors

    near = (
        NearestNeighbors(n_neighbors=min(NEIGHBOURS, len(points) - 1))
        .fit(points)
        .kneighbors(return_distance=False)
    )
    votes = [np.bincount(own).argmax() for own in classes[near]]
    return float((np.array(votes) == classes).mean())


def draw(
    places: np.ndarray, classes: np.ndarray, labels: list[str], path: Path, size: tuple[int, int]
) -> None:
    """Draw the map, a colour for each class and its name where most of it is; many classes share colours."""
    with drawing(path, *size) as axes:
        axis = axes[0, 0]
        for k in np.unique(classes):
            own = places[classes == k]
            colour = matplotlib.colormaps["tab10"](int(k) % 10)
            axis.scatter(*own.T, 9, color=colour, lw=0)
            axis.text(
                *np.median(own, 0),
                labels[k],
                color=INK,
                weight="bold",
                ha="center",
                va="center",
                bbox=PLATE,
            )
        axis.set_axis_off()
