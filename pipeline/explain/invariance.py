"""Section: how much each layer's output changes when the image is shifted, scaled or rotated.

Zeiler & Fergus 2014, arXiv:1311.2901, section 4.1 and figure 5, who draw plain distances. Here a
distance is a share of the mean distance between two different images in the same layer, so that
layers can be compared.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from convline.colours import GREY
from torch import Tensor

from pipeline.explain.activations import BATCH, Layer, capture_maps, find_layers, select_evenly
from pipeline.explain.image_grid import to_tensor
from pipeline.explain.sections import Section, require_finite
from pipeline.explain.subject import Subject
from pipeline.network.modules import Classifier
from pipeline.plots.style import depth_colours

LAYERS = 4
Change = tuple[float, float, float]  # scale, angle in radians, shift as a share of the width
IDENTITY: Change = (1.0, 0.0, 0.0)
CHANGES: dict[str, tuple[Callable[[float], Change], list[float]]] = {
    "shift, % of the width": (lambda v: (1.0, 0.0, v / 100), [0, 3.125, 6.25, 12.5, 25]),
    "scale": (lambda v: (v, 0.0, 0.0), [0.7, 0.85, 1, 1.2, 1.4]),
    "rotation, degrees": (lambda v: (1.0, math.radians(v), 0.0), [0, 5, 15, 30, 60]),
}
REPORTED = {  # the change of each kind whose distances are facts, and its name in the caption
    "shift, % of the width": (12.5, "a shift of 12.5 % of the width"),
    "scale": (1.2, "a scale of 1.2"),
    "rotation, degrees": (15, "a rotation of 15 degrees"),
}


def make_section(subject: Subject) -> Section | None:
    """Return the relative distances of layers from several depths; None for a forecaster."""
    net = subject.classifier
    if net is None:
        return None
    images, _ = subject.samples(subject.settings.images)
    x = to_tensor(images)
    layers = select_evenly(find_layers(net, x), LAYERS)
    distances = relative_distances(net, x, layers)
    names = [*(layer.name for layer in layers), "logits"]
    highest = max(1.1, 1.05 * max(rows.max() for rows in distances.values()))
    reported = {
        kind: rows[:, CHANGES[kind][1].index(REPORTED[kind][0])] for kind, rows in distances.items()
    }
    ends = [0, -1] if layers else [-1]  # without layers there are the logits alone
    numbers = [
        f"{' and '.join(f'{rows[k]:.2f}' for k in ends)} for {REPORTED[kind][1]}"
        for kind, rows in reported.items()
    ]
    caption = (
        "The distance between a layer's outputs for an image and for the changed image, as a "
        f"share of the mean distance between two different images (dashed line), for {len(images)} "
        f"test images. For {' and '.join(names[k] for k in ends)} it is {'; '.join(numbers)}."
    )
    section = Section(subject, "Invariance")
    section.facts = {name: [rows[k] for rows in reported.values()] for k, name in enumerate(names)}
    alt = "Relative distance of features under shift, scale and rotation."
    grid = {"columns": len(CHANGES), "head_px": 24}
    with section.draw("invariance.png", (760, 220), alt, caption, **grid) as axes:
        for axis, (kind, rows) in zip(axes[0], distances.items(), strict=True):
            require_finite(rows, f"a distance under {kind}")
            for name, row, colour in zip(names, rows, depth_colours(len(names)), strict=True):
                axis.plot(CHANGES[kind][1], row, color=colour, label=name, marker=".")
            axis.axhline(1, color=GREY, lw=0.8, ls="--")
            axis.set(title=kind, ylim=(0, highest))
        axes[0, 0].set_ylabel("relative distance")
        legend = axes[0, 0].get_legend_handles_labels()
        axes[0, 0].figure.legend(*legend, loc="upper left", ncols=len(names))
    return section


def relative_distances(
    net: Classifier, images: Tensor, layers: list[Layer]
) -> dict[str, np.ndarray]:
    """Return the relative distances (layers + 1, values) of layers and logits by change.

    Several changes share a batch: a network is slow on a few images.
    """
    features = flat_features(net, images, layers)
    units = [torch.pdist(rows).mean().clamp_min(1e-12) for rows in features]
    by_name = {
        name: [to_change(value) for value in values]
        for name, (to_change, values) in CHANGES.items()
    }
    changes = [change for row in by_name.values() for change in row if change != IDENTITY]
    found: dict[Change, list[float]] = {IDENTITY: [0.0] * len(features)}
    at_once = max(1, BATCH // len(images))
    for first in range(0, len(changes), at_once):
        some = changes[first : first + at_once]
        x = torch.cat([transform(images, *change) for change in some])
        changed = [rows.chunk(len(some)) for rows in flat_features(net, x, layers)]
        for change, parts in zip(some, zip(*changed, strict=True), strict=True):
            found[change] = [
                float((a - b).norm(dim=1).mean() / unit)
                for a, b, unit in zip(features, parts, units, strict=True)
            ]
    return {name: np.array([found[change] for change in row]).T for name, row in by_name.items()}


@torch.no_grad()
def flat_features(net: Classifier, images: Tensor, layers: list[Layer]) -> list[Tensor]:
    """Return the outputs (N, F) of each layer and, last, the logits."""
    outputs = capture_maps(net, images, [*(layer.module for layer in layers), net.net])
    return [output.flatten(1) for output in outputs]


def transform(images: Tensor, scale: float, angle: float, shift: float) -> Tensor:
    """Return images (N, C, H, W) scaled, rotated anticlockwise and shifted right.

    `torchvision.transforms.functional.affine` has no repeated border: it would add black edges.
    """
    height, width = images.shape[2:]
    cos, sin = math.cos(angle) / scale, math.sin(angle) / scale
    # where each output pixel comes from, in units of half the width or height (torch's affine_grid)
    back = torch.tensor([[cos, -sin * height / width, -2 * shift], [sin * width / height, cos, 0]])
    grid = F.affine_grid(back.expand(len(images), 2, 3), list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, mode="bilinear", padding_mode="border", align_corners=False)
