"""Stage data: the source as arrays at the entry's input size, with the statistics of its training split.

Reads out/params/<entry>/data.json and the source. Writes out/<entry>/data/ (arrays, statistics, raw files for the last
stage) and results/<entry>/data.json (counts, balance, content hash, the input contract).
Fails when the source is missing or malformed, or a split leaks: says what was expected and where.

    python -m pipeline.data ENTRY
"""

from __future__ import annotations

import csv
import hashlib
import itertools
import shutil
import sys
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from pipeline import params, series, sources
from pipeline.resolved import image_rule
from pipeline.stage import OUT, RESULTS, StageError, fresh, of_entry, progress, read_json, run, write_json
from pipeline.standardise import image_statistics
from serve.calendar import features
from serve.errors import InputError
from serve.image import ALMOST_ONE_GREY, ImageRule, lost_contrast, read_image

SPLITS = ("train", "validation", "test")
RAW = 400  # at most this many raw test files for the last stage
RAW_WINDOWS = 50


@dataclass
class Data:
    """An entry's data in memory.

    Images: `x[split]` uint8 (N, H, W, C), `y[split]` int64 (N,); mean and scale float32 (C, H, W) or (C, 1, 1).
    Series: `x[split]` float64 (rows, D) with `starts[split]` (segments + 1,); mean and scale float32 (D,).
    Standardised is (x - mean) * scale. `about` is what results/<entry>/data.json holds.
    """

    x: dict[str, np.ndarray]
    y: dict[str, np.ndarray]
    mean: np.ndarray
    scale: np.ndarray
    about: dict[str, Any]
    times: dict[str, np.ndarray] = field(default_factory=dict)

    @property
    def task(self) -> str:
        return str(self.about["task"])

    @property
    def targets(self) -> int:
        """How many of a series' columns are forecast: the first ones."""
        return len(self.about["forecast"].get("columns", self.mean))

    def alone(self) -> Data:
        """Return the same series without the columns that are read and not forecast: what errors are taken of."""
        x = {split: rows[:, : self.targets] for split, rows in self.x.items()}
        return replace(self, x=x, mean=self.mean[: self.targets], scale=self.scale[: self.targets])

    def windows(self, split: str, stride: int = 1) -> tuple[np.ndarray, np.ndarray]:
        """Return every window of the split as float32 history (M, T, D) and target (M, S, targets), in raw units."""
        given = self.samples(split, stride)
        return given[0], given[-1]

    def samples(self, split: str, stride: int = 1) -> tuple[np.ndarray, ...]:
        """Return (history, target), or (history, calendar, target): calendar (M, T + S, F), of both."""
        context, horizon = self.about["input"]["context"], self.about["forecast"]["horizon"]
        rows = window_rows(self.y[split], context + horizon, stride)
        both = self.x[split][rows].astype(np.float32)  # (M, T + S, D)
        names = self.about["input"].get("calendar")
        known = (features(self.times[split], names)[rows],) if names else ()
        return both[:, :context], *known, both[:, context:, : self.targets]

    def served(self, split: str) -> np.ndarray:
        """Return the split as the served graph takes it: uint8 (N, H, W, C), or raw history float32 (M, T, D).

        With a calendar both are in one, (M, T + S, D + F), the history 0 in the rows ahead.
        """
        if self.task == "classification":
            return np.asarray(self.x[split])
        history, *known, _ = self.samples(split, self.about["stride"])
        ahead = ((0, 0), (0, self.about["forecast"]["horizon"]), (0, 0))
        return np.concatenate([np.pad(history, ahead), known[0]], 2) if known else history

    def example(self) -> np.ndarray:
        """Return one sample as the served graph takes it."""
        return self.served("train" if self.task == "classification" else "validation")[:1]


def window_rows(starts: np.ndarray, length: int, stride: int) -> np.ndarray:
    """Return the row numbers (M, length) of all windows that lie within one segment."""
    firsts = [np.arange(a, b - length + 1, stride) for a, b in itertools.pairwise(starts)]
    return np.concatenate(firsts)[:, None] + np.arange(length)


def make(recipe: dict[str, Any]) -> tuple[Data, dict[str, list[sources.Sample]] | None]:
    """Return the data of a resolved `data:` block and, for images, the samples behind each array."""
    if "size" in recipe:
        splits, labels = sources.images(recipe["spec"], recipe["background"])
        return image_data(recipe, splits, labels), splits
    return series_data(recipe), None


