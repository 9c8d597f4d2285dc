"""Datasets of images: scikit-learn's digits, torchvision's datasets, and folders
(class_folders.py).

Each gives {split: [Sample, ...]}, not resized yet, and the class names.
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
from PIL import Image

from pipeline.core.errors import StageError, hint
from pipeline.data import class_folders
from pipeline.data.corruptions import through
from pipeline.data.splits import Sample, Splits, divide, stratified
from pipeline.params.schema import AnyImageSet, DigitsSet, TorchvisionSet

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
    else:
        splits, labels = class_folders.read(spec)
    if chosen := spec.classes:
        for name in chosen:
            if name not in labels:
                raise StageError(
                    f"data.classes: {name!r} is no class of the set; {hint(name, labels)}"
                )
        new = {labels.index(name): k for k, name in enumerate(chosen)}
        splits = {
            k: [replace(s, label=new[s.label]) for s in part if s.label in new]
            for k, part in splits.items()
        }
        labels = chosen
    if spec.camera:
        number = itertools.count()
        for split, part in splits.items():
            splits[split] = [
                replace(
                    sample,
                    image=through(sample.image, spec.camera, spec.seed, next(number), background),
                )
                for sample in part
            ]
    if spec.per_class:
        splits["train"] = few(
            splits["train"], spec.per_class, spec.seed if spec.draw is None else spec.draw
        )
    return splits, labels


def few(samples: list[Sample], per_class: int, seed: int) -> list[Sample]:
    """Return at most `per_class` samples of each class, drawn by the seed."""
    labels, rng = np.array([s.label for s in samples]), np.random.default_rng(seed)
    kept = [
        rng.permutation(np.flatnonzero(labels == label))[:per_class] for label in np.unique(labels)
    ]
    return [samples[i] for i in np.sort(np.concatenate(kept))]


def digits(spec: DigitsSet) -> tuple[Splits, list[str]]:
    """Return scikit-learn's 1,797 handwritten digits: grey, 8 x 8 pixels, 17 levels."""
    spec_of = importlib.util.find_spec(
        "sklearn"
    )  # found, not imported: that takes 2-4 s, once for every entry
    if spec_of is None or spec_of.origin is None:
        raise StageError(
            "data.digits: scikit-learn is not installed; run `pip install -e '.[train]'`"
        )
    table = np.loadtxt(
        Path(spec_of.origin).parent / "datasets/data/digits.csv.gz", delimiter=","
    )  # (1797, 64 + 1)
    grey = np.rint(table[:, :-1] * (255 / 16)).astype(np.uint8).reshape(-1, 8, 8)
    samples = [
        Sample(f"{i:04d}", Image.fromarray(g), int(y))
        for i, (g, y) in enumerate(zip(grey, table[:, -1], strict=True))
    ]
    counts: dict[str, int | float] = {"validation": spec.validation, "test": spec.test}
    return divide(samples, counts, spec.seed, "data.digits"), [str(d) for d in range(10)]


def torchvision_set(spec: TorchvisionSet) -> tuple[Splits, list[str]]:
    """A torchvision classification set: from DATA_ROOT if on disk, else by torchvision's own
    download.
    """
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
    """Return how many of the set's training images are needed: those to train on, and the
    validation split.
    """
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
        raise StageError(
            f"{place}: {count} images asked for, the set has {len(samples)}; ask for fewer"
        )
    return [samples[i] for i in stratified(np.array([s.label for s in samples]), count, rng)]


def _labelled(dataset: Any, tag: str, place: str) -> list[Sample]:
    """Return the set's labels as samples without pixels, so that only the drawn ones are
    decoded.
    """
    names = ("targets", "labels", "_labels", "y")
    files = next(
        (found for n in ("samples", "_samples", "imgs") if (found := getattr(dataset, n, None))),
        None,
    )
    if files and all(
        isinstance(file, str | Path) for file, _ in files
    ):  # read later, by the served code
        return [Sample(f"{tag}{i}", Path(file), int(y)) for i, (file, y) in enumerate(files)]
    targets = next(
        (getattr(dataset, n) for n in names if getattr(dataset, n, None) is not None), None
    )
    try:
        found = (
            (dataset[i][1] for i in range(len(dataset))) if targets is None else np.asarray(targets)
        )
        return [Sample(f"{tag}{i}", Path(), operator.index(y)) for i, y in enumerate(found)]
    except (TypeError, ValueError):
        raise StageError(
            f"{place}: expected one class for each image; choose a classification set"
        ) from None


def _with_pixels(sample: Sample, dataset: Any) -> Sample:
    if sample.image != Path():
        return sample
    return Sample(
        sample.id,
        dataset[int(sample.id.removeprefix("train").removeprefix("test"))][0],
        sample.label,
    )


def open_torchvision(name: str, train: bool) -> Any:
    """Return torchvision.datasets.<name>; half-downloaded or missing data is an error that says
    where to put it.
    """
    from torchvision import datasets

    classes: dict[str, Any] = {
        n: c for n in datasets.__all__ if inspect.isclass(c := getattr(datasets, n))
    }
    keywords = {n: inspect.signature(c).parameters for n, c in classes.items()}
    choices = [
        n
        for n, accepted in keywords.items()
        if "root" in accepted and {"train", "split"} & set(accepted)
    ]
    if name not in choices:
        raise StageError(
            f"params.yaml data: torchvision has no set {name!r} with splits; {hint(name, choices)}"
        )
    part: dict[str, Any] = {"train": train} if "train" in keywords[name] else {}
    if "split" in keywords[name]:
        part = {
            "split": "train" if train else ("val" if name in ("Imagenette", "ImageNet") else "test")
        }
    root = os.environ.get("DATA_ROOT")
    try:
        if root:
            with suppress(RuntimeError, OSError):  # not there, or still packed
                return classes[name](root, **part)
        return _downloaded(classes[name], name, part, Path(root) if root else None)
    except (RuntimeError, OSError) as error:
        where = f"{root} (DATA_ROOT) does not hold it whole" if root else "DATA_ROOT is not set"
        raise StageError(
            f"data: torchvision {name}: {where}, and its download failed"
            f" ({' '.join(str(error).split())[:200]}); put the set there in torchvision's layout"
            " and set DATA_ROOT, or choose `source: digits`"
        ) from None
    except (TypeError, ValueError, ImportError) as error:
        reason = " ".join(str(error).split())[:200]
        raise StageError(f"data: torchvision {name}: {reason}; choose another set") from None


def _downloaded(cls: Any, name: str, part: dict[str, Any], root: Path | None) -> Any:
    """Return the set from our download folder, which is filled by torchvision, or by a copy of
    packed files in root.
    """
    DOWNLOADS.mkdir(parents=True, exist_ok=True)
    with suppress(RuntimeError, OSError):
        return cls(str(DOWNLOADS), **part)
    if (
        root and (root / name).is_dir()
    ):  # it unpacks where the files are: the given folder stays as it is
        shutil.copytree(root / name, DOWNLOADS / name, dirs_exist_ok=True)
    accepts = "download" in inspect.signature(cls).parameters
    with redirect_stdout(sys.stderr):
        return cls(str(DOWNLOADS), **part, **({"download": True} if accepts else {}))
