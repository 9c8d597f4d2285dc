"""The dataset that later stages open: the arrays of each split, statistics and metadata."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from convline.errors import describe_count
from convline.timeseries.calendar_features import encode_calendar

from pipeline.core.files import read_json, save_array
from pipeline.core.paths import OUT, RESULTS
from pipeline.data.shards import ShardIndex

SPLITS = ("train", "validation", "test")
RAW_WINDOWS = 50
SAMPLE = 512  # training images in memory where the split is in shards
HASHED = 2**14  # images or rows that are hashed at a time
PIECE = 2**20  # rows of a series that are worked on at a time


@dataclass
class Data:
    """An entry's data in memory.

    Images: `x[split]` uint8 (N, H, W, C); mean and scale float32 (C, H, W) or (C, 1, 1). The
    targets `y[split]` of a task:

    - classification: int64 (N,)
    - detection: float32 (N, M, 5), x_min, y_min, x_max, y_max in pixels of the input, where pixel k
      covers k to k + 1, and the label; rows beyond an image's boxes have label -1 and zeros
    - segmentation: uint8 (N, H, W), 255 for void
    - captioning: int64 (N, R, L), R captions as word ids to the end word, then -1

    Series: `x[split]` float64 (rows, D), `y[split]` the first row of each series and the end
    (series + 1,), `times[split]` (rows,); mean and scale float32 (D,). Standardised values
    are (x - mean) * scale. `about` is the content of results/<entry>/data.json.

    shards: the training split of images in files (`layout: shards`), else None. x and y of the
    training split are then a sample of at most SAMPLE images, for calibration and explanations;
    `about["train"]` counts the whole split.
    """

    x: dict[str, np.ndarray]
    y: dict[str, np.ndarray]
    mean: np.ndarray
    scale: np.ndarray
    about: dict[str, Any]
    times: dict[str, np.ndarray] = field(default_factory=dict)
    shards: ShardIndex | None = None

    @property
    def task(self) -> str:
        return str(self.about["task"])

    @property
    def has_images(self) -> bool:
        return "size" in self.about["input"]

    @property
    def targets(self) -> int:
        """The number of columns that are forecast; they are the first columns."""
        return len(self.about["forecast"].get("columns", self.mean))

    def alone(self) -> Data:
        """Return the same series with the forecast columns alone."""
        x = {split: rows[:, : self.targets] for split, rows in self.x.items()}
        return replace(self, x=x, mean=self.mean[: self.targets], scale=self.scale[: self.targets])

    def windows(self, split: str, stride: int = 1, every: int = 1) -> tuple[np.ndarray, np.ndarray]:
        """Return all windows of a split in raw units: history (M, T, D), target (M, S, targets).

        every: of all windows, in the order of their numbers, every so many.
        """
        context = self.about["input"]["context"]
        both = self.places(split, stride).cut(self.x[split], every)
        return both[:, :context], both[:, context:, : self.targets]

    def samples(self, split: str, stride: int = 1) -> tuple[np.ndarray, ...]:
        """Return all windows as (history, target) or (history, calendar, target), float32.

        history (M, T, D), calendar (M, T + S, F) of history and horizon, target (M, S, targets).
        """
        history, target = self.windows(split, stride)
        calendar = self.calendar(split)
        known = () if calendar is None else (self.places(split, stride).cut(calendar),)
        return history, *known, target

    def places(self, split: str, stride: int) -> Places:
        """Return where the windows of a split are."""
        length = self.about["input"]["context"] + self.about["forecast"]["horizon"]
        return Places.of(self.y[split], length, stride)

    def calendar(self, split: str) -> np.ndarray | None:
        """Return the calendar of a split's rows float32 (rows, F), None without one."""
        names = self.about["input"].get("calendar")
        if not names:
            return None
        return np.concatenate([encode_calendar(part, names) for part in pieces(self.times[split])])

    def served(self, split: str) -> np.ndarray:
        """Return the split as the served graph takes it: uint8 (N, H, W, C), or raw history float32
        (M, T, D).

        With a calendar both are one array (M, T + S, D + F), whose history is 0 in the horizon's
        rows.
        """
        if self.has_images:
            return np.asarray(self.x[split])
        history, *known, _ = self.samples(split, self.about["stride"])
        ahead = ((0, 0), (0, self.about["forecast"]["horizon"]), (0, 0))
        return np.concatenate([np.pad(history, ahead), known[0]], 2) if known else history

    def example(self) -> np.ndarray:
        """Return one sample as the served graph takes it."""
        return self.served("train" if self.has_images else "validation")[:1]