def image_data(recipe: dict[str, Any], splits: dict[str, list[sources.Sample]], labels: list[str]) -> Data:
    rule = image_rule(recipe)
    ids = [s.id for samples in splits.values() for s in samples]
    if len(set(ids)) < len(ids):
        raise StageError(f"data: a split leaks, {len(ids) - len(set(ids))} images stand in two splits")
    decoded = {split: decode(samples, rule, split) for split, samples in splits.items()}
    x = {split: images for split, (images, _) in decoded.items()}
    y = {split: np.array([s.label for s in samples], np.int64) for split, samples in splits.items()}
    for label, name in enumerate(labels):
        if recipe["spec"].get("labels") != "imagenet" and not (y["train"] == label).any():
            raise StageError(f"data: class {name!r} has no training image; give it some, or ask for larger splits")
    mean, scale = image_statistics(x["train"], recipe["standardise"])
    balance = {s: {name: int((y[s] == k).sum()) for k, name in enumerate(labels)} for s in SPLITS}
    twins = count_twins(x)
    notes = [f"{twins} test images equal a training or validation image pixel by pixel"] if twins else []
    if flat := sum(count for _, count in decoded.values()):
        notes.append(f"{flat} images came out {ALMOST_ONE_GREY}")
    for split in ("validation", "test"):
        if absent := [name for name, count in balance[split].items() if not count]:
            notes.append(f"no {split} image of {len(absent)} classes, {absent[0]!r} among them")
    about = {
        "task": "classification",
        "source": recipe["spec"]["source"],
        "licence": recipe["spec"]["licence"],
        **{split: len(rows) for split, rows in x.items()},
        "labels": labels,
        "balance": balance,
        "hash": content_hash(x, y),
        "notes": notes,
        "input": rule.to_dict(),
    }
    return Data(x, y, mean, scale, about)


def decode(samples: list[sources.Sample], rule: ImageRule, split: str) -> tuple[np.ndarray, int]:
    """Return the samples as uint8 (N, H, W, C), and how many came out almost of one grey though their files are not.

    An unreadable file is an error that names it.
    """
    flat, out = 0, np.empty((len(samples), *rule.size, rule.channels), np.uint8)
    bar = progress(len(samples), split, "image")
    for row, sample in zip(out, samples, strict=True):
        try:
            row[:] = read_image(sample.image, rule)
        except InputError as error:
            raise StageError(f"data: {sample.id}: {error}; repair or remove the file") from None
        flat += isinstance(sample.image, Path) and lost_contrast(sample.image, row)
        bar.update()
    bar.close()
    return out, flat


def series_data(recipe: dict[str, Any]) -> Data:
    parts, facts = series.series(recipe["spec"], recipe["context"], recipe["horizon"])
    own = recipe["targets"] or facts["columns"]
    if absent := [name for name in own if name not in facts["columns"]]:
        raise StageError(f"data: targets: expected columns among {', '.join(facts['columns'])}, got {absent[0]!r}")
    columns = own + [name for name in facts["columns"] if name not in own]  # what is forecast comes first
    order = [facts["columns"].index(name) for name in columns]
    x = {split: np.concatenate([s.values for s in part])[:, order] for split, part in parts.items()}
    starts = {split: np.cumsum([0, *(len(s.values) for s in part)]) for split, part in parts.items()}
    times = {split: np.concatenate([s.times for s in part]) for split, part in parts.items()}
    flat = np.flatnonzero(np.ptp(x["train"], axis=0) == 0)  # std of equal values need not be exactly 0
    if flat.size:
        name = columns[flat[0]]
        others = ", ".join(column for k, column in enumerate(columns) if k not in flat)
        cure = f"leave it out: `columns: [{others}]` in the set" if others else "there is nothing to forecast"
        raise StageError(f"data: column {name!r} never changes in the training rows; {cure}")
    require_float32(columns, x["train"])
    season, shortest = recipe["spec"]["season"], int(np.diff(starts["train"]).min())
    if season >= shortest:
        raise StageError(f"data: expected season below the {shortest} rows of training, got {season}; lower `season:`")
    about = described(recipe, facts, columns, starts) | {"hash": content_hash(x, starts)}
    if len(own) < len(columns):
        about["forecast"]["columns"] = own
    mean, scale = x["train"].mean(0).astype(np.float32), (1 / x["train"].std(0)).astype(np.float32)
    return Data(x, starts, mean, scale, about, times)


PRECISION = 0.01  # of a column's deviation: what rounding its values to float32 may cost
RANGE = 1e18  # values whose squares float32 still holds, and their inverse


def require_float32(columns: list[str], values: np.ndarray) -> None:
    """Raise StageError where float32 cannot tell a column's values (rows, D) apart, or cannot hold their squares."""
    eps = float(np.finfo(np.float32).eps)
    for name, column in zip(columns, values.T, strict=True):
        largest, spread = float(np.abs(column).max()), float(column.std())
        if not (largest < RANGE and spread > 1 / RANGE):
            got = f"values up to {largest:.3g} with a deviation of {spread:.3g}"
            raise StageError(f"data: column {name!r}: expected magnitudes of 1e-18 to 1e18, got {got}; change the unit")
        if eps * largest > PRECISION * spread:
            got = f"values up to {largest:.10g} that vary by {spread:.3g} (their standard deviation)"
            cure = "subtract a constant from the column, as its first value, here and where it is served"
            raise StageError(f"data: column {name!r}: float32 has no digits left for {got}; {cure}")


