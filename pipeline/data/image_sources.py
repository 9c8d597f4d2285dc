"""Datasets of images: scikit-learn's digits, torchvision's datasets, folders and packed files.

Each source gives {split: [Sample, ...]}, not resized yet, and the class names.
"""

from __future__ import annotations

import importlib.util
import inspect
import itertools
import operator
import os
import shutil
import sys
from contextlib import redirect_stdout, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from convline.errors import InputError
from PIL import Image

from pipeline.core.errors import StageError, hint
from pipeline.data import class_folders, packed_sources
from pipeline.data.corruptions import corrupt_image
from pipeline.data.image_arrays import undecodable
from pipeline.data.splits import Sample, Splits, divide, stratified
from pipeline.params.schema import AnyImageSet, Camera, DigitsSet, PackedSet, TorchvisionSet

DOWNLOADS = Path("out/downloads")


def images(
    spec: AnyImageSet, background: tuple[int, int, int] = (0, 0, 0)
) -> tuple[Splits, list[str]]:
    """Return the samples of train, validation and test, and the class names.

    background: the colour that a corruption puts behind transparent pixels.
    """
    if isinstance(spec, DigitsSet):
        splits, labels = digits(spec)
    elif isinstance(spec, TorchvisionSet):
        splits, labels = torchvision_set(spec)
    elif isinstance(spec, PackedSet):
        splits, labels = packed_sources.read(spec)
    else:
        splits, labels = class_folders.read(spec)
    if chosen := spec.classes:
        for name in chosen:
            if name not in labels:
                what = f"{name!r} is no class of the set"
                raise StageError(f"data.classes: {what}; {hint(name, labels)}")
        new = {labels.index(name): k for k, name in enumerate(chosen)}
        splits = {
            split: [replace(s, label=new[s.label]) for s in samples if s.label in new]
            for split, samples in splits.items()
        }
        labels = chosen
    if spec.camera:
        splits = pictured(splits, spec.camera, spec.seed, background)
    if spec.per_class:
        seed = spec.seed if spec.draw is None else spec.draw
        splits["train"] = few(splits["train"], spec.per_class, seed)
    return splits, labels


def pictured(splits: Splits, camera: Camera, seed: int, background: tuple[int, int, int]) -> Splits:
    """Return the samples as another camera shows them. Raises StageError for what is no image."""
    number, taken = itertools.count(), Splits()
    for split, samples in splits.items():
        taken[split] = []
        for sample in samples:
            try:
                image = corrupt_image(sample.open(), camera, seed, next(number), background)
            except InputError as error:
                raise undecodable(sample, error) from None
            taken[split].append(replace(sample, image=image))
    return taken


def few(samples: list[Sample], per_class: int, seed: int) -> list[Sample]:
    """Return at most `per_class` samples of each class, drawn by the seed."""
    labels, rng = np.array([s.label for s in samples]), np.random.default_rng(seed)
    kept = [
        rng.permutation(np.flatnonzero(labels == label))[:per_class] for label in np.unique(labels)
    ]
    return [samples[i] for i in np.sort(np.concatenate(kept))]


def digits(spec: DigitsSet) -> tuple[Splits, list[str]]:
    """Return scikit-learn's 1,797 handwritten digits: grey, 8 x 8 pixels, 17 levels."""
    package = importlib.util.find_spec("sklearn")  # importing it takes 2-4 s, for every entry
    if package is None or package.origin is None:
        cure = "run `pip install -e '.[train]'`"
        raise StageError(f"data.digits: scikit-learn is not installed; {cure}")
    file = Path(package.origin).parent / "datasets/data/digits.csv.gz"
    table = np.loadtxt(file, delimiter=",")  # (1797, 64 + 1)
    grey = np.rint(table[:, :-1] * (255 / 16)).astype(np.uint8).reshape(-1, 8, 8)
    samples = [
        Sample(f"{i:04d}", Image.fromarray(g), int(y))
        for i, (g, y) in enumerate(zip(grey, table[:, -1], strict=True))
    ]
    counts: dict[str, int | float] = {"validation": spec.validation, "test": spec.test}
    return divide(samples, counts, spec.seed, "data.digits"), [str(d) for d in range(10)]


def torchvision_set(spec: TorchvisionSet) -> tuple[Splits, list[str]]:
    """Return a torchvision dataset, from DATA_ROOT if it is there, else downloaded."""
    fitting, held_out = (open_torchvision(spec.name, train) for train in (True, False))
    place = f"data: torchvision {spec.name}"
    pool, test = (_labelled(d, tag, place) for d, tag in ((fitting, "train"), (held_out, "test")))
    rng = np.random.default_rng(spec.seed)
    pool = _draw(pool, _with_validation(spec), rng, place)
    splits = divide(pool, {"validation": spec.validation}, spec.seed, place)
    splits["test"] = _draw(test, spec.test, rng, place)
    pictures = {"train": fitting, "validation": fitting, "test": held_out}
    splits = {k: [_with_pixels(s, pictures[k]) for s in samples] for k, samples in splits.items()}
    names = getattr(fitting, "classes", None) or range(1 + max(s.label for s in pool))
    return splits, [name[0] if isinstance(name, tuple) else str(name) for name in names]