@dataclass(frozen=True)
class Places:
    """Where windows of `length` rows are that lie within one series, by their number from 0.

    Nothing is stored for a window: number k begins at row `stride * k + shifts[s]`, where s is the
    series with `ends[s - 1] <= k < ends[s]`; both int64 (series,).
    """

    ends: np.ndarray
    shifts: np.ndarray
    length: int
    stride: int

    @classmethod
    def of(cls, starts: np.ndarray, length: int, stride: int) -> Places:
        """starts (series + 1,): the first row of each series and the end."""
        counts = np.maximum((np.diff(starts) - length) // stride + 1, 0)
        ends = counts.cumsum()
        return cls(ends, starts[:-1] - stride * (ends - counts), length, stride)

    def __len__(self) -> int:
        return int(self.ends[-1])

    def first_rows(self, windows: np.ndarray) -> np.ndarray:
        """Return the row where each of the windows (M,) begins."""
        series = np.searchsorted(self.ends, windows, side="right")
        return np.asarray(self.stride * windows + self.shifts[series])

    def rows(self, windows: np.ndarray) -> np.ndarray:
        """Return the rows of windows (M,) as int64 (M, length)."""
        return self.first_rows(windows)[:, None] + np.arange(self.length)

    def cut(self, rows: np.ndarray, every: int = 1) -> np.ndarray:
        """Return every so many windows of rows (R, C) as float32 (M, length, C)."""
        first = self.first_rows(np.arange(0, len(self), every))
        laid = np.empty((len(first), self.length, rows.shape[1]), np.float32)
        for step in range(self.length):  # an index of all windows' rows would need twice as much
            laid[:, step] = rows[first + step]
        return laid


def pieces(rows: np.ndarray, length: int = PIECE) -> Iterator[np.ndarray]:
    """Yield successive parts of an array, at least one."""
    for first in range(0, max(len(rows), 1), length):
        yield rows[first : first + length]


def spread(n: int, at_most: int) -> np.ndarray:
    """Return up to `at_most` row numbers spread evenly over n rows."""
    return np.unique(np.linspace(0, n - 1, min(n, at_most)).round().astype(int))


def content_hash(*groups: dict[str, np.ndarray]) -> str:
    """Return a sha256 over the arrays' shapes, types and bytes."""
    total = hashlib.sha256()
    for group in groups:
        for split in SPLITS:
            total.update(f"{split} {group[split].shape} {group[split].dtype}".encode())
            for part in pieces(group[split], HASHED):
                total.update(np.ascontiguousarray(part).tobytes())
    return total.hexdigest()


def describe_splits(about: dict[str, Any]) -> str:
    """Return the samples of each split: "1,137 train, 300 validation, 360 test"."""
    return ", ".join(f"{about[split]:,} {split}" for split in SPLITS)


def describe_far(about: dict[str, Any]) -> str | None:
    """Return the sentence on columns with values far from the others, which float32 rounds beside
    them, and of a file its cure; None where there are none. about: {"far", "source"} of data.json.
    """
    columns = []
    for name, counts in about.get("far", {}).items():
        each = ", ".join(describe_count(n, f"{split} value") for split, n in counts.items())
        columns.append(f"column {name!r} has values far from the others: {each}")
    if columns and about["source"] == "csv":
        columns.append("if these are mistakes, empty the cells and make the entry again")
    return "; ".join(columns) or None


def save(folder: Path, data: Data) -> None:
    """Write the data to a stage's folder; shards, which are files already, move there."""
    for split in SPLITS:
        save_array(folder / f"{split}_x.npy", data.x[split])
        save_array(folder / f"{split}_y.npy", data.y[split])
        if split in data.times:
            save_array(folder / f"{split}_times.npy", data.times[split])
    np.savez(folder / "statistics.npz", mean=data.mean, scale=data.scale)
    if data.shards:  # last: where the disk is full they stay for the next run
        shutil.move(data.shards.folder, folder / "shards")


def load(name: str) -> Data:
    """Return the data that stage data wrote for the entry, arrays memory-mapped."""
    return read(OUT / name / "data", read_json(RESULTS / name / "data.json", f"data@{name}"))


def read(folder: Path, about: dict[str, Any]) -> Data:
    """Return the data that `save` wrote to the folder, arrays memory-mapped."""
    parts = ("x", "y") if "size" in about["input"] else ("x", "y", "times")
    x, y, *times = (
        {s: np.load(folder / f"{s}_{part}.npy", mmap_mode="r") for s in SPLITS} for part in parts
    )
    with np.load(folder / "statistics.npz") as statistics:
        mean, scale = statistics["mean"], statistics["scale"]
    shards = ShardIndex.load(folder / "shards") if about.get("layout") == "shards" else None
    return Data(x, y, mean, scale, about, times[0] if times else {}, shards)