def described(
    recipe: dict[str, Any], facts: dict[str, Any], columns: list[str], starts: dict[str, np.ndarray]
) -> dict[str, Any]:
    """Return what `about` says of series, but for their hash; StageError where a calendar has no dates."""
    length, strides = recipe["context"] + recipe["horizon"], {"train": recipe["train_stride"]}
    step = facts["step"]
    if recipe["calendar"] and step.unit == "index":
        raise StageError("data: calendar: expected times that are dates, got whole numbers; leave it out")
    counts = {s: len(window_rows(starts[s], length, strides.get(s, recipe["stride"]))) for s in SPLITS}
    levels = recipe["quantiles"]
    return {
        "task": "forecasting",
        "source": recipe["spec"]["source"],
        "licence": recipe["spec"]["licence"],
        **counts,
        "columns": columns,
        "season": recipe["spec"]["season"],
        "stride": recipe["stride"],
        "train_stride": recipe["train_stride"],
        "filled": facts["filled"],
        "notes": series.notes(recipe["spec"], facts["filled"], levels, counts["validation"]),
        "input": {
            "kind": "series",
            "context": recipe["context"],
            "columns": columns,
            "id": facts["id"],
            "time": facts["time"],
            "gaps": facts["gaps"],
            "step": {"unit": step.unit, "count": step.count},
            **({"offset": facts["offset"]} if facts["time"] and step.unit != "index" else {}),
            **({"calendar": recipe["calendar"]} if recipe["calendar"] else {}),
        },
        "forecast": {
            "horizon": recipe["horizon"],
            "quantiles": series.calibrated_levels(levels, counts["validation"]),
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
    """Return how many test images equal a training or validation image: of each 16 bytes are kept, not its pixels."""

    def digest(image: np.ndarray) -> bytes:
        return hashlib.blake2b(np.ascontiguousarray(image).data, digest_size=16).digest()

    seen = {digest(row) for split in ("train", "validation") for row in x[split]}
    return sum(digest(row) in seen for row in x["test"])


def spread(n: int, at_most: int) -> np.ndarray:
    """Return up to `at_most` row numbers spread evenly over n rows."""
    return np.unique(np.linspace(0, n - 1, min(n, at_most)).round().astype(int))


def write_raw_images(folder: Path, samples: list[sources.Sample], labels: list[str]) -> None:
    """Write test images as a user would hold them: files in class folders, and raw.csv (file, row, label)."""
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
            rows.writerow([target.relative_to(folder.parent), row, labels[sample.label]])


def write_raw_series(folder: Path, data: Data) -> None:
    """Write test histories as a user would hold them, under the source's own column names.

    With an id column, one file whose ids are the windows' row numbers; without, one file a window, named by it.
    """
    given = data.about["input"]
    length = given["context"] + data.about["forecast"]["horizon"]
    rows = window_rows(data.y["test"], length, data.about["stride"])[:, : given["context"]]
    header = [name for name in (given["id"], given["time"]) if name] + given["columns"]
    written: dict[Path, list[list[Any]]] = {}
    for window in spread(len(rows), RAW_WINDOWS):
        file = folder / ("series.csv" if given["id"] else f"window-{window:06d}.csv")
        for row in rows[window]:
            time = f"{data.times['test'][row]}{'Z' if given.get('offset') == 'utc' else ''}"
            keys = [f"{window:06d}"] * bool(given["id"]) + [time] * bool(given["time"])
            written.setdefault(file, [header]).append([*keys, *map(repr, data.x["test"][row].tolist())])
    for file, lines in written.items():
        with file.open("w", newline="", encoding="utf-8") as stream:
            csv.writer(stream).writerows(lines)


def save(folder: Path, data: Data) -> None:
    for split in SPLITS:
        np.save(folder / f"{split}_x.npy", data.x[split])
        np.save(folder / f"{split}_y.npy", data.y[split])
        if split in data.times:
            np.save(folder / f"{split}_times.npy", data.times[split])
    np.savez(folder / "statistics.npz", mean=data.mean, scale=data.scale)


def load(name: str) -> Data:
    """Return the data that stage data wrote for the entry, arrays memory-mapped."""
    return read(OUT / name / "data", read_json(RESULTS / name / "data.json", f"data@{name}"))


def read(folder: Path, about: dict[str, Any]) -> Data:
    """Return the data that `save` wrote to the folder, arrays memory-mapped."""
    parts = ("x", "y", "times") if about["task"] == "forecasting" else ("x", "y")
    x, y, *times = ({s: np.load(folder / f"{s}_{part}.npy", mmap_mode="r") for s in SPLITS} for part in parts)
    with np.load(folder / "statistics.npz") as statistics:
        return Data(x, y, statistics["mean"], statistics["scale"], about, *times)


def main() -> None:
    with of_entry("data") as name:
        data, samples = make(params.entry(name, "data")["data"])
        folder = fresh(OUT / name / "data")
        save(folder, data)
        raw = folder / "raw"
        raw.mkdir()
        if samples is not None:
            write_raw_images(raw, samples["test"], data.about["labels"])
        else:
            write_raw_series(raw, data)
        write_json(RESULTS / name / "data.json", data.about)
        for note in data.about["notes"]:
            print(f"   note: {note}", file=sys.stderr)


if __name__ == "__main__":
    run(main)
