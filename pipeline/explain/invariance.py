"""How much each layer's answer changes when the image is shifted, scaled or turned (V37).

Zeiler & Fergus 2014, arXiv:1311.2901, section 4.1 and figure 5, there in plain distances: here as a share of the mean
distance between two different images in the same layer, so that layers can be compared.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import matplotlib
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from pipeline.explain.activations import Layer, chosen, classifier, layers, outputs, rounded
from pipeline.explain.pixels import tensor
from pipeline.explain.subject import Section, Shown, Subject, finite
from pipeline.network.modules import Classifier
from pipeline.plots.style import Picture, drawing

LAYERS = 4
CHANGES: dict[str, tuple[Callable[[float], tuple[float, float, float]], list[float]]] = {
    # to scale, angle in radians, shift as a share of the width
    "shift, % of the width": (lambda v: (1.0, 0.0, v / 100), [0, 3.125, 6.25, 12.5, 25]),
    "scale": (lambda v: (v, 0.0, 0.0), [0.7, 0.85, 1, 1.2, 1.4]),
    "rotation, degrees": (lambda v: (1.0, math.radians(v), 0.0), [0, 5, 15, 30, 60]),
}
TOLD = {
    "shift, % of the width": 12.5,
    "scale": 1.2,
    "rotation, degrees": 15,
}  # of which facts and caption tell
STILL = (1.0, 0.0, 0.0)


def moved(images: Tensor, scale: float, angle: float, shift: float) -> Tensor:
    """Return images (N, C, H, W) enlarged, turned anticlockwise and shifted to the right, the border repeated."""
    height, width = images.shape[2:]
    cos, sin = math.cos(angle) / scale, math.sin(angle) / scale
    # where each output pixel comes from, in units of half the width or height (torch's affine_grid)
    back = torch.tensor([[cos, -sin * height / width, -2 * shift], [sin * width / height, cos, 0]])
    grid = F.affine_grid(back.expand(len(images), 2, 3), list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, mode="bilinear", padding_mode="border", align_corners=False)


@torch.no_grad()
def answers(net: Classifier, images: Tensor, looked_at: list[Layer]) -> list[Tensor]:
    """Return what each layer and, last, the network answers: (N, F) each."""
    found = outputs(net, images, [*(layer.module for layer in looked_at), net.net])
    return [o.flatten(1) for o in found if o is not None]


def curves(net: Classifier, images: Tensor, looked_at: list[Layer]) -> dict[str, np.ndarray]:
    """Return, for each kind of change, the layers' relative distances (layers + 1, values)."""
    plain = answers(net, images, looked_at)
    unit = [torch.pdist(own).mean().clamp_min(1e-12) for own in plain]
    found = {}
    for name, (to, values) in CHANGES.items():
        changes = [to(value) for value in values]
        columns = [
            plain if c == STILL else answers(net, moved(images, *c), looked_at) for c in changes
        ]
        found[name] = np.array(
            [
                [
                    float((a - b).norm(dim=1).mean() / one)
                    for a, b, one in zip(plain, column, unit, strict=True)
                ]
                for column in columns
            ]
        ).T
    return found


def section(subject: Subject) -> Section | None:
    """Return the curves of layers from several depths; None for series."""
    net, path, size = classifier(subject), subject.folder / "invariance.png", (760, 220)
    if net is None:
        return None
    images, _ = subject.samples(subject.settings.images)
    x = tensor(images)
    looked_at = chosen(layers(net, x), LAYERS)
    found = {
        name: finite(rows, f"a distance under {name}")
        for name, rows in curves(net, x, looked_at).items()
    }
    names = [*(layer.name for layer in looked_at), "logits"]
    colours = matplotlib.colormaps["viridis"](np.linspace(0.85, 0.1, len(names)))
    with drawing(path, *size, columns=len(found), head_px=24) as axes:
        for axis, (kind, rows) in zip(axes[0], found.items(), strict=True):
            for name, row, colour in zip(names, rows, colours, strict=True):
                axis.plot(CHANGES[kind][1], row, color=colour, label=name, marker=".")
            axis.axhline(1, color="#777777", lw=0.8, ls="--")
            axis.set(title=kind, ylim=(0, max(1.1, 1.05 * max(r.max() for r in found.values()))))
        axes[0, 0].set_ylabel("relative distance")
        axes[0, 0].figure.legend(
            *axes[0, 0].get_legend_handles_labels(), loc="upper left", ncols=len(names)
        )
    told = {k: found[k][:, CHANGES[k][1].index(value)] for k, value in TOLD.items()}
    first, last = names[0], names[-1]
    parts = [
        f"{rows[0]:.2f} and {rows[-1]:.2f} for {kind.split(',')[0]} {TOLD[kind]:g}"
        for kind, rows in told.items()
    ]
    caption = (
        f"How far the answer moves, as a share of the distance between two images (dashed), for {len(images)} test "
        f"images: {first} and {last} by {'; '.join(parts)}."
    )
    shown = Shown(
        Picture(path.name, *size, "Relative distance of features under shift, scale and rotation."),
        caption,
    )
    facts = {name: [rounded(told[kind][i]) for kind in told] for i, name in enumerate(names)}
    return Section("Invariance", [shown], {"invariance": facts})
