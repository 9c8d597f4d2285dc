"""Corruptions of images, as another camera would make: blur, noise, colour, permuted pixels.

They apply before everything else: the raw test files that stage infer serves are corrupted, too.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from convline.images.decode import read_full_size
from PIL import Image, ImageFilter

from pipeline.params.schema import Camera

Colour = tuple[int, int, int]  # red, green, blue


def corrupt_image(
    image: Image.Image | Path | bytes, camera: Camera, seed: int, number: int, background: Colour
) -> Image.Image:
    """Return the corrupted image, in mode L or RGB.

    number: the image's place in the dataset, part of its noise's seed. background: the colour
    behind transparent pixels. Raises InputError for what is no image.
    """
    picture = read_full_size(image, background)
    picture = picture.filter(ImageFilter.GaussianBlur(camera.blur)) if camera.blur else picture
    pixels = np.asarray(picture, np.float64)
    pixels = pixels * (camera.colour if pixels.ndim == 3 else np.mean(camera.colour))
    if camera.noise:
        rng = np.random.default_rng([seed, number])
        pixels = pixels + rng.normal(0, camera.noise, pixels.shape)
    if camera.scramble:
        flat = pixels.reshape(-1, *pixels.shape[2:])
        pixels = flat[np.random.default_rng(seed).permutation(len(flat))].reshape(pixels.shape)
    return Image.fromarray(np.rint(pixels).clip(0, 255).astype(np.uint8))