def _with_validation(spec: TorchvisionSet) -> int | None:
    """Return how many of the dataset's training images are needed, to train and to validate."""
    count, extra = spec.train, spec.validation
    if count is None:
        return None
    return int(count + (extra if extra >= 1 else round(count * extra / (1 - extra))))


def _draw(
    samples: list[Sample], count: int | None, rng: np.random.Generator, place: str
) -> list[Sample]:
    """Return `count` samples in a stratified draw, or all."""
    if count is None:
        return samples
    if count > len(samples):
        what = f"{count} images asked for, the set has {len(samples)}"
        raise StageError(f"{place}: {what}; ask for fewer")
    return [samples[i] for i in stratified(np.array([s.label for s in samples]), count, rng)]


def _labelled(dataset: Any, tag: str, place: str) -> list[Sample]:
    """Return the dataset's labels as samples without pixels: only those drawn are decoded."""

    def first(*names: str) -> Any:
        values = (getattr(dataset, name, None) for name in names)
        return next((value for value in values if value is not None), None)

    files = first("samples", "_samples", "imgs")
    if files and all(isinstance(file, str | Path) for file, _ in files):
        # the served code reads them later
        return [
            Sample(f"{tag}{i}", Path(file), int(y), "/".join(Path(file).parts[-2:]))
            for i, (file, y) in enumerate(files)
        ]
    targets = first("targets", "labels", "_labels", "y")
    try:
        if targets is None:
            targets = [dataset[i][1] for i in range(len(dataset))]
        labels = map(operator.index, np.asarray(targets))
        return [Sample(f"{tag}{i}", Path(), label) for i, label in enumerate(labels)]
    except (TypeError, ValueError):
        needed = "expected one class for each image; choose a classification set"
        raise StageError(f"{place}: {needed}") from None


def _with_pixels(sample: Sample, dataset: Any) -> Sample:
    if sample.image != Path():
        return sample
    row = int(sample.id.removeprefix("train").removeprefix("test"))
    return replace(sample, image=dataset[row][0])


def open_torchvision(name: str, train: bool) -> Any:
    """Return torchvision.datasets.<name>; StageError says where to put missing data."""
    from torchvision import datasets

    classes: dict[str, Any] = {
        n: c for n in datasets.__all__ if inspect.isclass(c := getattr(datasets, n))
    }
    keywords = {n: inspect.signature(c).parameters for n, c in classes.items()}
    choices = [n for n, k in keywords.items() if "root" in k and ("train" in k or "split" in k)]
    if name not in choices:
        what = f"torchvision has no set {name!r} with splits"
        raise StageError(f"params.yaml data: {what}; {hint(name, choices)}")
    part: dict[str, Any] = {"train": train}
    if "split" in keywords[name]:
        held_out = "val" if name in ("Imagenette", "ImageNet") else "test"
        part = {"split": "train" if train else held_out}
    root = os.environ.get("DATA_ROOT")
    try:
        if root:
            with suppress(RuntimeError, OSError):  # not there, or still packed
                return classes[name](root, **part)
        return _downloaded(classes[name], name, part, Path(root) if root else None)
    except (RuntimeError, OSError) as error:
        where = f"{root} (DATA_ROOT) does not hold it whole" if root else "DATA_ROOT is not set"
        failed = f"its download failed ({' '.join(str(error).split())[:200]})"
        cure = "put the set there in torchvision's layout and set DATA_ROOT, or choose"
        raise StageError(
            f"data: torchvision {name}: {where}, and {failed}; {cure} `source: digits`"
        ) from None
    except (TypeError, ValueError, ImportError) as error:
        reason = " ".join(str(error).split())[:200]
        raise StageError(f"data: torchvision {name}: {reason}; choose another set") from None


def _downloaded(cls: Any, name: str, part: dict[str, Any], root: Path | None) -> Any:
    """Return the dataset from DOWNLOADS, filled by torchvision or with packed files of root."""
    DOWNLOADS.mkdir(parents=True, exist_ok=True)
    with suppress(RuntimeError, OSError):
        return cls(str(DOWNLOADS), **part)
    if root and (root / name).is_dir():  # a copy, since torchvision unpacks where the files are
        shutil.copytree(root / name, DOWNLOADS / name, dirs_exist_ok=True)
    accepts = "download" in inspect.signature(cls).parameters
    with redirect_stdout(sys.stderr):
        return cls(str(DOWNLOADS), **part, **({"download": True} if accepts else {}))
