"""Captioning: images with captions, as words of a vocabulary."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from convline.errors import describe_count
from convline.metrics.captions import split_words
from convline.model_file.schema import SPECIAL_WORDS

from pipeline.core.errors import StageError
from pipeline.data.annotated_sources import annotated_images
from pipeline.data.dataset import SPLITS, Data
from pipeline.data.image_arrays import (
    describe_images,
    image_data,
    write_coco,
    write_raw_files,
)
from pipeline.data.splits import AnnotatedSplits
from pipeline.params.schema import ImageData

START, END, UNKNOWN = map(SPECIAL_WORDS.index, ("<start>", "<end>", "<unknown>"))
MOST_WORDS = 50  # of a caption: longer ones are cut


def make(recipe: ImageData) -> tuple[Data, AnnotatedSplits]:
    """Return the data of a `data:` block, and the samples of each split: those with captions."""
    found, _ = annotated_images(recipe)
    splits = {split: [s for s in samples if s.captions] for split, samples in found.items()}
    texts = {
        split: [[split_words(caption) for caption in sample.captions] for sample in samples]
        for split, samples in splits.items()
    }
    for split in SPLITS:
        if not texts[split]:
            what = f"expected captions in each split, got none in {split}"
            raise StageError(f"data.{recipe.spec.source}: {what}; add some")
    lengths = [len(words) for rows in texts.values() for captions in rows for words in captions]
    cut = sum(length > MOST_WORDS for length in lengths)
    notes = [f"{describe_count(cut, 'caption')} cut after {MOST_WORDS} words"] if cut else []
    words = vocabulary(texts["train"])
    longest = min(max(lengths), MOST_WORDS) + 1  # the end word
    most = max(len(captions) for rows in texts.values() for captions in rows)
    y = {split: caption_targets(texts[split], words, longest, most) for split in SPLITS}
    return image_data(recipe, splits, y, {"words": words, "longest": longest}, notes), splits


def vocabulary(texts: list[list[list[str]]]) -> list[str]:
    """Return the words of captions, the frequent ones first, after the three special ones."""
    counts = Counter(word for captions in texts for words in captions for word in words)
    return [*SPECIAL_WORDS, *sorted(counts, key=lambda word: (-counts[word], word))]


def caption_targets(
    texts: list[list[list[str]]], words: list[str], longest: int, most: int
) -> np.ndarray:
    """Return captions as word ids, int64 (N, most, longest): to the end word, then -1."""
    ids = {word: k for k, word in enumerate(words)}
    y = np.full((len(texts), most, longest), -1, np.int64)
    for row, captions in zip(y, texts, strict=True):
        for target, caption in zip(row, captions, strict=False):
            known = [ids.get(word, UNKNOWN) for word in caption[: longest - 1]]
            target[: len(known) + 1] = [*known, END]
    return y


def describe(about: dict[str, Any]) -> str:
    """Return the images of each split, their words and size; about: content of data.json."""
    return describe_images(about, f"captions of {len(about['words'])} words")


def write_raw(folder: Path, data: Data, samples: AnnotatedSplits) -> None:
    """Write raw test images, raw.csv (file, row), and captions as raw/annotations.json."""
    files = write_raw_files(folder, samples["test"])
    write_coco(folder / "annotations.json", files, samples["test"], [])
