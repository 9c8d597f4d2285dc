"""Section: what the best find of a detector rests on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from convline.colours import ORANGE
from convline.metrics.detection import box_overlaps
from matplotlib.patches import Rectangle
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


@dataclass(frozen=True)
class Find:
    """A find: box (4,) in pixels, class index, score."""

    box: np.ndarray
    label: int
    score: float

    def inside(self, height: int, width: int) -> np.ndarray:
        """Return which pixels have their middle in the box, bool (height, width)."""
        left, top, right, bottom = self.box
        y, x = np.arange(height)[:, None] + 0.5, np.arange(width) + 0.5
        return np.asarray((left <= x) & (x <= right) & (top <= y) & (y <= bottom))


def make_section(subject: Subject) -> Section | None:
    """Return maps of the best find of each of the first test images; None without a find."""
    images = first_images(subject)
    finds = best_finds(subject.net, images)
    images = images[[find is not None for find in finds]]
    found = [find for find in finds if find is not None]
    if not found:
        return None
    regions = [find.inside(*images.shape[1:3]) for find in found]
    scores = [find_score(subject.net, find) for find in found]
    maps, shares = map_answers(scores, images, regions)
    area = float(np.mean(regions))
    falls = [float(one.max()) for one in maps[HIDING]]
    section = Section(subject, "What a box rests on")
    section.facts |= {"images": len(found), "inside": shares, "area": area}
    section.facts["largest_fall"] = float(np.mean(falls))
    titles = [f"{subject.labels[find.label]} {find.score:.2f}" for find in found]
    caption = (
        f"Above each image: the best find, framed, with its score. {HIDING}: what hiding one of "
        f"{GRID} × {GRID} patches takes from score times overlap of this find, red where the find "
        f"needs the patch, blue where the patch is in its way; up to {np.mean(falls):.2f} (mean "
        f"over images). {GRADIENT}: the size of the score’s gradient, each on its own scale. Of "
        f"what hiding takes {percent(shares[HIDING])}, and of the gradient "
        f"{percent(shares[GRADIENT])}, lie in the box, which covers {percent(area)} of the image. "
        "Score times overlap: Petsiuk et al. 2021, “Black-box explanation of object detectors via "
        "saliency maps”, eq. 3."
    )
    alt = f"The best find of {len(found)} test images, {', '.join(titles)}, and two maps of each."

    def mark(axis: Any, k: int) -> None:
        left, top, right, bottom = found[k].box
        corner = left - 0.5, top - 0.5
        axis.add_patch(Rectangle(corner, right - left, bottom - top, fill=False, ec=ORANGE, lw=1.5))

    draw_maps(section, "boxes.png", alt, caption, images, titles, maps, mark)
    return section


@torch.no_grad()
def best_finds(net: Any, images: np.ndarray) -> list[Find | None]:
    """Return the find of the highest score in each image, None without a find."""
    boxes, labels, scores, count = net(torch.from_numpy(images))
    return [
        Find(boxes[k, 0].numpy(), int(labels[k, 0]), float(scores[k, 0])) if count[k] else None
        for k in range(len(images))
    ]


def find_score(net: Any, find: Find) -> Score:
    """Return the score function of a find: the largest score times overlap of its class."""

    def score(images: Tensor) -> Tensor:
        boxes, labels, scores, _ = net(images)
        overlaps = box_overlaps(boxes.detach().reshape(-1, 4).numpy(), find.box[None])
        overlap = torch.from_numpy(overlaps.astype(np.float32)).view_as(scores)
        return (scores * overlap * (labels == find.label)).amax(1)

    return score
