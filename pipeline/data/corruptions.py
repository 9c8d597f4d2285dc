"""Another camera: the same pictures blurred, noisy or of another colour (R13, R14), or with their pixels in disorder.

What it makes is what the source holds then: files for the last stage are written with it, so serving sees it as well.
Pictures are read as everywhere else, so a camera that changes nothing changes no pixel.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from convline.errors import InputError
from convline.images.decode import read_full_size
from PIL import Image, ImageFilter

from pipeline.core.errors import StageError
from pipeline.params.schema import Camera


def through(
    image: Image.Image | Path,
    camera: Camera,
    seed: int,
    number: int,
    background: tuple[int, int, int],
) -> Image.Image:
    """Return the picture as this camera takes it, in mode L or RGB.

    number: its place in the source, which seeds its noise; background: what shows through transparent pixels.
    """
    try:
        picture = read_full_size(image, background)
    except InputError as error:
        raise StageError(f"data: {error}; repair or remove the file") from None
    picture = picture.filter(ImageFilter.GaussianBlur(camera.blur)) if camera.blur else picture
    pixels = np.asarray(picture, np.float64)
    pixels = pixels * (camera.colour if pixels.ndim == 3 else np.mean(camera.colour))
    if camera.noise:
        pixels = pixels + np.random.default_rng([seed, number]).normal(
            0, camera.noise, pixels.shape
        )
    if camera.scramble:
        flat = pixels.reshape(-1, *pixels.shape[2:])
        pixels = flat[np.random.default_rng(seed).permutation(len(flat))].reshape(pixels.shape)
    return Image.fromarray(np.rint(pixels).clip(0, 255).astype(np.uint8))
