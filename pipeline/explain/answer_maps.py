"""Maps of what one answer about an image rests on: by hiding patches, and by the gradient.

An answer's score is a function of images float (N, H, W, C) in grey levels; it returns numbers
(N,), or (N, A) for several answers at once, with gradients.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from torch import Tensor

from pipeline.explain.activations import BATCH
from pipeline.explain.sections import Section, require_finite
from pipeline.explain.subject import Subject
from pipeline.plots.style import SIGNED, UNSIGNED, show_image

GRID = 10  # patches along each side of an image
BUDGET = 2e10  # multiply-adds of all copies with a hidden patch: about 2 s of one core
MIN_IMAGES = 2  # however expensive the network is
TILE_PX = 120  # CSS pixels of an image in a picture
HEAD_PX = 16  # above each row, for its titles
HIDING, GRADIENT = "hiding", "gradient"  # names of maps

Score = Callable[[Tensor], Tensor]


def first_images(subject: Subject) -> np.ndarray:
    """Return as many of the first test images as BUDGET pays for, uint8 (N, H, W, C)."""
    count = subject.affordable(BUDGET / (1 + GRID**2), MIN_IMAGES, subject.settings.images)
    return np.array(subject.source.x["test"][:count])  # a copy: torch warns of a read-only map


def patch_numbers(height: int, width: int) -> np.ndarray:
    """Return the number of each pixel's patch, (height, width), row by row from 0."""
    rows, columns = (np.arange(side) * GRID // side for side in (height, width))
    return np.asarray(rows[:, None] * GRID + columns)


def hide_patches(image: np.ndarray) -> Tensor:
    """Return copies float (GRID ** 2, H, W, C) of an image, each with one patch of its mean colour.

    Zeiler & Fergus 2014, "Visualizing and Understanding Convolutional Networks", section 4.2, hide
    patches by grey.
    """
    numbers = patch_numbers(*image.shape[:2])
    hidden = numbers == np.arange(GRID**2)[:, None, None]
    mean = image.mean((0, 1))
    return torch.from_numpy(np.where(hidden[..., None], mean, image).astype(np.float32))


@torch.no_grad()
def occlusion_maps(score: Score, image: np.ndarray) -> np.ndarray:
    """Return what hiding each patch takes from the score, (H, W), or (A, H, W) of A answers."""
    whole = score(torch.from_numpy(image[None].astype(np.float32)))
    hidden = torch.cat([score(batch) for batch in hide_patches(image).split(BATCH)])
    falls = require_finite((whole - hidden).double().numpy(), "the score of an answer")
    return np.moveaxis(falls[patch_numbers(*image.shape[:2])], (0, 1), (-2, -1))


def gradient_map(score: Score, image: np.ndarray) -> np.ndarray:
    """Return the sum over channels of |d score / d pixel|, (H, W), per grey level."""
    x = torch.from_numpy(image[None].astype(np.float32)).requires_grad_()
    (gradient,) = torch.autograd.grad(score(x).sum(), x)
    return require_finite(gradient[0].abs().sum(2).double().numpy(), "the gradient of an answer")


def map_answers(
    scores: Sequence[Score], images: np.ndarray, regions: Sequence[np.ndarray]
) -> tuple[dict[str, list[np.ndarray]], dict[str, float]]:
    """Return the maps (H, W) of an answer about each image, by name, and the mean share of each
    kind of map in the answers' regions, bool (H, W).
    """
    pairs = [*zip(scores, images, strict=True)]
    maps = {
        HIDING: [occlusion_maps(*pair) for pair in pairs],
        GRADIENT: [gradient_map(*pair) for pair in pairs],
    }
    shares = {
        name: float(np.mean([share_inside(*pair) for pair in zip(values, regions, strict=True)]))
        for name, values in maps.items()
    }
    return maps, shares


def share_inside(values: np.ndarray, region: np.ndarray) -> float:
    """Return which share of what is positive in a map (H, W) lies in a region, bool (H, W)."""
    positive = np.maximum(values, 0)
    return float(positive[region].sum() / max(positive.sum(), np.finfo(np.float64).tiny))


def draw_maps(
    section: Section,
    file: str,
    alt: str,
    caption: str,
    images: np.ndarray,
    titles: list[str],
    maps: dict[str, list[np.ndarray]],
    mark: Callable[[Axes, int], Any],
) -> None:
    """Add a picture: images with their titles, below them their maps by name, all marked.

    mark(axis, k) draws what the answer about image k is. Maps by hiding have one scale, gradients
    each their own: they are small where an answer is certain.
    """
    rows, columns = 1 + len(maps), len(images)
    size = TILE_PX * columns, (TILE_PX + HEAD_PX) * rows
    with section.draw(file, size, alt, caption, "photograph", rows=rows, columns=columns) as axes:
        for k, (image, title) in enumerate(zip(images, titles, strict=True)):
            show_image(axes[0, k], image, title)
        for line, (name, values) in zip(axes[1:], maps.items(), strict=True):
            limits = [float(np.abs(one).max()) for one in values]
            signed = name == HIDING
            for axis, one, limit in zip(line, values, limits, strict=True):
                show_map(axis, one, max(limits) if signed else limit, name, signed=signed)
        for line in axes:
            for k, axis in enumerate(line):
                mark(axis, k)


def show_map(axis: Axes, values: np.ndarray, limit: float, title: str, *, signed: bool) -> None:
    """Draw a map (H, W): red positive and blue negative, or shades of blue without a sign."""
    low, colours = (-limit, SIGNED) if signed else (0.0, UNSIGNED)
    axis.imshow(values, cmap=colours, vmin=low, vmax=limit or 1.0, interpolation="nearest")
    axis.set(xticks=[], yticks=[])
    axis.set_title(title, loc="center", fontsize=7)
    axis.spines[:].set_visible(False)
