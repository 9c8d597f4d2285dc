"""Build the dataset of an entry: decode images or join series, and measure the training split."""

from __future__ import annotations

import csv
import hashlib
import shutil
from pathlib import Path
from typing import Any

import numpy as np
from convline.errors import InputError
from convline.images.decode import LOW_CONTRAST, lost_contrast, read_image
from convline.model_file.document import ImageRule
from PIL import Image

from pipeline.core.errors import StageError
from pipeline.core.files import write_json
from pipeline.core.stage import progress
from pipeline.data import image_sources, series_sources
from pipeline.data.dataset import SPLITS, Data, spread, window_rows
from pipeline.data.normalization import image_statistics
from pipeline.data.raw_windows import choose_raw_windows
from pipeline.data.season import resolve_season
from pipeline.data.splits import Sample
from pipeline.params.schema import AnyData, FolderSet, ImageData, SeriesData

RAW = 400  # at most this many raw test files for the last stage
PRECISION = 0.01  # of a column's deviation: what rounding its values to float32 may cost
RANGE = 1e18  # values whose squares float32 still holds, and their inverse


def make(recipe: AnyData) -> tuple[Data, dict[str, list[Sample]] | None]:
    """Return the dataset of a `data:` block and, for images, the samples of each split."""
    if isinstance(recipe, ImageData):
        splits, labels = image_sources.images(recipe.spec, recipe.background)
        return image_data(recipe, splits, labels), splits
    return series_data(recipe), None


def image_data(recipe: ImageData, splits: dict[str, list[Sample]], labels: list[str]) -> Data:
    rule = recipe.image_rule
    ids = [s.id for samples in splits.values() for s in samples]
    if twice := len(ids) - len(set(ids)):
        raise StageError(f"data: a split leaks, {twice} images stand in two splits")
    decoded = {split: decode(samples, rule, split) for split, samples in splits.items()}
    x = {split: images for split, (images, _) in decoded.items()}
    y = {split: np.array([s.label for s in samples], np.int64) for split, samples in splits.items()}
    some = isinstance(recipe.spec, FolderSet) and recipe.spec.labels == "imagenet"
    for label, name in enumerate(labels):
        if not some and not (y["train"] == label).any():
            cure = "give it some, or ask for larger splits"
            raise StageError(f"data: class {name!r} has no training image; {cure}")
    mean, scale = image_statistics(x["train"], recipe.standardise)
    balance = {s: {name: int((y[s] == k).sum()) for k, name in enumerate(labels)} for s in SPLITS}
    notes = []
    if twins := count_twins(x):
        notes.append(f"{twins} test images equal a training or validation image pixel by pixel")
    if flat := sum(count for _, count in decoded.values()):
        notes.append(f"{flat} images came out {LOW_CONTRAST}")
    for split in ("validation", "test"):
        if absent := [name for name, count in balance[split].items() if not count]:
            notes.append(f"no {split} image of {len(absent)} classes, {absent[0]!r} among them")
    about = {
        "task": "classification",
        "source": recipe.spec.source,
        "licence": recipe.spec.licence,
        **{split: len(rows) for split, rows in x.items()},
        "labels": labels,
        "balance": balance,
        "hash": content_hash(x, y),
        "notes": notes,
        "input": rule.to_dict(),
    }
    return Data(x, y, mean, scale, about)


def decode(samples: list[Sample], rule: ImageRule, split: str) -> tuple[np.ndarray, int]:
    """Return the images as uint8 (N, H, W, C), and how many lost their contrast in decoding.

    Raises StageError with the name of a file that cannot be read.
    """
    flat, out = 0, np.empty((len(samples), *rule.size, rule.channels), np.uint8)
    bar = progress(len(samples), f"decode {split}", "image")
    for row, sample in zip(out, samples, strict=True):
        try:
            row[:] = read_image(sample.image, rule)
        except InputError as error:
            raise StageError(f"data: {sample.id}: {error}; repair or remove the file") from None
        flat += isinstance(sample.image, Path) and lost_contrast(sample.image, row)
        bar.update()
    bar.close()
    return out, flat


