"""Random parts of photos, which the papers cut from the photo and not from a network's input."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from convline.images.decode import Box, open_part, resize_part
from convline.model_file.document import ImageRule
from torch.nn import functional as F

from pipeline.params.schema import Augment

# Of a generator and an image's width and height: the part that is resampled to the input's size.
Crop = Callable[[np.random.Generator, int, int], Box]

TRIES = 10  # until a part of the drawn area and shape fits into the photo, as in torchvision


def build(spec: Augment | None, rule: ImageRule) -> Crop | None:
    """Return what cuts a part out of a photo, None where photos are taken as they are served."""
    if spec is None or spec.crop == "none":
        return None
    if spec.crop == "random":
        return partial(random_crop, shorter=rule.shorter_px or max(rule.size), size=rule.size)
    return partial(random_resized_crop, area=spec.area, aspect=spec.aspect)


def cut(content: bytes, rule: ImageRule, choose: Callable[[int, int], Box]) -> np.ndarray:
    """Return a part of an image file, resampled once to the rule's size: uint8 (C, H, W).

    A part of whole pixels is resampled bilinearly by torch, three times as fast as by Pillow: to
    one grey level. Other parts and filters are Pillow's; torch's bicubic differs by up to 30.
    choose: as in `open_part`. Raises InputError.
    """
    image, part = open_part(content, rule, choose)
    left, top, right, bottom = map(int, part)
    if (left, top, right, bottom) != part or rule.interpolation != "bilinear":
        return resize_part(image, part, rule).transpose(2, 0, 1)
    pixels = np.array(image.crop((left, top, right, bottom)))
    planes = torch.from_numpy(pixels.reshape(bottom - top, right - left, rule.channels))
    planes = planes.permute(2, 0, 1)[None]
    return F.interpolate(planes, rule.size, mode="bilinear", antialias=True)[0].numpy()


def random_crop(
    rng: np.random.Generator, width: int, height: int, *, shorter: int, size: tuple[int, int]
) -> Box:
    """Return a window of `size` from the central square of a photo scaled to a shorter side.

    Krizhevsky et al. 2012, "ImageNet classification with deep convolutional neural networks",
    sections 2 and 4.1: the shorter side becomes 256 pixels, the central 256 x 256 are cut out, and
    of these 224 x 224 at random. All of it in one resampling.
    """
    unit = min(width, height) / shorter  # pixels of the photo to one of the scaled photo
    top, left = (int(rng.integers(shorter - side + 1)) for side in size)
    x, y = (width - shorter * unit) / 2 + left * unit, (height - shorter * unit) / 2 + top * unit
    return x, y, x + size[1] * unit, y + size[0] * unit


def random_resized_crop(
    rng: np.random.Generator,
    width: int,
    height: int,
    *,
    area: tuple[float, float],
    aspect: tuple[float, float],
) -> Box:
    """Return a part of random area and aspect ratio, at a random place.

    Szegedy et al. 2015, "Going deeper with convolutions", arXiv:1409.4842, section 6: the area is
    uniform in 8 % to 100 % of the photo's, the ratio of the sides in 3/4 to 4/3. As in torchvision
    the logarithm of the ratio is uniform, so that upright and lying parts are as frequent, and
    after TRIES parts that do not fit it is the largest central one of a ratio that is allowed.
    """
    low, high = np.log(aspect)
    for _ in range(TRIES):
        target, ratio = width * height * rng.uniform(*area), math.exp(rng.uniform(low, high))
        w, h = round(math.sqrt(target * ratio)), round(math.sqrt(target / ratio))
        if 0 < w <= width and 0 < h <= height:
            x, y = int(rng.integers(width - w + 1)), int(rng.integers(height - h + 1))
            return x, y, x + w, y + h
    ratio = min(max(width / height, aspect[0]), aspect[1])
    w, h = min(width, round(height * ratio)), min(height, round(width / ratio))
    x, y = (width - w) // 2, (height - h) // 2
    return x, y, x + max(w, 1), y + max(h, 1)
