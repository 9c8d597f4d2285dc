"""Section: what the class of one pixel rests on, in a segmenter."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from convline.colours import ORANGE
from torch import Tensor

from pipeline.explain.answer_maps import (
    GRADIENT,
    GRID,
    HIDING,
    Score,
    draw_maps,
    first_images,
    map_answers,
)
from pipeline.explain.sections import Section, percent
from pipeline.explain.subject import Subject

Pixel = tuple[int, int, int]  # row, column, class


def make_section(subject: Subject) -> Section | None:
    """Return maps of a pixel of the largest answered class of each of the first test images.

    None where every pixel is background.
    """
    images = first_images(subject)
    with torch.no_grad():
        masks, probabilities = (part.numpy() for part in subject.net(torch.from_numpy(images)))
    shown = (masks > 0).any((1, 2))
    images, masks, probabilities = images[shown], masks[shown], probabilities[shown]
    if not len(images):
        return None
    pixels = [middle_pixel(mask) for mask in masks]
    regions = [mask == k for mask, (_, _, k) in zip(masks, pixels, strict=True)]
    maps, shares = map_answers([pixel_score(subject.net, *at) for at in pixels], images, regions)
    gradients = zip(maps[GRADIENT], pixels, strict=True)
    reach = float(np.mean([half_radius(*pair) for pair in gradients]))
    section = Section(subject, "What a pixel’s class rests on")
    section.facts |= {"images": len(images), "inside": shares, "area": float(np.mean(regions))}
    section.facts["reach"] = reach
    titles = [
        f"{subject.labels[k]} {probabilities[row, k, y, x]:.2f}"
        for row, (y, x, k) in enumerate(pixels)
    ]
    caption = (
        "Above each image: the class of the marked pixel, and its probability. "
        f"{HIDING}: what hiding one of {GRID} × {GRID} patches takes from this probability, red "
        f"where it falls, blue where it rises. {GRADIENT}: the size of the probability’s gradient, "
        f"each on its own scale; half of it lies within {reach:.0f} pixels of the pixel (mean over "
        f"images). Of what hiding takes {percent(shares[HIDING])}, and of the gradient "
        f"{percent(shares[GRADIENT])}, lie on pixels of the same class, "
        f"{percent(section.facts['area'])} of the image."
    )
    alt = f"A pixel of {len(images)} test images, {', '.join(titles)}, and two maps of each."

    def mark(axis: Any, k: int) -> None:
        y, x, _ = pixels[k]
        axis.plot(x, y, "+", color=ORANGE, ms=9, mew=2)

    draw_maps(section, "pixels.png", alt, caption, images, titles, maps, mark)
    return section


def middle_pixel(mask: np.ndarray) -> Pixel:
    """Return the pixel of the largest class of a mask (H, W), without the background, that is
    nearest to the middle of this class.
    """
    k = 1 + int(np.bincount(mask.ravel(), minlength=2)[1:].argmax())
    places = np.argwhere(mask == k)
    y, x = places[((places - places.mean(0)) ** 2).sum(1).argmin()].tolist()
    return y, x, k


def pixel_score(net: Any, y: int, x: int, k: int) -> Score:
    """Return the score function of a pixel: the probability of class k at row y, column x."""

    def score(images: Tensor) -> Tensor:
        probabilities: Tensor = net(images)[1]
        return probabilities[:, k, y, x]

    return score


def half_radius(values: np.ndarray, pixel: Pixel) -> float:
    """Return the radius in pixels around a pixel that holds half of a map (H, W)."""
    y, x = np.indices(values.shape)
    distances = np.hypot(y - pixel[0], x - pixel[1]).ravel()
    order = distances.argsort()
    total = values.ravel()[order].cumsum()
    return float(distances[order][np.searchsorted(total, total[-1] / 2)])