def series_data(recipe: SeriesData) -> Data:
    parts, facts = series_sources.series(recipe.spec, recipe.context, recipe.horizon)
    own = recipe.targets or facts["columns"]
    if absent := [name for name in own if name not in facts["columns"]]:
        choices = ", ".join(facts["columns"])
        raise StageError(f"data: targets: expected columns among {choices}, got {absent[0]!r}")
    # what is forecast comes first
    columns = own + [name for name in facts["columns"] if name not in own]
    order = [facts["columns"].index(name) for name in columns]
    x = {split: np.concatenate([s.values for s in part])[:, order] for split, part in parts.items()}
    lengths = {split: [len(s.values) for s in part] for split, part in parts.items()}
    starts = {split: np.cumsum([0, *rows]) for split, rows in lengths.items()}
    times = {split: np.concatenate([s.times for s in part]) for split, part in parts.items()}
    require_changes(columns, x["train"])
    require_float32(columns, x["train"])
    shortest = int(np.diff(starts["train"]).min())
    facts |= resolve_season(recipe.set, recipe.spec.season, facts["step"], shortest)
    if facts["season"] >= shortest:
        needed = f"expected season below the {shortest} rows of training, got {facts['season']}"
        raise StageError(f"data: {needed}; lower `season:`")
    about = described(recipe, facts, columns, starts) | {"hash": content_hash(x, starts)}
    if len(own) < len(columns):
        about["forecast"]["columns"] = own
    mean, scale = x["train"].mean(0).astype(np.float32), (1 / x["train"].std(0)).astype(np.float32)
    return Data(x, starts, mean, scale, about, times)


def require_changes(columns: list[str], values: np.ndarray) -> None:
    """Raise StageError where a column of values (rows, D) is constant."""
    changes = np.ptp(values, axis=0) != 0  # the std of equal values need not be exactly 0
    if not changes.all():
        name = columns[int(changes.argmin())]
        others = ", ".join(np.array(columns)[changes])
        cure = f"leave it out: `columns: [{others}]` in the set"
        cure = cure if others else "there is nothing to forecast"
        raise StageError(f"data: column {name!r} never changes in the training rows; {cure}")


def require_float32(columns: list[str], values: np.ndarray) -> None:
    """Raise StageError where a column of values (rows, D) does not fit float32 well enough."""
    eps = float(np.finfo(np.float32).eps)
    for name, column in zip(columns, values.T, strict=True):
        largest, spread = float(np.abs(column).max()), float(column.std())
        if not (largest < RANGE and spread > 1 / RANGE):
            got = f"got values up to {largest:.3g} with a deviation of {spread:.3g}"
            needed = f"expected magnitudes of 1e-18 to 1e18, {got}"
            raise StageError(f"data: column {name!r}: {needed}; change the unit")
        if eps * largest > PRECISION * spread:
            got = f"values up to {largest:.10g} that vary by {spread:.3g}"
            what = f"float32 has no digits left for {got} (their standard deviation)"
            cure = "subtract a constant from it, as its first value, here and where it is served"
            raise StageError(f"data: column {name!r}: {what}; {cure}")


def described(
    recipe: SeriesData, facts: dict[str, Any], columns: list[str], starts: dict[str, np.ndarray]
) -> dict[str, Any]:
    """Return the metadata of a dataset of series without its hash.

    Raises StageError for a calendar of times that are not dates.
    """
    length, strides = recipe.context + recipe.horizon, {"train": recipe.train_stride}
    step = facts["step"]
    if recipe.calendar and step.unit == "index":
        needed = "expected times that are dates, got whole numbers"
        raise StageError(f"data: calendar: {needed}; leave it out")
    counts = {s: len(window_rows(starts[s], length, strides.get(s, recipe.stride))) for s in SPLITS}
    levels = recipe.quantiles
    return {
        "task": "forecasting",
        "source": recipe.spec.source,
        "licence": recipe.spec.licence,
        **counts,
        "columns": columns,
        "season": facts["season"],
        "season_from": facts["season_from"],
        "stride": recipe.stride,
        "train_stride": recipe.train_stride,
        "filled": facts["filled"],
        "notes": series_sources.notes(recipe, facts, counts["validation"]),
        "input": {
            "kind": "series",
            "context": recipe.context,
            "columns": columns,
            "id": facts["id"],
            "time": facts["time"],
            "gaps": facts["gaps"],
            "step": {"unit": step.unit, "count": step.count},
            **({"offset": facts["offset"]} if facts["time"] and step.unit != "index" else {}),
            **({"calendar": recipe.calendar} if recipe.calendar else {}),
        },
        "forecast": {
            "horizon": recipe.horizon,
            "quantiles": series_sources.calibrated_levels(levels, counts["validation"]),
        },
    }


