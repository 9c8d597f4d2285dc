"""Where data comes from: each source answers its splits, before any geometry.

Image sources answer `{split: [Sample, ...]}` and the label names; series sources answer `{split: [Series, ...]}`.
Splits never share a sample; they are drawn by the seed in params (images, stratified) or by time (series).
"""

from __future__ import annotations

import importlib.util
import inspect
import operator
import os
import shutil
import sys
from contextlib import redirect_stdout, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from pipeline.schema import hint
from pipeline.stage import StageError
from serve.image import SUFFIXES
from serve.series import Series, Step, read_csv

DOWNLOADS = Path("out/downloads")
WAVE = (20 * np.pi / 137, np.pi / 137)  # radians a step: the notes' linspace over 128 + 10 points, kept at any horizon


@dataclass(frozen=True)
class Sample:
    """One labelled image: `image` is a file or a decoded picture, `id` is unique within the source."""

    id: str
    image: Path | Image.Image
    label: int


Splits = dict[str, list[Sample]]


def images(spec: dict[str, Any]) -> tuple[Splits, list[str]]:
    """Return the samples of train, validation and test, and the label names."""
    return {"digits": digits, "torchvision": torchvision_set, "folder": folder}[spec["source"]](spec)


def series(spec: dict[str, Any], context: int, horizon: int) -> tuple[dict[str, list[Series]], dict[str, Any]]:
    """Return the series of each split, and the facts {"columns", "step", "filled", "time", "id", "gaps"}."""
    if spec["source"] == "waves":
        return waves(spec, context, horizon)
    table, names = (statsmodels_table if spec["source"] == "statsmodels" else csv_table)(spec)
    facts = {"columns": table.columns, "step": table.step, "filled": table.filled, "gaps": spec["gaps"], **names}
    parts: dict[str, list[Series]] = {"train": [], "validation": [], "test": []}
    for one in table.series:
        for split, part in split_by_time(one, spec, context, horizon).items():
            parts[split].append(part)
    return parts, facts


