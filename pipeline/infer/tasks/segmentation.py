"""Segmentation: the same mask for each raw image, at the size of the image."""

from __future__ import annotations

from typing import Any

import numpy as np
from convline.images.decode import read_indices
from convline.metrics.segmentation import confusions, mean_overlap
from PIL import Image

from pipeline.infer.raw_images import describe_served, serve_images
from pipeline.infer.request import Request
from pipeline.params.schema import ERROR_LIMIT

OTHER_PIXELS = 1e-4  # share of an image's pixels where two classes may tie in another batch


def serve(request: Request) -> dict[str, Any]:
    """Return the mean IoU of the masks that `infer images` writes for the raw files, and that of
    the check's masks of the same images, enlarged likewise.
    """
    folder = request.output.with_suffix("")
    images = serve_images(request, "--masks", str(folder))
    truth = [
        read_indices(request.data / "raw_masks" / f"{image.path.stem}.png") for image in images
    ]
    masks = [
        read_indices(folder / image.rows[0]["mask"]) if image.is_ok else np.zeros_like(y)
        for image, y in zip(images, truth, strict=True)
    ]
    checked = [
        enlarge(request.predictions[image.number], y)
        for image, y in zip(images, truth, strict=True)
    ]
    classes = len(request.about["labels"])
    value, expected = (
        mean_overlap(confusions(found, truth, classes)) for found in (masks, checked)
    )
    same = all(
        (mask != other).mean() <= OTHER_PIXELS for mask, other in zip(masks, checked, strict=True)
    )
    equal = same and abs(value - expected) <= ERROR_LIMIT
    shares = [f"{row.get('label')} {row.get('share', 0):.2f}" for row in images[0].rows]
    return describe_served(images, "mean_iou", value, expected, equal, ", ".join(shares))


def enlarge(mask: np.ndarray, like: np.ndarray) -> np.ndarray:
    """Return a mask uint8 (H, W) at the size of another one, each pixel of the nearest."""
    size = like.shape[1], like.shape[0]
    return np.asarray(Image.fromarray(mask).resize(size, Image.Resampling.NEAREST))