def content_hash(*groups: dict[str, np.ndarray]) -> str:
    """Return a sha256 over the arrays' shapes, types and bytes."""
    total = hashlib.sha256()
    for group in groups:
        for split in SPLITS:
            total.update(f"{split} {group[split].shape} {group[split].dtype}".encode())
            total.update(np.ascontiguousarray(group[split]).tobytes())
    return total.hexdigest()


def count_twins(x: dict[str, np.ndarray]) -> int:
    """Return how many test images equal a training or validation image pixel by pixel."""

    def digest(image: np.ndarray) -> bytes:
        return hashlib.blake2b(np.ascontiguousarray(image).data, digest_size=16).digest()

    seen = {digest(row) for split in ("train", "validation") for row in x[split]}
    return sum(digest(row) in seen for row in x["test"])


def write_raw_images(folder: Path, samples: list[Sample], labels: list[str]) -> None:
    """Write up to RAW test images as files in class folders, and raw.csv (file, row, label).

    test_names.json lists the name of each test image: that of its own file, else of the raw file,
    else its number.
    """
    # a name that is not UTF-8 cannot be written: its other bytes become ?
    names = [sample.name.encode("utf-8", "replace").decode() for sample in samples]
    with (folder.parent / "raw.csv").open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(["file", "row", "label"])
        for row in spread(len(samples), RAW):
            sample = samples[row]
            suffix = sample.image.suffix if isinstance(sample.image, Path) else ".png"
            target = folder / f"{sample.label:03d}" / f"{row:06d}{suffix}"
            target.parent.mkdir(parents=True, exist_ok=True)
            if isinstance(sample.image, Image.Image):
                sample.image.save(target)
            else:
                shutil.copyfile(sample.image, target)
            raw = target.relative_to(folder.parent).as_posix()
            names[row] = names[row] or raw
            rows.writerow([raw, row, labels[sample.label]])
    numbered = [name or f"test image {row}" for row, name in enumerate(names)]
    write_json(folder.parent / "test_names.json", numbered)


def write_raw_series(folder: Path, data: Data) -> None:
    """Write the histories of test windows as CSV files, under the dataset's column names.

    A dataset with an id column gives one file, in which each window has an id; another gives one
    file for each window.
    """
    given = data.about["input"]
    length = given["context"] + data.about["forecast"]["horizon"]
    rows = window_rows(data.y["test"], length, data.about["stride"])[:, : given["context"]]
    header = [name for name in (given["id"], given["time"]) if name] + given["columns"]
    written: dict[Path, list[list[Any]]] = {}
    for window in choose_raw_windows(len(rows), given["context"]):
        file = folder / ("series.csv" if given["id"] else f"window-{window:06d}.csv")
        for row in rows[window]:
            time = f"{data.times['test'][row]}{'Z' if given.get('offset') == 'utc' else ''}"
            keys = [f"{window:06d}"] * bool(given["id"]) + [time] * bool(given["time"])
            values = map(repr, data.x["test"][row].tolist())
            written.setdefault(file, [header]).append([*keys, *values])
    for file, lines in written.items():
        with file.open("w", newline="", encoding="utf-8") as stream:
            csv.writer(stream).writerows(lines)
