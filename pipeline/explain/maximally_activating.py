"""Section: activation maps of two images, and the test images that activate single units most.

The images are cut to what the unit sees, beside their deconvnet projections.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.explain.activations import (
    Layer,
    capture_in_batches,
    capture_maps,
    capture_output,
    find_layers,
    select_evenly,
)
from pipeline.explain.image_grid import (
    arrange_tiles,
    heat_tiles,
    photo_tiles,
    resize_tiles,
    show_tiles,
    signed_tiles,
    stretch_contrast,
    to_tensor,
)
from pipeline.explain.modified_relu import ClampAtSix
from pipeline.explain.receptive_field import Fields, compute_fields
from pipeline.explain.sections import Section, percent, require_finite
from pipeline.explain.subject import Subject
from pipeline.network.modules import Classifier

LAYERS, MAPS = 4, 7  # rows of the pictures; maps of a layer for each image
TOP = 9  # images for each unit, as in Zeiler & Fergus
UNITS = 3  # of each layer
TILE_PX = 64
MIN_MAP_PX = 4  # a smaller map is no picture
COVERED = 0.995  # share of a projection's values that its scale covers
# a ClampAtSix, the second half of a ReLU6, would pass nothing back from a unit at its bound
RECTIFIERS = (nn.ReLU, ClampAtSix)


@dataclass(frozen=True)
class Peaks:
    """The highest activation of each unit on each image, and its place on the map: all (N, C)."""

    values: np.ndarray
    rows: np.ndarray
    columns: np.ndarray

    def top_images(self) -> np.ndarray:
        """Return the rows (TOP, C) of the images with the highest peaks, the highest first."""
        return np.argsort(-self.values, axis=0, kind="stable")[:TOP]

    def selective_units(self) -> np.ndarray:
        """Return the living units, those first whose TOP images stand out most from all images."""
        spread = self.values.std(0)
        lowest = np.take_along_axis(self.values, self.top_images(), 0)[-1]
        score = (lowest - self.values.mean(0)) / np.maximum(spread, 1e-12)
        order = np.argsort(-np.where(spread > 0, score, -np.inf), kind="stable")
        return order[: int((spread > 0).sum())]


def make_section(subject: Subject) -> Section | None:
    """Return maps, patches and projections of units; None where no layer has maps."""
    net = subject.classifier
    if net is None:
        return None
    images, classes = subject.samples(subject.settings.searched)
    x = to_tensor(images)
    spatial = [layer for layer in find_layers(net, x) if layer.spatial]
    if not spatial:
        return None
    section = Section(subject, "Units")
    readable = [layer for layer in spatial if max(layer.shape[1:]) >= MIN_MAP_PX] or spatial
    draw_activation_maps(section, net, images[:2], select_evenly(readable, LAYERS))
    layers = select_evenly(spatial, LAYERS)
    modules = [layer.module for layer in layers]
    fields = compute_fields(lambda x: capture_maps(net, x, modules), x[:1])
    peaks = find_peaks(net, x, modules)
    units = list(zip(layers, fields, peaks, strict=True))
    draw_patches(section, net, images, classes, units)
    return section


def draw_activation_maps(
    section: Section, net: Classifier, images: np.ndarray, layers: list[Layer]
) -> None:
    """Add the maps of the units with the highest activation for two images, layer by layer."""
    with torch.no_grad():
        outputs = capture_maps(net, to_tensor(images), [layer.module for layer in layers])
    photos = resize_tiles(photo_tiles(images), TILE_PX)
    caption = (
        f"Two test images, and the maps of up to {MAPS} units with the highest activation in "
        f"{len(layers)} layer{'s' * (len(layers) > 1)} of the network. Left and right show the "
        "same units. All maps of a layer have one scale; dark blue is high."
    )
    alt, size = "Activation maps of two images, by layer.", (760, 74 * len(layers))
    grid = {"rows": len(layers), "columns": 2}
    with section.draw("units.maps.png", size, alt, caption, "photograph", **grid) as axes:
        for line, layer, output in zip(axes, layers, outputs, strict=True):
            maps = require_finite(output.numpy(), f"a map of {layer.name}")
            units = np.argsort(-np.abs(maps).max((0, 2, 3)), kind="stable")[:MAPS]
            maps = maps[:, units]
            low, high = min(0.0, float(maps.min())), float(maps.max())
            sides = " x ".join(str(n) for n in layer.shape[1:])
            for axis, photo, of_image in zip(line, photos, maps, strict=True):
                tiles = resize_tiles(heat_tiles(of_image, low, high), TILE_PX)
                row = arrange_tiles(np.concatenate([photo[None], tiles]), MAPS + 1)
                show_tiles(axis, row, f"{layer.name}: {layer.shape[0]} maps of {sides}")


def find_peaks(net: Classifier, x: Tensor, modules: list[nn.Module]) -> list[Peaks]:
    """Return the peaks of each module's units on images (N, C, H, W)."""
    batches: list[list[tuple[np.ndarray, ...]]] = [[] for _ in modules]
    for outputs in capture_in_batches(net, x, modules):
        for arrays, maps in zip(batches, outputs, strict=True):
            values, places = maps.flatten(2).max(2)
            rows, columns = places // maps.shape[3], places % maps.shape[3]
            arrays.append((values.numpy(), rows.numpy(), columns.numpy()))
    return [Peaks(*map(np.concatenate, zip(*arrays, strict=True))) for arrays in batches]


