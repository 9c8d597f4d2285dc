"""Sixty pictures of one square each and their captions, for tests of captioning."""

from __future__ import annotations

from typing import Any

import numpy as np

from pipeline.data.dataset import Data
from pipeline.network.tasks import captioning

WORDS = ["<start>", "<end>", "<unknown>", "a", "dark", "bright", "square", "left", "right", "on"]
LONGEST = 6
SIDE = 16


def data() -> Data:
    """Return 48 images to train on, 6 for validation and 6 for tests, two captions each.

    "a bright square left" and "left a square": the second one is shorter, and has no shade.
    """
    rng = np.random.default_rng(0)
    x = rng.integers(110, 140, (60, SIDE, SIDE, 1), np.uint8)
    y = np.full((60, 2, LONGEST), -1)
    for image, captions in zip(x, y, strict=True):
        bright, right = rng.integers(0, 2, 2)
        top, left = rng.integers(0, SIDE - 4), rng.integers(0, 4) + right * SIDE // 2
        image[top : top + 4, left : left + 4] = 230 if bright else 20
        side = WORDS.index("right" if right else "left")
        shade = WORDS.index("bright" if bright else "dark")
        captions[0, :5] = [3, shade, 6, side, 1]
        captions[1, :4] = [side, 3, 6, 1]
    splits = {"train": slice(48), "validation": slice(48, 54), "test": slice(54, 60)}
    about: dict[str, Any] = {"task": "captioning", "words": WORDS, "longest": LONGEST}
    about["input"] = {"size": [SIDE, SIDE], "colour": "grey"}
    mean, scale = np.full((1, 1, 1), 125, np.float32), np.full((1, 1, 1), 1 / 40, np.float32)
    xs, ys = ({split: part[rows] for split, rows in splits.items()} for part in (x, y))
    return Data(xs, ys, mean, scale, about)


def network(image: str = "every", frozen: bool = False) -> captioning.Captioner:
    """Return an untrained captioner for `data`, sixteen units wide; image: the steps that get it."""
    net = {"width": 16, "maps": 16, "image": image, "frozen": frozen}
    recipe: Any = type("Recipe", (), {"arch": "captioner", "net": net})
    return captioning.assemble(recipe, data())
