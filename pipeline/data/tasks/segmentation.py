"""Segmentation: images with a class for each pixel."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from convline.errors import InputError
from convline.images.annotations import BACKGROUND, VOID
from PIL import Image

from pipeline.core.errors import StageError
from pipeline.data.annotated_sources import annotated_images
from pipeline.data.dataset import SPLITS, Data
from pipeline.data.image_arrays import (
    count_classes,
    describe_images,
    image_data,
    write_raw_files,
)
from pipeline.data.splits import AnnotatedSample, AnnotatedSplits
from pipeline.params.schema import ImageData


def make(recipe: ImageData) -> tuple[Data, AnnotatedSplits]:
    """Return the data of a `data:` block, and the samples of each split."""
    splits, names = annotated_images(recipe)
    if len(names) >= VOID:
        what = f"expected at most {VOID - 1} classes, got {len(names)}"
        raise StageError(f"data.{recipe.spec.source}: {what}; join some")
    labels = [BACKGROUND, *names]
    y = {
        split: np.stack([resized_mask(sample, recipe.size) for sample in samples])
        for split, samples in splits.items()
    }
    if all(np.isin(masks, [0, VOID]).all() for masks in y.values()):
        what = "expected masks or polygons, got none"
        raise StageError(f"data.{recipe.spec.source}: {what}; add some, or detect boxes")
    present = {split: [np.setdiff1d(mask, [VOID]) for mask in y[split]] for split in SPLITS}
    # A densely labelled set gives each pixel a class and has no background.
    balance, notes = count_classes(present, labels, spared={labels.index(BACKGROUND)})
    return image_data(recipe, splits, y, {"labels": labels, "balance": balance}, notes), splits


def read_mask(sample: AnnotatedSample) -> np.ndarray:
    """Return the class indices of an image, uint8 (H, W) of its own size."""
    if sample.draw_mask is None:  # an image without any annotation, among others that have some
        return np.zeros(sample.size[::-1], np.uint8)
    try:
        return sample.draw_mask()
    except InputError as error:
        raise StageError(f"data: {error}; correct the mask") from None


def resized_mask(sample: AnnotatedSample, size: tuple[int, int]) -> np.ndarray:
    """Return the class indices of an image at the input's size, each of the nearest pixel."""
    mask = Image.fromarray(read_mask(sample))
    return np.asarray(mask.resize(size[::-1], Image.Resampling.NEAREST))


def describe(about: dict[str, Any]) -> str:
    """Return the images of each split, their classes and size; about: content of data.json."""
    return describe_images(about, f"{len(about['labels'])} classes of pixels")


def write_raw(folder: Path, data: Data, samples: AnnotatedSplits) -> None:
    """Write raw test images, raw.csv (file, row), and their masks to raw_masks/."""
    masks = folder.with_name("raw_masks")
    masks.mkdir()
    for row, file in write_raw_files(folder, samples["test"]).items():
        Image.fromarray(read_mask(samples["test"][row])).save(masks / f"{file.stem}.png")
