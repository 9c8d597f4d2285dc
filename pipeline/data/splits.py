"""Labelled images before any geometry, and how they are divided: splits never share a sample, the seed draws them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from pipeline.core.errors import StageError


@dataclass(frozen=True)
class Sample:
    """One labelled image: `image` is a file or a decoded picture, `id` is unique within the source."""

    id: str
    image: Path | Image.Image
    label: int


Splits = dict[str, list[Sample]]


def stratified(labels: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """Return `count` indices drawn without replacement, each class in proportion (largest remainders first)."""
    classes, sizes = np.unique(labels, return_counts=True)
    share = sizes * count / len(labels)
    take = np.floor(share).astype(int)
    take[np.argsort(-(share - take), kind="stable")[: count - take.sum()]] += 1
    drawn = [
        rng.permutation(np.flatnonzero(labels == c))[:n] for c, n in zip(classes, take, strict=True)
    ]
    return np.sort(np.concatenate(drawn))


def divide(samples: list[Sample], counts: dict[str, int | float], seed: int, place: str) -> Splits:
    """Return `samples` divided in a stratified draw: the named counts (or fractions), the rest as train."""
    rng = np.random.default_rng(seed)
    rest = np.arange(len(samples))
    labels = np.array([s.label for s in samples])
    splits: Splits = {}
    for split, wanted in counts.items():
        count = round(wanted * len(samples)) if wanted < 1 else int(wanted)
        if count < 1:
            raise StageError(
                f"{place}.{split}: {wanted} of {len(samples)} images is none; ask for more"
            )
        if count >= len(rest):
            raise StageError(
                f"{place}.{split}: {count} images asked for, {len(rest)} are left; ask for fewer"
            )
        drawn = rest[stratified(labels[rest], count, rng)]
        rest = np.setdiff1d(rest, drawn)
        splits[split] = [samples[i] for i in drawn]
    return {"train": [samples[i] for i in rest], **splits}
