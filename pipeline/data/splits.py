"""Labelled images before resizing, and stratified random splits of them."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import numpy as np
from convline.images.archives import Member
from convline.images.decode import FORMATS, read_bytes, read_format
from convline.images.parquet_images import Cell
from PIL import Image

from pipeline.core.errors import StageError

Packed = Member | Cell  # the position of a file in a tar, or of an image in a Parquet file


@dataclass(frozen=True, slots=True)  # there is one for each photo
class Sample:
    """One labelled image: a file, a packed file or a decoded image, and an id that is unique in the
    dataset.

    name: by which its owner finds it, the path of its file; "" for an image without a file.
    """

    id: str
    image: Path | Image.Image | Packed
    label: int
    name: str = ""

    def open(self) -> Path | Image.Image | bytes:
        """Return the image as `convline` reads it, a packed one as the bytes of its file.

        Raises InputError where the archive is damaged.
        """
        return self.image.read() if isinstance(self.image, Packed) else self.image

    def encoded(self) -> tuple[bytes, str]:
        """Return the bytes of the image's file, and its suffix; a decoded image as a PNG file.

        Raises InputError where they cannot be read or are no image.
        """
        image = self.open()
        if isinstance(image, Path):
            return read_bytes(str(image)), image.suffix
        if isinstance(image, Image.Image):
            image.save(file := io.BytesIO(), "PNG")
            return file.getvalue(), ".png"
        return image, FORMATS[read_format(image)][0]


@dataclass(frozen=True, eq=False)
class AnnotatedSample(Sample):
    """An image with annotations in place of a class.

    size: width and height in pixels of the upright image. boxes: float32 (M, 4), x_min, y_min,
    x_max, y_max in its pixels. labels: int64 (M,). draw_mask: returns class indices uint8 (H, W), 0
    for the background and 255 for void; None without annotations.
    """

    label: int = 0
    size: tuple[int, int] = (0, 0)
    boxes: np.ndarray = field(default_factory=lambda: np.zeros((0, 4), np.float32))
    labels: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    captions: tuple[str, ...] = ()
    draw_mask: Callable[[], np.ndarray] | None = None


S = TypeVar("S", bound=Sample)
Splits = dict[str, list[Sample]]
AnnotatedSplits = dict[str, list[AnnotatedSample]]


def stratified(labels: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """Return `count` sorted row numbers, drawn without replacement and stratified by class.

    Rounding is by largest remainders.
    """
    classes, sizes = np.unique(labels, return_counts=True)
    share = sizes * count / len(labels)
    take = np.floor(share).astype(int)
    take[np.argsort(-(share - take), kind="stable")[: count - take.sum()]] += 1
    pairs = zip(classes, take, strict=True)
    drawn = [rng.permutation(np.flatnonzero(labels == c))[:n] for c, n in pairs]
    return np.sort(np.concatenate(drawn))


def divide(
    samples: list[S], counts: dict[str, int | float], seed: int, place: str
) -> dict[str, list[S]]:
    """Return stratified splits: a count or a fraction for each name, and the rest as train."""
    rng = np.random.default_rng(seed)
    rest = np.arange(len(samples))
    labels = np.array([s.label for s in samples])
    splits: dict[str, list[S]] = {}
    for split, wanted in counts.items():
        count = round(wanted * len(samples)) if wanted < 1 else int(wanted)
        if count < 1:
            what = f"{wanted} of {len(samples)} images is none"
            raise StageError(f"{place}.{split}: {what}; ask for more")
        if count >= len(rest):
            what = f"{count} images asked for, {len(rest)} are left"
            raise StageError(f"{place}.{split}: {what}; ask for fewer")
        drawn = rest[stratified(labels[rest], count, rng)]
        rest = np.setdiff1d(rest, drawn)
        splits[split] = [samples[i] for i in drawn]
    return {"train": [samples[i] for i in rest], **splits}
