"""Classification: images with one class each."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.core.errors import StageError
from pipeline.data import image_sources
from pipeline.data.dataset import SAMPLE, SPLITS, Data, spread
from pipeline.data.image_arrays import (
    decode_splits,
    decoded_data,
    describe_images,
    write_raw_files,
)
from pipeline.data.layout import in_shards
from pipeline.data.shard_writer import write_shards
from pipeline.data.splits import Sample, Splits
from pipeline.params.schema import FolderSet, ImageData, ImageSet


def make(recipe: ImageData, work: Path | None = None) -> tuple[Data, Splits]:
    """Return the data of a `data:` block, and the samples of each split.

    work: the folder where shards may be written, None: the splits are arrays.
    """
    assert isinstance(recipe.spec, ImageSet)
    splits, labels = image_sources.images(recipe.spec, recipe.background)
    some = isinstance(recipe.spec, FolderSet) and recipe.spec.labels == "imagenet"
    if not some:
        require_every_class(splits["train"], labels)
    if work and in_shards(recipe, splits):
        decoded = write_shards(recipe, splits, work)
    else:
        decoded = decode_splits(recipe, splits)
    if decoded.skipped and not some:
        require_every_class(decoded.samples["train"], labels)
    y = {s: label_array(samples) for s, samples in decoded.samples.items()}
    balance = {s: {name: int((y[s] == k).sum()) for k, name in enumerate(labels)} for s in SPLITS}
    notes = []
    for split in ("validation", "test"):
        if absent := [name for name, count in balance[split].items() if not count]:
            notes.append(f"no {split} image of {len(absent)} classes, {absent[0]!r} among them")
    if shards := decoded.shards:  # of the sample that stands for the split
        y["train"] = shards.label[spread(len(shards), SAMPLE)]
    facts = {"labels": labels, "balance": balance}
    return decoded_data(recipe, decoded, y, facts, notes), decoded.samples


def label_array(samples: Sequence[Sample]) -> np.ndarray:
    """Return the class of each sample, int64 (N,)."""
    return np.array([sample.label for sample in samples], np.int64)


def require_every_class(train: Sequence[Sample], labels: list[str]) -> None:
    """Raise StageError where a class has no training image."""
    present = {sample.label for sample in train}
    for label, name in enumerate(labels):
        if label not in present:
            cure = "give it some, or ask for larger splits"
            raise StageError(f"data: class {name!r} has no training image; {cure}")


def describe(about: dict[str, Any]) -> str:
    """Return the images of each split, their classes and size; about: content of data.json."""
    return describe_images(about, f"{len(about['labels'])} classes")


def write_raw(folder: Path, data: Data, samples: Splits) -> None:
    """Write raw test images in class folders, and raw.csv (file, row, label)."""
    test, labels = samples["test"], data.about["labels"]
    folders = [f"{sample.label:03d}" for sample in test]
    write_raw_files(folder, test, folders, label=[labels[sample.label] for sample in test])