def project_back(
    net: Classifier, images: Tensor, module: nn.Module, places: np.ndarray
) -> np.ndarray:
    """Return the projection (N, C, H, W) of one activation of each image, for images (N, C, H, W).

    The deconvnet of Zeiler & Fergus 2014, arXiv:1311.2901, section 2.1: places (3, N) are unit, row
    and column of the activation that is kept. Max pools send it back to where the maximum was,
    filters are transposed, and a ReLU of the backward signal replaces the derivative of each ReLU.
    A network without ReLUs gives the gradient. Captum's NeuronDeconvolution passes nothing back
    through a ClampAtSix.
    """
    rectifiers = [m for m in net.modules() if isinstance(m, RECTIFIERS)]
    hooks = [m.register_full_backward_hook(rectify) for m in rectifiers]
    x = images.clone().requires_grad_()
    try:
        maps = capture_output(net, x, module)
        activations = maps[(torch.arange(len(x)), *torch.from_numpy(places))]
        (projection,) = torch.autograd.grad(activations.sum(), x)
    finally:
        for hook in hooks:
            hook.remove()
    return projection.numpy()


def rectify(module: nn.Module, gradient_in: Any, gradient_out: Any) -> tuple[Tensor]:
    """Replace a ReLU's gradient by the ReLU of the gradient that comes in from its output."""
    return (gradient_out[0].clamp_min(0),)


def average_blocks(values: np.ndarray, block: int) -> np.ndarray:
    """Return values (N, C, H, W) averaged in blocks, before a smaller picture skips pixels."""
    if block < 2:
        return values
    means = F.avg_pool2d(torch.from_numpy(values), block, ceil_mode=True).numpy()
    return means.repeat(block, 2).repeat(block, 3)[:, :, : values.shape[2], : values.shape[3]]


def robust_limits(values: np.ndarray) -> np.ndarray:
    """Return the limit (N,) of each projection's scale: a quantile of nonzero magnitudes."""
    return np.array([np.quantile(v[v > 0], COVERED) if v.any() else 1.0 for v in np.abs(values)])


def crop_to_fields(
    tiles: np.ndarray, fields: Fields, rows: np.ndarray, columns: np.ndarray
) -> np.ndarray:
    """Return the part of each tile (N, H, W, 4) that its unit sees, clear beyond the border.

    Along an axis where the field is as long as the image, the tile is not cropped.
    """
    for axis, (field, places) in enumerate(zip(fields or (), (rows, columns), strict=False), 1):
        if field.size >= tiles.shape[axis]:
            continue
        border = [(field.size, field.size) if k == axis else (0, 0) for k in range(4)]
        padded = np.pad(tiles, border)
        starts = places * field.jump + field.first + field.size
        cuts = [range(start, start + field.size) for start in starts]
        tiles = np.stack([t.take(cut, axis - 1) for t, cut in zip(padded, cuts, strict=True)])
    return tiles


