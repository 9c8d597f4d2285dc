"""What single units answer to: maps of two images, the patches that excite a unit most, what they project back to.

V04 activation maps, V05 the nine images with the highest activation of a unit, cut to what it sees, V06 their
deconvnet projections, V38 how much of the image that is, layer by layer.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.explain.activations import (
    Layer,
    batches,
    chosen,
    classifier,
    layers,
    outputs,
    rounded,
)
from pipeline.explain.image_grid import heat, photos, resized, sheet, show, signed, stretched
from pipeline.explain.modified_relu import Cap
from pipeline.explain.pixels import tensor
from pipeline.explain.receptive_field import Fields, fields
from pipeline.explain.subject import Section, Shown, Subject, finite
from pipeline.network.modules import Classifier
from pipeline.plots.style import Picture, drawing

LAYERS, MAPS = 4, 7  # rows of the pictures; maps of a layer for each image
TOP = 9  # images for each unit, as Zeiler & Fergus show them
UNITS = 3  # of each layer
TILE_PX = 64
READABLE = 4  # places along a map: smaller ones are no picture
VIVID = 0.995  # of a projection's values lie within its scale
RECTIFIERS = (
    nn.ReLU,
    Cap,
)  # a Cap, the second half of a ReLU6, would let nothing back from a unit at its bound


@dataclass(frozen=True)
class Peaks:
    """The highest activation of each unit of a layer on each image, and where on the map it is: all (N, C)."""

    values: np.ndarray
    rows: np.ndarray
    columns: np.ndarray

    def top(self) -> np.ndarray:
        """Return the images (TOP, C) with the highest peaks, the highest first: each image once."""
        return np.argsort(-self.values, axis=0, kind="stable")[:TOP]

    def outstanding(self) -> np.ndarray:
        """Return the units, those first whose TOP images stand out most from all images; without dead ones."""
        spread = self.values.std(0)
        last = np.take_along_axis(self.values, self.top(), 0)[-1]
        score = np.where(
            spread > 0, (last - self.values.mean(0)) / np.maximum(spread, 1e-12), -np.inf
        )
        return np.argsort(-score, kind="stable")[: int((spread > 0).sum())]


def section(subject: Subject) -> Section | None:
    """Return maps, patches and projections of units from several depths; None where no layer answers maps."""
    net = classifier(subject)
    if net is None:
        return None
    images, classes = subject.samples(subject.settings.searched)
    x = tensor(images)
    spatial = [layer for layer in layers(net, x) if layer.spatial]
    if not spatial:
        return None
    looked_at = chosen(spatial, LAYERS)
    modules = [layer.module for layer in looked_at]
    seen = fields(lambda x: outputs(net, x, modules), x[:1])
    found = Section("Units")
    wide = [layer for layer in spatial if max(layer.shape[1:]) >= READABLE] or spatial
    show_maps(subject, net, images[:2], chosen(wide, LAYERS), found)
    show_patches(
        subject,
        net,
        images,
        classes,
        list(zip(looked_at, seen, peaks(net, x, modules), strict=True)),
        found,
    )
    return found


def show_maps(
    subject: Subject, net: Classifier, images: np.ndarray, looked_at: list[Layer], found: Section
) -> None:
    """Add the maps of the units that answer two images most strongly, layer by layer (V04)."""
    with torch.no_grad():
        maps = [
            o.numpy() for o in outputs(net, tensor(images), [layer.module for layer in looked_at])
        ]
    path, size = subject.folder / "units.maps.png", (760, 74 * len(maps))
    with drawing(path, *size, rows=len(maps), columns=2) as axes:
        for line, layer, part in zip(axes, looked_at, maps, strict=True):
            finite(part, f"a map of {layer.name}")
            units = np.argsort(-np.abs(part).max((0, 2, 3)), kind="stable")[:MAPS]
            low, high = min(0.0, float(part[:, units].min())), float(part[:, units].max())
            for axis, image, own in zip(line, images, part[:, units], strict=True):
                tiles = [
                    resized(photos(image[None]), TILE_PX),
                    resized(heat(own, low, high), TILE_PX),
                ]
                show(
                    axis,
                    sheet(np.concatenate(tiles), MAPS + 1),
                    f"{layer.name}: {len(part[0])} maps of {size_of(layer)}",
                )
    caption = (
        f"Two test images and the {MAPS} units that answer them most strongly in {len(maps)} of the network's layers; "
        "the same units left and right, the maps of a layer on one scale (bright is high)."
    )
    found.shown.append(
        Shown(Picture(path.name, *size, "Activation maps of two images, by layer."), caption)
    )


def size_of(layer: Layer) -> str:
    return " x ".join(str(n) for n in layer.shape[1:])


def peaks(net: Classifier, x: Tensor, modules: list[nn.Module]) -> list[Peaks]:
    """Return the peaks of each module's units on images (N, C, H, W)."""
    parts: list[list[Peaks]] = [[] for _ in modules]
    for found in batches(net, x, modules):
        for own, maps in zip(parts, found, strict=True):
            values, places = maps.flatten(2).max(2)
            own.append(
                Peaks(
                    values.numpy(),
                    (places // maps.shape[3]).numpy(),
                    (places % maps.shape[3]).numpy(),
                )
            )
    return [
        Peaks(
            *(
                np.concatenate([getattr(p, key) for p in own])
                for key in ("values", "rows", "columns")
            )
        )
        for own in parts
    ]


def deconvnet(net: Classifier, images: Tensor, module: nn.Module, places: np.ndarray) -> np.ndarray:
    """Return what one activation of each image projects back to: (N, C, H, W), for images (N, C, H, W).

    Zeiler & Fergus 2014, arXiv:1311.2901, section 2.1: places (3, N) are unit, row and column of the activation that
    is kept; pools go back to where their largest value was, filters are transposed, and every ReLU is applied to what
    comes back in place of its own derivative. Without ReLUs it is the gradient.
    """
    rectifiers = [m for m in net.modules() if isinstance(m, RECTIFIERS)]
    hooks = [
        m.register_full_backward_hook(lambda m, before, after: (after[0].clamp_min(0),))
        for m in rectifiers
    ]
    x = images.clone().requires_grad_()
    try:
        (maps,) = outputs(net, x, [module])
        kept = maps[(torch.arange(len(x)), *torch.from_numpy(places))]
        (back,) = torch.autograd.grad(kept.sum(), x)
    finally:
        for hook in hooks:
            hook.remove()
    return back.numpy()


def coarse(values: np.ndarray, block: int) -> np.ndarray:
    """Return values (N, C, H, W) averaged in blocks: what a smaller picture, which skips pixels, would lose."""
    if block < 2:
        return values
    means = F.avg_pool2d(torch.from_numpy(values), block, ceil_mode=True).numpy()
    return means.repeat(block, 2).repeat(block, 3)[:, :, : values.shape[2], : values.shape[3]]


def scale_of(values: np.ndarray) -> np.ndarray:
    """Return for each projection (N, C, H, W) what most of its values lie within, those apart that are exactly 0."""
    return np.array(
        [np.quantile(own[own > 0], VIVID) if own.any() else 1.0 for own in np.abs(values)]
    )


def cut(tiles: np.ndarray, seen: Fields, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Return of each tile (N, H, W, 4) what the unit at its place sees, clear beyond the border; all have one size.

    Where a unit's field is as long as the image, that axis is shown whole.
    """
    for axis, places in enumerate((rows, columns), start=1):
        field = seen[axis - 1] if seen else None
        if field is None or field.size >= tiles.shape[axis]:
            continue
        border = [(field.size, field.size) if k == axis else (0, 0) for k in range(4)]
        wide = np.pad(tiles, border)
        starts = places * field.jump + field.first + field.size  # the border's width added
        tiles = np.stack(
            [
                tile.take(range(a, a + field.size), axis - 1)
                for tile, a in zip(wide, starts, strict=True)
            ]
        )
    return tiles


def purity(own: Peaks, classes: np.ndarray) -> float:
    """Return the share of a unit's TOP images that are of its commonest class, in the mean of all living units."""
    tops = classes[own.top()[:, own.outstanding()]]  # (TOP, units)
    return (
        float(np.mean([np.bincount(column).max() / len(column) for column in tops.T]))
        if tops.size
        else 0.0
    )


def chance(classes: np.ndarray, seed: int, draws: int = 500) -> float:
    """Return the `purity` of units that answer to images at random."""
    rng = np.random.default_rng(seed)
    return float(
        np.mean([np.bincount(rng.permutation(classes)[:TOP]).max() / TOP for _ in range(draws)])
    )


def show_patches(
    subject: Subject,
    net: Classifier,
    images: np.ndarray,
    classes: np.ndarray,
    looked_at: list[tuple[Layer, Fields, Peaks]],
    found: Section,
) -> None:
    """Add the patches that excite units most, and their projections (V05, V06, V38)."""
    path, size = subject.folder / "units.patches.png", (760, 152 * len(looked_at))
    facts, side = found.facts.setdefault("units", {}), max(images.shape[1:3])
    with drawing(path, *size, rows=len(looked_at), columns=2 * UNITS) as axes:
        for line, (layer, seen, own) in zip(axes, looked_at, strict=True):
            units = own.outstanding()[:UNITS]
            field = max(f.size for f in seen) if seen else None
            sees = f"{field} px" if field else "all"
            facts[layer.name] = {"pixels": field, "purity": rounded(purity(own, classes))}
            for axis in line:
                axis.set_axis_off()
            for k, unit in enumerate(units):
                top = own.top()[:, unit]
                rows, columns = own.rows[top, unit], own.columns[top, unit]
                places = np.stack([np.full(len(top), unit), rows, columns])
                back = finite(
                    deconvnet(net, tensor(images[top]), layer.module, places),
                    f"a projection of {layer.name}",
                )
                back = coarse(back, min(field or side, side) // TILE_PX)
                shares = signed(back, scale_of(back))
                patches, shares = (
                    cut(tiles, seen, rows, columns) for tiles in (photos(images[top]), shares)
                )
                for j, tiles in enumerate((stretched(patches), shares)):
                    part = resized(tiles, TILE_PX)
                    title = f"unit {unit}" if k or j else f"{layer.name} ({sees}): unit {unit}"
                    show(line[2 * k + j], sheet(part, 3), title if j == 0 else "")
    sizes = ", ".join(f"{name} {row['pixels'] or 'all'}" for name, row in facts.items())
    ends = [row["purity"] for row in facts.values()]
    how = (
        "deconvnet"
        if any(isinstance(m, RECTIFIERS) for m in net.modules())
        else "gradient, as there is no ReLU"
    )
    caption = (
        f"Units that single out nine of {len(images)} test images: these, cut to what the unit sees and in full "
        f"contrast, and what of them excites it ({how}). A unit sees, in pixels by layer: {sizes}. The nine images of "
        f"a unit are {ends[0]:.0%} of one class in the first of these layers and {ends[-1]:.0%} in the last, "
        f"nine at random {chance(classes, subject.settings.seed):.0%}."
    )
    found.shown.append(
        Shown(
            Picture(path.name, *size, "Patches that excite units most, and projections."), caption
        )
    )
