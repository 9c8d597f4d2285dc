"""Classification: images with one class each."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from pipeline.core.errors import StageError
from pipeline.data import image_sources
from pipeline.data.dataset import SPLITS, Data
from pipeline.data.image_arrays import describe_images, image_data, write_raw_files
from pipeline.data.splits import Splits
from pipeline.params.schema import FolderSet, ImageData, ImageSet


def make(recipe: ImageData) -> tuple[Data, Splits]:
    """Return the data of a `data:` block, and the samples of each split."""
    assert isinstance(recipe.spec, ImageSet)
    splits, labels = image_sources.images(recipe.spec, recipe.background)
    y = {split: np.array([s.label for s in samples], np.int64) for split, samples in splits.items()}
    some = isinstance(recipe.spec, FolderSet) and recipe.spec.labels == "imagenet"
    for label, name in enumerate(labels):
        if not some and not (y["train"] == label).any():
            cure = "give it some, or ask for larger splits"
            raise StageError(f"data: class {name!r} has no training image; {cure}")
    balance = {s: {name: int((y[s] == k).sum()) for k, name in enumerate(labels)} for s in SPLITS}
    notes = []
    for split in ("validation", "test"):
        if absent := [name for name, count in balance[split].items() if not count]:
            notes.append(f"no {split} image of {len(absent)} classes, {absent[0]!r} among them")
    return image_data(recipe, splits, y, {"labels": labels, "balance": balance}, notes), splits


def describe(about: dict[str, Any]) -> str:
    """Return the images of each split, their classes and size; about: content of data.json."""
    return describe_images(about, f"{len(about['labels'])} classes")


def write_raw(folder: Path, data: Data, samples: Splits) -> None:
    """Write raw test images in class folders, and raw.csv (file, row, label)."""
    test, labels = samples["test"], data.about["labels"]
    folders = [f"{sample.label:03d}" for sample in test]
    write_raw_files(folder, test, folders, label=[labels[sample.label] for sample in test])