def stratified(labels: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """Return `count` indices drawn without replacement, each class in proportion (largest remainders first)."""
    classes, sizes = np.unique(labels, return_counts=True)
    share = sizes * count / len(labels)
    take = np.floor(share).astype(int)
    take[np.argsort(-(share - take), kind="stable")[: count - take.sum()]] += 1
    drawn = [rng.permutation(np.flatnonzero(labels == c))[:n] for c, n in zip(classes, take, strict=True)]
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
            raise StageError(f"{place}.{split}: {wanted} of {len(samples)} images is none; ask for more")
        if count >= len(rest):
            raise StageError(f"{place}.{split}: {count} images asked for, {len(rest)} are left; ask for fewer")
        drawn = rest[stratified(labels[rest], count, rng)]
        rest = np.setdiff1d(rest, drawn)
        splits[split] = [samples[i] for i in drawn]
    return {"train": [samples[i] for i in rest], **splits}


def digits(spec: dict[str, Any]) -> tuple[Splits, list[str]]:
    """Handwritten digits, 1,797 grey images of 8x8 pixels in 17 levels, as they come with scikit-learn."""
    spec_of = importlib.util.find_spec("sklearn")  # found, not imported: that takes 2-4 s, once for every entry
    if spec_of is None or spec_of.origin is None:
        raise StageError("data.digits: scikit-learn is not installed; run `pip install -e '.[train]'`")
    table = np.loadtxt(Path(spec_of.origin).parent / "datasets/data/digits.csv.gz", delimiter=",")  # (1797, 64 + 1)
    grey = np.rint(table[:, :-1] * (255 / 16)).astype(np.uint8).reshape(-1, 8, 8)
    samples = [
        Sample(f"{i:04d}", Image.fromarray(g), int(y)) for i, (g, y) in enumerate(zip(grey, table[:, -1], strict=True))
    ]
    counts = {"validation": spec["validation"], "test": spec["test"]}
    return divide(samples, counts, spec["seed"], "data.digits"), [str(d) for d in range(10)]


def torchvision_set(spec: dict[str, Any]) -> tuple[Splits, list[str]]:
    """A torchvision classification set: from DATA_ROOT if on disk, else by torchvision's own download."""
    fitting, held_out = (open_torchvision(spec["name"], train) for train in (True, False))
    place = f"data: torchvision {spec['name']}"
    pool, test = (_labelled(d, tag, place) for d, tag in ((fitting, "train"), (held_out, "test")))
    rng = np.random.default_rng(spec["seed"])
    pool = _draw(pool, _with_validation(spec), rng, place)
    splits = divide(pool, {"validation": spec["validation"]}, spec["seed"], place)
    splits["test"] = _draw(test, spec["test"], rng, place)
    pictures = {"train": fitting, "validation": fitting, "test": held_out}
    splits = {k: [_with_pixels(s, pictures[k]) for s in samples] for k, samples in splits.items()}
    names = getattr(fitting, "classes", None) or range(1 + max(s.label for s in pool))
    return splits, [name[0] if isinstance(name, tuple) else str(name) for name in names]


def _with_validation(spec: dict[str, Any]) -> int | None:
    """Return how many of the set's training images are needed: those to train on, and the validation split."""
    count, extra = spec["train"], spec["validation"]
    if count is None:
        return None
    return int(count + (extra if extra >= 1 else round(count * extra / (1 - extra))))


def _draw(samples: list[Sample], count: int | None, rng: np.random.Generator, place: str) -> list[Sample]:
    """Return `count` samples in a stratified draw, or all."""
    if count is None:
        return samples
    if count > len(samples):
        raise StageError(f"{place}: {count} images asked for, the set has {len(samples)}; ask for fewer")
    return [samples[i] for i in stratified(np.array([s.label for s in samples]), count, rng)]


def _labelled(dataset: Any, tag: str, place: str) -> list[Sample]:
    """Return the set's labels as samples without pixels, so that only the drawn ones are decoded."""
    names = ("targets", "labels", "_labels", "y")
    targets = next((getattr(dataset, n) for n in names if getattr(dataset, n, None) is not None), None)
    try:
        found = (dataset[i][1] for i in range(len(dataset))) if targets is None else np.asarray(targets)
        return [Sample(f"{tag}{i}", Path(), operator.index(y)) for i, y in enumerate(found)]
    except (TypeError, ValueError):
        raise StageError(f"{place}: expected one class for each image; choose a classification set") from None


def _with_pixels(sample: Sample, dataset: Any) -> Sample:
    return Sample(sample.id, dataset[int(sample.id.removeprefix("train").removeprefix("test"))][0], sample.label)


def open_torchvision(name: str, train: bool) -> Any:
    """Return torchvision.datasets.<name>; half-downloaded or missing data is an error that says where to put it."""
    from torchvision import datasets

    classes = {n: c for n in datasets.__all__ if inspect.isclass(c := getattr(datasets, n))}
    keywords = {n: inspect.signature(c).parameters for n, c in classes.items()}
    choices = [n for n, accepted in keywords.items() if "root" in accepted and {"train", "split"} & set(accepted)]
    if name not in choices:
        raise StageError(f"params.yaml data: torchvision has no set {name!r} with splits; {hint(name, choices)}")
    part: dict[str, Any] = {"train": train} if "train" in keywords[name] else {}
    if "split" in keywords[name]:
        part = {"split": "train" if train else ("val" if name in ("Imagenette", "ImageNet") else "test")}
    root = os.environ.get("DATA_ROOT")
    try:
        if root:
            with suppress(RuntimeError, OSError):  # not there, or still packed
                return classes[name](root, **part)
        return _downloaded(classes[name], name, part, Path(root) if root else None)
    except (RuntimeError, OSError) as error:
        where = f"{root} (DATA_ROOT) does not hold it whole" if root else "DATA_ROOT is not set"
        raise StageError(
            f"data: torchvision {name}: {where}, and its download failed ({' '.join(str(error).split())[:200]}); "
            "put the set there in torchvision's layout and set DATA_ROOT, or choose `source: digits`"
        ) from None
    except (TypeError, ValueError, ImportError) as error:
        reason = " ".join(str(error).split())[:200]
        raise StageError(f"data: torchvision {name}: {reason}; choose another set") from None


def _downloaded(cls: Any, name: str, part: dict[str, Any], root: Path | None) -> Any:
    """Return the set from our download folder, which is filled by torchvision, or by a copy of packed files in root."""
    DOWNLOADS.mkdir(parents=True, exist_ok=True)
    with suppress(RuntimeError, OSError):
        return cls(str(DOWNLOADS), **part)
    if root and (root / name).is_dir():  # it unpacks where the files are: the given folder stays as it is
        shutil.copytree(root / name, DOWNLOADS / name, dirs_exist_ok=True)
    accepts = "download" in inspect.signature(cls).parameters
    with redirect_stdout(sys.stderr):
        return cls(str(DOWNLOADS), **part, **({"download": True} if accepts else {}))


def folder(spec: dict[str, Any]) -> tuple[Splits, list[str]]:
    """A user's folder of class folders: with train/, test/ (and val/) inside as given, else split by the seed."""
    root = Path(spec["path"]).expanduser()
    if not root.is_dir():
        raise StageError(f"data.folder: {root} is not a folder; put one sub-folder of images per class there")
    given = {split: next((root / n for n in names if (root / n).is_dir()), None) for split, names in GIVEN.items()}
    if bool(given["train"]) != bool(given["test"]):
        lacks = "test" if given["train"] else "train"
        raise StageError(f"data.folder: {root} is split but has no {lacks}/; add it, or put class folders alone there")
    if given["train"] and given["test"]:
        labels = class_names(given["train"])
        parts = {k: class_samples(path, labels, root, 2 if k == "train" else 1) for k, path in given.items() if path}
        if "validation" not in parts:
            rest = divide(parts["train"], {"validation": spec["validation"]}, spec["seed"], "data.folder")
            parts = {**rest, "test": parts["test"]}
        return parts, labels
    labels = class_names(root)
    counts = {"validation": spec["validation"], "test": spec["test"]}
    return divide(class_samples(root, labels, root), counts, spec["seed"], "data.folder"), labels


GIVEN = {"train": ("train",), "validation": ("val", "valid", "validation"), "test": ("test",)}


def class_names(root: Path) -> list[str]:
    names = sorted(p.name for p in root.iterdir() if p.is_dir() and not p.name.startswith("."))
    if len(names) < 2:
        raise StageError(f"data.folder: {root} has {len(names)} class folder(s); at least 2 are needed")
    return names


def class_samples(root: Path, labels: list[str], top: Path, least: int = 2) -> list[Sample]:
    """Return the images under root/<label>/, sorted; a class of fewer than `least` is an error."""
    samples: list[Sample] = []
    if unknown := sorted({p.name for p in root.iterdir() if p.is_dir() and p.name[0] != "."} - set(labels)):
        raise StageError(f"data.folder: {root} has class {unknown[0]!r} that train/ lacks; use the same classes")
    for label, name in enumerate(labels):
        files = sorted(p for p in (root / name).rglob("*") if p.suffix.lower() in SUFFIXES and p.is_file())
        if outside := [p for p in files if not p.resolve().is_relative_to(top.resolve())]:
            raise StageError(f"data.folder: {outside[0]} leads out of {top}; copy the file instead of linking it")
        if len(files) < least:
            raise StageError(f"data.folder: class {name!r} in {root} has {len(files)} image(s); {least} are needed")
        samples += [Sample(str(p.relative_to(top)), p, label) for p in files]
    return samples


def waves(spec: dict[str, Any], context: int, horizon: int) -> tuple[dict[str, list[Series]], dict[str, Any]]:
    """Amplitude-modulated sines (F02): sin(u + a t) sin(u + b t) + noise, u uniform in [0, 2 pi) for each curve.

    Each split draws from its own generator, noise step by step, so a longer curve begins as the shorter one does.
    """
    parts = {}
    for k, split in enumerate(("train", "validation", "test")):
        rng = np.random.default_rng([spec["seed"], k])
        length = max(spec["length"], context + horizon) if split == "test" else context + horizon
        noise = spec["test_noise"] if split == "test" else spec["noise"]
        phase = rng.uniform(0, 2 * np.pi, (spec[split], 1))
        steps = np.arange(length)
        curves = np.sin(phase + WAVE[0] * steps) * np.sin(phase + WAVE[1] * steps)
        curves += noise * rng.standard_normal((length, spec[split])).T
        parts[split] = [Series(f"{split}-{i:04d}", steps, curve[:, None]) for i, curve in enumerate(curves)]
    return parts, {
        "columns": ["y"],
        "step": Step("index", 1),
        "filled": 0,
        "gaps": "error",
        "time": "ds",
        "id": "unique_id",
    }


def statsmodels_table(spec: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    """A real series that comes with statsmodels: yearly sunspots from 1700, or weekly co2 with its real gaps."""
    from importlib import import_module

    module = import_module(f"statsmodels.datasets.{spec['name']}")
    path = Path(module.__file__).with_name(f"{spec['name']}.csv")
    time, column = {"sunspots": ("YEAR", "SUNACTIVITY"), "co2": ("date", "co2")}[spec["name"]]
    return read_csv(path, columns=[column], time=time, id=None, gaps=spec["gaps"]), {"time": time, "id": None}


def csv_table(spec: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    """A user's CSV: one or many columns, optional time and id columns."""
    path = Path(spec["path"]).expanduser()
    if not path.is_file():
        raise StageError(f"data.csv: {path} is not a file; give the path of a CSV in params.yaml")
    names = {"time": spec["time"], "id": spec["id"]}
    return read_csv(path, columns=spec["columns"], **names, gaps=spec["gaps"]), names


def split_by_time(one: Series, spec: dict[str, Any], context: int, horizon: int) -> dict[str, Series]:
    """Return the oldest rows as train, then validation, then test; the last two begin one context earlier.

    Targets never overlap between splits: only history reaches back.
    """
    n = len(one.values)
    test, validation = (round(n * spec[k]) for k in ("test", "validation"))
    cut = (n - test - validation, n - test)
    least = {"train": cut[0] - context, "validation": validation, "test": test}
    for split, rows in least.items():
        if rows < horizon:
            raise StageError(
                f"data: series {one.id!r} has {n} rows, {split} would have {max(rows, 0)} target rows; "
                f"a horizon of {horizon} with context {context} needs more: shorten them or give a longer series"
            )
    bounds = {"train": (0, cut[0]), "validation": (cut[0] - context, cut[1]), "test": (cut[1] - context, n)}
    return {split: Series(one.id, one.times[a:b], one.values[a:b]) for split, (a, b) in bounds.items()}
