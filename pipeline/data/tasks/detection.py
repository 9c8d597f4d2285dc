"""Detection: images with boxes of labelled objects."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from pipeline.core.errors import StageError
from pipeline.data.annotated_sources import annotated_images
from pipeline.data.dataset import SPLITS, Data
from pipeline.data.image_arrays import (
    count_classes,
    describe_images,
    image_data,
    write_coco,
    write_raw_files,
)
from pipeline.data.splits import AnnotatedSample, AnnotatedSplits
from pipeline.params.schema import ImageData


def make(recipe: ImageData) -> tuple[Data, AnnotatedSplits]:
    """Return the data of a `data:` block, and the samples of each split."""
    splits, labels = annotated_images(recipe)
    most = max(len(s.boxes) for samples in splits.values() for s in samples)
    if not most:
        raise StageError(f"data.{recipe.spec.source}: expected boxes, got none; add some")
    y = {split: box_targets(samples, recipe.size, most) for split, samples in splits.items()}
    present = {split: [row[row[:, 4] >= 0, 4] for row in y[split]] for split in SPLITS}
    balance, notes = count_classes(present, labels)
    return image_data(recipe, splits, y, {"labels": labels, "balance": balance}, notes), splits


def box_targets(samples: list[AnnotatedSample], size: tuple[int, int], most: int) -> np.ndarray:
    """Return the boxes float32 (N, most, 5) in pixels of the input, height and width `size`: x_min,
    y_min, x_max, y_max, label; rows beyond an image's boxes have label -1 and zeros.
    """
    y = np.zeros((len(samples), most, 5), np.float32)
    y[:, :, 4] = -1
    for row, sample in zip(y, samples, strict=True):
        count = len(sample.boxes)
        width, height = sample.size
        row[:count, :4] = sample.boxes * np.tile([size[1] / width, size[0] / height], 2)
        row[:count, 4] = sample.labels
    return y


def describe(about: dict[str, Any]) -> str:
    """Return the images of each split, their classes and size; about: content of data.json."""
    return describe_images(about, f"boxes of {len(about['labels'])} classes")


def write_raw(folder: Path, data: Data, samples: AnnotatedSplits) -> None:
    """Write raw test images, raw.csv (file, row), and their boxes as raw/annotations.json."""
    files = write_raw_files(folder, samples["test"])
    write_coco(folder / "annotations.json", files, samples["test"], data.about["labels"])
