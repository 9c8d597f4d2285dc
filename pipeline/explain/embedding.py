"""Section: t-SNE of the last hidden layer's features, and how far that map can be trusted."""

from __future__ import annotations

from typing import Any

import matplotlib
import numpy as np
from convline.colours import INK, WHITE
from matplotlib.axes import Axes

from pipeline.explain.activations import penultimate_features
from pipeline.explain.image_grid import to_tensor
from pipeline.explain.sections import Section, require_finite
from pipeline.explain.subject import Subject
from pipeline.plots.style import CLASSES

NEIGHBOURS = 5
LABEL_BOX = {"facecolor": WHITE, "edgecolor": "none", "alpha": 0.7, "pad": 1}


def make_section(subject: Subject) -> Section | None:
    """Return the map of up to `points` test images; None for a forecaster and for a few images.

    Trustworthiness is defined for more than twice as many images as neighbours.
    """
    net = subject.classifier
    if net is None:
        return None
    from sklearn.manifold import TSNE, trustworthiness

    images, classes = subject.samples(subject.settings.points)
    if len(images) <= 2 * NEIGHBOURS:
        return None
    features = penultimate_features(net, to_tensor(images))
    require_finite(features, "a feature of the last hidden layer")
    # van der Maaten & Hinton 2008, section 2: between 5 and 50
    perplexity = min(30.0, (len(features) - 1) / 3)
    seed = subject.settings.seed
    points = TSNE(perplexity=perplexity, init="pca", random_state=seed).fit_transform(features)
    facts = {
        "points": len(points),
        "trustworthiness": trustworthiness(features, points, n_neighbors=NEIGHBOURS),
        "knn_features": neighbour_accuracy(features, classes),
        "knn_map": neighbour_accuracy(points, classes),
    }
    caption = (
        f"t-SNE of the last layer's inputs ({features.shape[1]} wide) for {len(points)} test "
        f"images. The majority of an image's {NEIGHBOURS} nearest neighbours has its class for "
        f"{100 * facts['knn_features']:.1f} % of the images in these inputs, and for "
        f"{100 * facts['knn_map']:.1f} % on this map. The map's trustworthiness is "
        f"{facts['trustworthiness']:.3f}."
    )
    section = Section(subject, "Embedding", facts=facts, unstable=("trustworthiness", "knn_map"))
    alt = "Test images, placed by their features."
    with section.draw("embedding.png", (560, 420), alt, caption) as axes:
        draw_points(axes[0, 0], points, classes, subject.labels)
    return section


def neighbour_accuracy(points: np.ndarray, classes: np.ndarray) -> float:
    """Return how often the majority of a point's nearest neighbours has its class."""
    from sklearn.neighbors import KNeighborsClassifier

    count = min(NEIGHBOURS, len(points) - 1)
    return float(KNeighborsClassifier(count).fit(points, classes).score(None, classes))


def draw_points(axis: Axes, points: np.ndarray, classes: np.ndarray, labels: list[str]) -> None:
    """Draw the map: a colour for each class (every tenth is the same), its name at its median."""
    for k in np.unique(classes):
        rows = points[classes == k]
        x, y = rows.T
        axis.scatter(x, y, 9, color=matplotlib.colormaps[CLASSES](int(k) % 10), lw=0)
        style: dict[str, Any] = {"color": INK, "weight": "bold", "ha": "center", "va": "center"}
        axis.text(np.median(x), np.median(y), labels[k], bbox=LABEL_BOX, **style)
    axis.set_axis_off()
