"""Another camera: the same pictures blurred, noisy or of another colour (R13, R14), or with their pixels in disorder.

What it makes is what the source holds then: files for the last stage are written with it, so serving sees it as well.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageFilter, ImageOps

from pipeline.stage import StageError


def through(image: Image.Image | Path, camera: dict[str, Any], seed: int, number: int) -> Image.Image:
    """Return the picture as this camera takes it; `number` is its place in the source and seeds its noise."""
    try:
        picture = ImageOps.exif_transpose(Image.open(image)) if isinstance(image, Path) else image
    except (OSError, Image.DecompressionBombError) as error:
        raise StageError(f"data: {image}: cannot be read ({error}); repair or remove the file") from None
    picture = picture if picture.mode == "L" else picture.convert("RGB")
    picture = picture.filter(ImageFilter.GaussianBlur(camera["blur"])) if camera["blur"] else picture
    pixels = np.asarray(picture, np.float64)
    pixels = pixels * (camera["colour"] if pixels.ndim == 3 else np.mean(camera["colour"]))
    if camera["noise"]:
        pixels = pixels + np.random.default_rng([seed, number]).normal(0, camera["noise"], pixels.shape)
    if camera["scramble"]:
        flat = pixels.reshape(-1, *pixels.shape[2:])
        pixels = flat[np.random.default_rng(seed).permutation(len(flat))].reshape(pixels.shape)
    return Image.fromarray(np.rint(pixels).clip(0, 255).astype(np.uint8))
