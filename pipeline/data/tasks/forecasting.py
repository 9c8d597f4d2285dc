"""Forecasting: the windows of series, and the statistics of the training rows."""

from __future__ import annotations

import csv
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from convline.errors import describe_count

from pipeline.core.errors import StageError
from pipeline.data import series_sources
from pipeline.data.dataset import (
    SPLITS,
    Data,
    Places,
    content_hash,
    describe_splits,
    pieces,
    spread,
)
from pipeline.data.long_series import join
from pipeline.data.raw_windows import choose_raw_windows
from pipeline.data.season import resolve_season
from pipeline.params.schema import SeriesData

PRECISION = 0.01  # of a column's deviation: what rounding its values to float32 may cost
RANGE = 1e18  # values whose squares float32 still holds, and their inverse
FAR, QUARTILE_ROWS = 20, 100_000  # interquartile ranges beyond the quartiles; rows to find these


def make(recipe: SeriesData) -> tuple[Data, None]:
    """Return the data of a `data:` block."""
    return series_data(recipe), None


def describe(about: dict[str, Any]) -> str:
    """Return the windows of each split and their size; about: content of data.json."""
    columns = describe_count(len(about["columns"]), "column")
    horizon = about["forecast"]["horizon"]
    text = f"{describe_splits(about)} windows, {columns}, {about['input']['context']} steps"
    return f"{text} to {horizon}; season {about['season']}: {about['season_from']}"


def series_data(recipe: SeriesData) -> Data:
    parts, facts = series_sources.series(recipe.spec, recipe.context, recipe.horizon)
    own = recipe.targets or facts["columns"]
    if absent := [name for name in own if name not in facts["columns"]]:
        choices = ", ".join(facts["columns"])
        raise StageError(f"data: targets: expected columns among {choices}, got {absent[0]!r}")
    # what is forecast comes first
    columns = own + [name for name in facts["columns"] if name not in own]
    order = [facts["columns"].index(name) for name in columns]
    x = {split: join([s.values for s in part], order) for split, part in parts.items()}
    lengths = {split: [len(s.values) for s in part] for split, part in parts.items()}
    starts = {split: np.cumsum([0, *rows]) for split, rows in lengths.items()}
    times = {split: join([s.times for s in part]) for split, part in parts.items()}
    require_changes(columns, x["train"])
    require_float32(columns, x["train"])
    shortest = int(np.diff(starts["train"]).min())
    facts |= resolve_season(recipe.set, recipe.spec.season, facts["step"], shortest)
    if facts["season"] >= shortest:
        needed = f"expected season below the {shortest} rows of training, got {facts['season']}"
        raise StageError(f"data: {needed}; lower `season:`")
    facts["far"] = count_far(columns, x, starts, recipe.context)
    about = described(recipe, facts, columns, starts) | {"hash": content_hash(x, starts)}
    if facts["far"]:
        about["far"] = facts["far"]
    if len(own) < len(columns):
        about["forecast"]["columns"] = own
    mean, deviation = moments(x["train"])
    return Data(
        x, starts, mean.astype(np.float32), (1 / deviation).astype(np.float32), about, times
    )


def count_far(
    columns: list[str], x: dict[str, np.ndarray], starts: dict[str, np.ndarray], context: int
) -> dict[str, dict[str, int]]:
    """Return how many values of each column and split lie FAR from the training rows, where any do.

    That is FAR interquartile ranges of the training rows beyond their quartiles (Tukey 1977,
    "Exploratory Data Analysis", chapter 2, but for FAR); none where half of these are equal, as in
    a series of zeros. x, starts: rows of each split and the first of each series, as in Data.
    Validation and test begin with the last `context` rows of the split before, which count there.
    """
    sample = x["train"][spread(len(x["train"]), QUARTILE_ROWS)]
    low, high = np.quantile(sample, (0.25, 0.75), axis=0)
    far = np.where(high > low, FAR * (high - low), np.inf)
    found: dict[str, dict[str, int]] = {}
    for split, rows in x.items():
        counts = np.zeros(len(columns), int)
        skipped = 0 if split == "train" else context
        for first, end in pairwise(starts[split].tolist()):
            for part in pieces(rows[first + skipped : end]):
                counts += ((part < low - far) | (part > high + far)).sum(0)
        for name, count in zip(columns, counts.tolist(), strict=True):
            if count:
                found.setdefault(name, {})[split] = count
    return found


