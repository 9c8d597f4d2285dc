"""Datasets of series: each source gives its splits, divided by time, as {split: [Series, ...]}."""

from __future__ import annotations

from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from convline.model_file.document import Step
from convline.timeseries.parquet_reader import is_parquet
from convline.timeseries.pieces import first_rows, is_long, open_pieces
from convline.timeseries.raw_table import parse_number
from convline.timeseries.series import Series, build_table, choose_columns, open_file, read_csv
from convline.timeseries.timestamps import parse_times

from pipeline.core.errors import StageError
from pipeline.core.paths import located
from pipeline.data.dataset import describe_far
from pipeline.data.long_series import read_long
from pipeline.params.schema import AnySeriesSet, CsvSet, SeriesData, StatsmodelsSet, WavesSet

CALIBRATED = 4096  # windows of training and validation that scaled intervals are made of
# radians a step: the notes' linspace over 128 + 10 points, kept at any horizon
WAVE = 20 * np.pi / 137, np.pi / 137


def series(
    spec: AnySeriesSet, context: int, horizon: int
) -> tuple[dict[str, list[Series]], dict[str, Any]]:
    """Return the series of each split, and facts about the dataset.

    The facts are {"columns", "step", "filled", "time", "id", "gaps", "offset"}.
    """
    if isinstance(spec, WavesSet):
        return waves(spec, context, horizon)
    table, names = statsmodels_table(spec) if isinstance(spec, StatsmodelsSet) else csv_table(spec)
    facts = {"columns": table.columns, "step": table.step, "filled": table.filled}
    facts |= {"gaps": spec.gaps, "offset": "utc" if table.series[0].offset else "none", **names}
    parts: dict[str, list[Series]] = {"train": [], "validation": [], "test": []}
    for one in table.series:
        for split, part in split_by_time(one, spec, context, horizon).items():
            parts[split].append(part)
    return parts, facts


def waves(
    spec: WavesSet, context: int, horizon: int
) -> tuple[dict[str, list[Series]], dict[str, Any]]:
    """Return amplitude-modulated sines: sin(u + a t) sin(u + b t) + noise.

    The phase u is uniform in [0, 2 pi) for each curve. Each split has its own random generator, and
    noise is drawn step by step: a longer curve begins as a shorter one does.
    """
    parts = {}
    for k, split in enumerate(("train", "validation", "test")):
        rng = np.random.default_rng([spec.seed, k])
        length = max(spec.length, context + horizon) if split == "test" else context + horizon
        noise = spec.test_noise if split == "test" else spec.noise
        count: int = getattr(spec, split)
        phase = rng.uniform(0, 2 * np.pi, (count, 1))
        steps = np.arange(length)
        curves = np.sin(phase + WAVE[0] * steps) * np.sin(phase + WAVE[1] * steps)
        curves += noise * rng.standard_normal((length, count)).T
        numbered = enumerate(curves)
        parts[split] = [Series(f"{split}-{i:04d}", steps, y[:, None]) for i, y in numbered]
    facts = {"columns": ["y"], "step": Step("index", 1), "filled": 0, "gaps": "error"}
    return parts, facts | {"offset": "none", "time": "ds", "id": "unique_id"}


def statsmodels_table(spec: StatsmodelsSet) -> tuple[Any, dict[str, Any]]:
    """Return a series that comes with statsmodels: yearly sunspots, or weekly CO2 with its gaps."""
    from importlib import import_module

    module = import_module(f"statsmodels.datasets.{spec.name}")
    path = Path(str(module.__file__)).with_name(f"{spec.name}.csv")
    time, column = {"sunspots": ("YEAR", "SUNACTIVITY"), "co2": ("date", "co2")}[spec.name]
    table = read_csv(path, columns=[column], time=time, id=None, gaps=spec.gaps)
    return table, {"time": time, "id": None}


# of columns that are no values
TIME_NAMES = ("date", "datetime", "time", "timestamp", "year", "month", "day")


def csv_table(spec: CsvSet) -> tuple[Any, dict[str, Any]]:
    """Return the series of a CSV or Parquet file, with optional time and id columns.

    The defaults of these are `ds` and `unique_id` where the file has them, as for `infer series`.
    """
    path = located(spec.path)
    if not path.is_file():
        raise StageError(f"data.csv: {path} is not a file; give the path of a CSV in params.yaml")
    keys = [name for name in (spec.time, spec.id, "ds", "unique_id") if name]
    long = is_long(path, keys, spec.columns)
    parts = open_pieces(path, keys, spec.columns) if long else iter([open_file(path, keys=keys)])
    file = next(parts)
    require_header(path, file.header)
    names = {
        key: given if given or habit not in file.header else habit
        for key, given, habit in (("time", spec.time, "ds"), ("id", spec.id, "unique_id"))
    }
    if names["time"] is None:
        seen = first_rows(path) if is_parquet(path) else file
        refuse_times_as_values(path, seen, spec.columns)
    if not long:
        table = build_table(
            file, columns=spec.columns, time=names["time"], id=names["id"], gaps=spec.gaps
        )
        return table, names
    columns = choose_columns(file, spec.columns, [name for name in names.values() if name])
    return read_long(chain([file], parts), columns, **names, gaps=spec.gaps), names