def purity(peaks: Peaks, classes: np.ndarray) -> float:
    """Return the share of a unit's TOP images in its most frequent class, the mean of units."""
    tops = classes[peaks.top_images()[:, peaks.selective_units()]]  # (TOP, units)
    shares = [np.bincount(column).max() / len(column) for column in tops.T]
    return float(np.mean(shares)) if shares else 0.0


def chance_purity(classes: np.ndarray, seed: int, draws: int = 500) -> float:
    """Return the `purity` of random images."""
    rng = np.random.default_rng(seed)
    shares = [np.bincount(rng.permutation(classes)[:TOP]).max() / TOP for _ in range(draws)]
    return float(np.mean(shares))


def draw_patches(
    section: Section,
    net: Classifier,
    images: np.ndarray,
    classes: np.ndarray,
    units: list[tuple[Layer, Fields, Peaks]],
) -> None:
    """Add the patches that activate units most, and their projections."""
    facts, side = section.facts, max(images.shape[1:3])
    for layer, fields, peaks in units:
        pixels = max(f.size for f in fields) if fields else None
        facts[layer.name] = {"pixels": pixels, "purity": purity(peaks, classes)}
    sizes = ", ".join(f"{name} {row['pixels'] or 'all'}" for name, row in facts.items())
    purities = [row["purity"] for row in facts.values()]
    has_rectifiers = any(isinstance(m, RECTIFIERS) for m in net.modules())
    method = "deconvnet" if has_rectifiers else "gradient, because there is no ReLU"
    top = min(TOP, len(images))
    shares = f"{percent(purities[0])} have one class"
    if len(purities) > 1:
        shares += f" in the first of these layers and {percent(purities[-1])} in the last"
    caption = (
        f"For some units, the {top} of {len(images)} test images that activate them most, cut to "
        "the unit's receptive field, with full contrast; beside them the projection of the "
        f"activation ({method}). Receptive fields in pixels by layer: {sizes}. Of a unit's {top} "
        f"images {shares}; of {top} random images "
        f"{percent(chance_purity(classes, section.subject.settings.seed))} have."
    )
    alt = "Patches that activate units most, and their projections."
    size, grid = (760, 152 * len(units)), {"rows": len(units), "columns": 2 * UNITS}
    with section.draw("units.patches.png", size, alt, caption, "photograph", **grid) as axes:
        for line, (layer, fields, peaks) in zip(axes, units, strict=True):
            pixels = facts[layer.name]["pixels"]
            for axis in line:
                axis.set_axis_off()
            selected = peaks.selective_units()[:UNITS]
            if not len(selected):
                continue
            tops = peaks.top_images()[:, selected]  # (TOP, units)
            places = np.stack([
                np.broadcast_to(selected, tops.shape),
                peaks.rows[tops, selected],
                peaks.columns[tops, selected],
            ])  # fmt: skip
            # all units of a layer in one batch: a network is slow on a few images
            backs = project_back(
                net, to_tensor(images[tops.ravel()]), layer.module, places.reshape(3, -1)
            )
            require_finite(backs, f"a projection of {layer.name}")
            backs = backs.reshape(*tops.shape, *backs.shape[1:])
            for k, unit in enumerate(selected):
                best, (_, rows, columns) = tops[:, k], places[..., k]
                back = average_blocks(backs[:, k], min(pixels or side, side) // TILE_PX)
                photos, projections = (
                    crop_to_fields(tiles, fields, rows, columns)
                    for tiles in (
                        photo_tiles(images[best]),
                        signed_tiles(back, robust_limits(back)),
                    )
                )
                title = f"unit {unit}"
                if k == 0:
                    title = f"{layer.name} ({f'{pixels} px' if pixels else 'all'}): {title}"
                pair = (stretch_contrast(photos), title), (projections, "")
                for axis, (tiles, text) in zip(line[2 * k :], pair, strict=False):
                    show_tiles(axis, arrange_tiles(resize_tiles(tiles, TILE_PX), 3), text)