def moments(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return mean and standard deviation (D,) of values (rows, D), in pieces: numpy's own would
    need their memory twice more.
    """
    mean = np.asarray(sum(part.sum(0) for part in pieces(values)) / len(values))
    squares = (((part - mean) ** 2).sum(0) for part in pieces(values))
    return mean, np.sqrt(sum(squares) / len(values))


def require_changes(columns: list[str], values: np.ndarray) -> None:
    """Raise StageError where a column of values (rows, D) is constant."""
    changes = np.ptp(values, axis=0) != 0  # the std of equal values need not be exactly 0
    if not changes.all():
        name = columns[int(changes.argmin())]
        others = ", ".join(np.array(columns)[changes])
        cure = f"leave it out: `columns: [{others}]` in the set"
        cure = cure if others else "give a file whose values change"
        raise StageError(f"data: column {name!r} never changes in the training rows; {cure}")


def require_float32(columns: list[str], values: np.ndarray) -> None:
    """Raise StageError where a column of values (rows, D) does not fit float32 well enough."""
    eps = float(np.finfo(np.float32).eps)
    magnitudes = np.maximum(values.max(0), -values.min(0)).tolist()
    for name, largest, deviation in zip(
        columns, magnitudes, moments(values)[1].tolist(), strict=True
    ):
        if not (largest < RANGE and deviation > 1 / RANGE):
            got = f"got values up to {largest:.3g} with a deviation of {deviation:.3g}"
            needed = f"expected magnitudes of 1e-18 to 1e18, {got}"
            raise StageError(f"data: column {name!r}: {needed}; change the unit")
        if eps * largest > PRECISION * deviation:
            got = f"values up to {largest:.10g} that vary by {deviation:.3g}"
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
    counts = {s: len(Places.of(starts[s], length, strides.get(s, recipe.stride))) for s in SPLITS}
    calibrating = series_sources.count_calibrating(recipe, counts["train"], counts["validation"])
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
        **({"windows_per_epoch": drawn} if (drawn := recipe.windows_per_epoch) else {}),
        **({"intervals": "scaled"} if recipe.intervals == "scaled" else {}),
        "filled": facts["filled"],
        "notes": series_sources.notes(recipe, facts, calibrating),
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
            "quantiles": series_sources.calibrated_levels(recipe.quantiles, calibrating),
        },
    }


def write_raw(folder: Path, data: Data, samples: None) -> None:
    """Write the histories of test windows as CSV files, under the dataset's column names.

    A dataset with an id column gives one file, in which each window has an id; another gives one
    file for each window.
    """
    given = data.about["input"]
    places = data.places("test", data.about["stride"])
    chosen = choose_raw_windows(len(places), given["context"])
    header = [name for name in (given["id"], given["time"]) if name] + given["columns"]
    written: dict[Path, list[list[Any]]] = {}
    for window, rows in zip(chosen, places.rows(chosen), strict=True):
        file = folder / ("series.csv" if given["id"] else f"window-{window:06d}.csv")
        for row in rows[: given["context"]]:
            time = f"{data.times['test'][row]}{'Z' if given.get('offset') == 'utc' else ''}"
            keys = [f"{window:06d}"] * bool(given["id"]) + [time] * bool(given["time"])
            values = map(repr, data.x["test"][row].tolist())
            written.setdefault(file, [header]).append([*keys, *values])
    for file, lines in written.items():
        with file.open("w", newline="", encoding="utf-8") as stream:
            csv.writer(stream).writerows(lines)