def require_header(path: Path, header: list[str]) -> None:
    """Raise StageError where the first line has values, which would be taken for column names."""

    def is_value(cell: str) -> bool:
        return parse_number(cell, ".") is not None or parse_times([cell])[1] is None

    if all(cell and is_value(cell) for cell in header):
        needed = f"expected a first line of column names, got {', '.join(header[:4])}"
        raise StageError(f"data.csv: {path}: {needed}; write one above the values")


def refuse_times_as_values(path: Path, file: Any, columns: list[str] | None) -> None:
    """Raise StageError where a time column is not named: the order of times is not checked."""
    numeric = set(file.numeric(file.header))
    for name in file.header:
        if columns is not None and name in columns:
            continue
        dated = (name not in numeric or name == file.header[0]) and are_dates(file, name)
        if dated or (name.lower() in TIME_NAMES and columns is None):
            cure = f"write `time: {name}` in the set, or name the `columns:` that are values"
            what = f"column {name!r} looks like times, and no time column is named"
            raise StageError(f"data.csv: {path}: {what}; {cure}")


def are_dates(file: Any, name: str) -> bool:
    """Return whether every cell of a column is a date or time; of Parquet, of its first rows."""
    times, trouble = parse_times(file.encoded(name)[1])
    return trouble is None and times.dtype.kind == "M"


def split_by_time(
    one: Series, spec: StatsmodelsSet | CsvSet, context: int, horizon: int
) -> dict[str, Series]:
    """Return the splits of a series: the oldest rows train, then validation, then test.

    Validation and test begin one context earlier: their history may overlap the split before, their
    targets never do. `splits:` gives the rows where each ends; rows after the last are not used.
    """
    n = len(one.values)
    test, validation = round(n * spec.test), round(n * spec.validation)
    ends = (n - test - validation, n - test, n)
    if isinstance(spec, CsvSet) and spec.splits:
        ends = spec.splits
    if ends[2] > n:
        needed = f"expected splits of at most the {n} rows of series {one.id!r}"
        raise StageError(f"data: {needed}, got {list(ends)}")
    least = {"train": ends[0] - context, "validation": ends[1] - ends[0], "test": ends[2] - ends[1]}
    for split, rows in least.items():
        if rows < horizon:
            got = f"series {one.id!r} has {n} rows, {split} would have {max(rows, 0)} target rows"
            needed = f"a horizon of {horizon} with context {context} needs more"
            cure = "shorten them or give a longer series"
            raise StageError(f"data: {got}; {needed}: {cure}")
    starts = (0, ends[0] - context, ends[1] - context)
    return {
        split: Series(one.id, one.times[a:b], one.values[a:b])
        for split, a, b in zip(least, starts, ends, strict=True)
    }


def every_of(counts: list[int]) -> int:
    """Return of which so many windows one calibrates intervals: all of one split, and of several
    splits, with these counts of windows, up to CALIBRATED together, but for rounding.
    """
    return -(-sum(counts) // CALIBRATED) if len(counts) > 1 else 1


def count_calibrating(recipe: SeriesData, train: int, validation: int) -> int:
    """Return how many windows calibrate the intervals, of splits with so many."""
    counts = [validation] if recipe.intervals == "fixed" else [validation, train]
    return sum(-(-count // every_of(counts)) for count in counts)


def calibrated_levels(levels: list[float], windows: int) -> list[float]:
    """Return the quantile levels that `windows` windows can calibrate, or [0.5].

    Level q below the median needs the floor((windows + 1) q)-th smallest residual, which exists
    from windows = 1 / q - 1 on (Romano, Patterson, Candes 2019, arXiv:1905.03222, theorem 2): 9 for
    .1.
    """
    return [q for q in levels if q == 0.5 or round((windows + 1) * min(q, 1 - q), 6) >= 1] or [0.5]


def notes(recipe: SeriesData, facts: dict[str, Any], windows: int) -> list[str]:
    """Return remarks on the dataset for the report; windows: how many calibrate the intervals."""
    spec, filled, levels = recipe.spec, facts["filled"], recipe.quantiles
    remarks = [f"{filled} missing values filled by linear interpolation"] if filled else []
    if spec.season is None and facts["season"] == 1:
        cure = f"set data.{recipe.set}.season"
        remarks.append(f"season is 1: seasonal naive equals the last value; {cure}")
    if far := describe_far({"far": facts["far"], "source": spec.source}):
        remarks.append(far)
    if facts["season"] > recipe.context:
        rows = f"a season has {facts['season']} rows, the context only {recipe.context}"
        remarks.append(f"{rows}: seasonal naive repeats the context; give a longer series")
    if left_out := [q for q in levels if q < 0.5 and q not in calibrated_levels(levels, windows)]:
        least = round(1 / min(left_out) - 1)
        spans = ", ".join(f"{100 * (1 - 2 * q):.0f} %" for q in left_out)
        of, more = "validation split has", "a longer validation split"
        if recipe.intervals == "scaled":
            of, more = "splits that calibrate have", "more rows"
        what = f"the {of} {windows} windows, and it needs the residuals of {least}"
        cure = f"give {more}, or ask for narrower quantiles"
        remarks.append(f"no {spans} interval: {what}; {cure}")
    if isinstance(spec, WavesSet) and spec.test_noise != spec.noise:
        noise = f"training curves carry noise {spec.noise}, test curves {spec.test_noise}"
        why = "bands, made from noisy validation curves, cover more than their nominal share"
        remarks.append(f"{noise}: {why} of the test")
    return remarks
