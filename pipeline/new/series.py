"""An entry for a CSV or Parquet file of series: a forecaster that suits its season and length."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from convline.model_file.document import Step

from models import ensemble
from pipeline.core.errors import StageError
from pipeline.data.season import DAY, WEEK, resolve_season
from pipeline.data.tasks.forecasting import series_data
from pipeline.new.params_file import Entry, path_text
from pipeline.new.series_file import SeriesFile, look
from pipeline.params.load import check_set
from pipeline.params.recipe import resolve
from pipeline.params.schema import SeriesData

SHARE = 0.2  # of the rows for validation, and for test, as of the usual split of ETTh1
LEAST_CONTEXT, SHORT, LONG = 8, 24, 336  # rows of history; LONG: two weeks of hours
# From nine validation windows on, the ends of an 80 % interval can be calibrated:
# `calibrated_levels` in pipeline/data/series_sources.py. A shorter series has none.
WINDOWS, FEW = 9, 5
NO_SEASON = 10  # rows of the default horizon where there is no season
KEPT = 4  # rows of the default horizon, of a season at least so long, that come before an interval
TRAINED, TESTED = 20_000, 5_000  # windows at most of the training split, and of the test split
MANY = 5_000  # training windows from which a network is trained beside the linear maps
STEPS, EPOCHS = 2_000, (10, 200)  # of the optimizer, and in how many epochs they are taken
NETWORK: dict[str, Any] = {
    "normalise": ["instance", "last"],
    "channels": 16,
    "kernel_size": 3,
    "blocks": 0,
    "patch": 4,
    "stride": 2,
    "dropout": 0.1,
    "independent": True,
    "linear": True,
}
# Linear maps, solved for in a second: of the window less its mean, and less its last value. They
# follow the level, so that a series that rises stays in range. Chosen by validation rows, as the
# ridge is: docs/your-data.md.
MAPS: list[dict[str, Any]] = [{"kind": kind} for kind in ("rlinear", "nlinear")]
SOLVED: dict[str, Any] = {"start": "closed_form", "ridge": 0.1}


def propose(
    name: str,
    file: Path,
    *,
    time: str | None,
    columns: list[str] | None,
    id: str | None,
    horizon: int | None,
    licence: str,
) -> Entry:
    """Return an entry for a file of series.

    time, columns, id: names of columns that the file does not show by itself. horizon: rows to
    forecast; None takes one season, or as many rows as the file allows. Raises StageError or
    InputError where no forecaster can be trained.
    """
    seen = look(file, time, columns, id)
    refuse_constants(seen)
    season = resolve_season(name, None, seen.step, train_rows(min(seen.lengths)))["season"]
    asked = horizon
    context, horizon = choose_window(seen, season, asked)
    given_up = [] if asked else describe_given_up(seen.lengths, season, horizon)
    data_set: dict[str, Any] = {"source": "csv", "path": path_text(seen.path)}
    data_set |= {key: value for key, value in (("time", seen.time), ("id", seen.id)) if value}
    data_set |= {"columns": seen.table.columns} if seen.chosen else {}
    data_set |= {"gaps": "interpolate"} if seen.table.filled else {}
    data_set |= {"validation": SHARE, "test": SHARE, "licence": licence}
    recipe = choose_recipe(name, seen, context, horizon)
    data = resolve(f"models.{name}", recipe, {name: check_set(name, data_set)}).data
    assert isinstance(data, SeriesData)
    about = series_data(data).about  # as stage data does, so that its refusals come now
    rows = f"{seen.path} --horizon {horizon}"
    return Entry(
        name=name,
        recipe=recipe,
        data_set=data_set,
        seen=[*seen.facts, *describe_splits(seen, about), *given_up],
        why=describe_choice(recipe, about),
        predict=f"infer series {name} {rows} --plot {name}.png",
    )


def refuse_constants(seen: SeriesFile) -> None:
    """Raise StageError for a column that never changes, in any row or in those that train."""
    values = [one.values for one in seen.table.series]
    training = np.concatenate([rows[: train_rows(len(rows))] for rows in values])
    flat = np.ptp(training, axis=0) == 0
    if flat.any():
        k, columns = int(flat.argmax()), seen.table.columns
        where = " in the rows that train" if np.ptp(np.concatenate(values)[:, k]) else ""
        others = ",".join(name for name, same in zip(columns, flat, strict=True) if not same)
        cure = f"leave it out: --columns {others}" if others else "give a file whose values change"
        what = f"column {columns[k]!r} never changes{where}"
        raise StageError(f"new: {seen.path.name}: {what}; {cure}")


def describe_splits(seen: SeriesFile, about: dict[str, Any]) -> list[str]:
    """Return what stage data found: season, splits, and its notes."""
    facts = [f"season    {about['season']}: {about['season_from']}"]
    counts = ", ".join(f"{about[split]:,} {split}" for split in ("train", "validation", "test"))
    share = f"the newest {percent(SHARE)} of the rows are test, {percent(SHARE)} before validation"
    facts.append(f"windows   {counts}: {share}")
    return facts + [f"note      {note}" for note in about["notes"] if "filled" not in note]


def describe_given_up(lengths: Sequence[int], season: int, horizon: int) -> list[str]:
    """Return notes on what a default horizon lacks because the series are short."""
    wanted = default_horizon(season)
    if horizon >= wanted:
        return []
    what = f"note      a horizon of {horizon} instead of {wanted}"
    if fits(lengths, LEAST_CONTEXT, horizon, WINDOWS):
        return [f"{what}, so that there is an interval: the file has too few rows for both"]
    with_interval = possible_horizons(lengths, horizon, WINDOWS)
    cure = f"; --horizon {with_interval[-1]} has an interval" if with_interval else ""
    return [f"{what}, and no interval: the file has too few rows{cure}"]


def percent(share: float) -> str:
    return f"{100 * share:.0f} %"


def describe_choice(recipe: dict[str, Any], about: dict[str, Any]) -> str:
    context, horizon = recipe["data"]["context"], recipe["data"]["horizon"]
    season, levels = about["season"], about["forecast"]["quantiles"]
    seasons = f" ({context / season:.3g} seasons)" if season > 1 else ""
    maps = f"{len(MAPS)} linear maps in closed form"
    if recipe["train"]["epochs"]:
        nets = f"{len(NETWORK['normalise'])} convolutional forecasters"
        maps = f"what validation rows choose of {maps} and {nets}"
    else:
        maps = f"the mean of {maps}"
    return (
        f"{maps}, {context} rows of history{seasons} to {horizon} ahead,"
        f" {'with' if len(levels) > 1 else 'without'} intervals"
    )


def train_rows(rows: int) -> int:
    """Return how many of a series' rows train, as `split_by_time` counts them.

    A row more can be one less: of 27 rows train 17, of 28 16.
    """
    return rows - 2 * round(rows * SHARE)


def fits(lengths: Sequence[int], context: int, horizon: int, least: int) -> bool:
    """Return whether series of these lengths have `least` training windows in each, and as many
    validation windows in all; where they have, longer ones have, too.
    """
    held = [round(rows * SHARE) for rows in lengths]
    windows = sum(rows - horizon + 1 for rows in held)
    rows = min(min(train_rows(n), train_rows(n + 1)) for n in lengths)
    trained = rows - context - horizon + 1
    return min(held) >= horizon and windows >= least and trained >= least


def choose_window(seen: SeriesFile, season: int, horizon: int | None) -> tuple[int, int]:
    """Return context and horizon in rows; StageError where the series are too short for them.

    Where the rows are too few for an interval at the horizon asked for, or at one of KEPT rows,
    there is none.
    """
    lengths = seen.lengths
    wanted = horizon or default_horizon(season)
    kept = horizon or min(wanted, KEPT)
    least, possible = WINDOWS, possible_horizons(lengths, wanted, WINDOWS)
    if not possible or possible[-1] < kept:
        least, possible = FEW, possible_horizons(lengths, kept, FEW)
    if not possible or (horizon and possible[-1] < horizon):
        refuse_short(seen, horizon or 1, possible[-1] if possible else None)
    horizon = possible[-1]
    rows = train_rows(min(lengths)) - horizon
    # Not more than half of the rows, so that there are as many windows.
    longest = max(LEAST_CONTEXT, rows // 2)
    while not fits(lengths, longest, horizon, least):
        longest -= 1
    if season > longest and fits(lengths, season, horizon, least):
        longest = season  # else neither the network nor seasonal naive would see one
    return choose_context(seen.step, season, horizon, longest), horizon


def default_horizon(season: int) -> int:
    return season if season > 1 else NO_SEASON


def possible_horizons(lengths: Sequence[int], wanted: int, least: int) -> list[int]:
    """Return the horizons up to `wanted` that leave series of these lengths `least` windows."""
    return [h for h in range(1, wanted + 1) if fits(lengths, LEAST_CONTEXT, h, least)]


def choose_context(step: Step, season: int, horizon: int, longest: int) -> int:
    """Return the rows of history: two seasons, and of rows within a day a week.

    longest: half of the rows that train. A week is at most half of it: maps of a week are worse
    than seasonal naive where 19 days train (docs/your-data.md).
    """
    wanted = max(2 * season, 2 * horizon, SHORT)
    week = min(WEEK // step.count, LONG)
    if step.unit == "seconds" and step.count < DAY and 2 * week <= longest:
        wanted = max(wanted, week)
    wanted = math.ceil(wanted / season) * season
    context = min(wanted, longest)
    return context - context % season if context >= season else context


def refuse_short(seen: SeriesFile, horizon: int, possible: int | None) -> None:
    """Raise StageError with the rows that the horizon needs, and the longest that there is."""
    short = min(seen.table.series, key=lambda one: len(one.values))
    needed = next(
        rows for rows in range(LEAST_CONTEXT, 10**9) if fits([rows], LEAST_CONTEXT, horizon, FEW)
    )
    where = f"series {short.id!r} of {seen.path.name}" if seen.id else seen.path.name
    splits = f"{percent(SHARE)} each are validation and test, and {LEAST_CONTEXT} history"
    cure = f"ask for --horizon {possible}, the longest" if possible else "give a longer file"
    raise StageError(
        f"new: {where} has {len(short.values)} rows, and a horizon of {horizon} needs {needed}, of"
        f" which {splits}; {cure}"
    )


def choose_recipe(name: str, seen: SeriesFile, context: int, horizon: int) -> dict[str, Any]:
    """Return a recipe whose cost does not grow with the file: large ones have windows left out."""
    trained = sum(train_rows(rows) - context - horizon + 1 for rows in seen.lengths)
    tested = sum(round(rows * SHARE) - horizon + 1 for rows in seen.lengths)
    columns = len(seen.table.columns)  # each is a row of a batch by itself
    strides = {"train_stride": -(-trained * columns // TRAINED), "stride": -(-tested // TESTED)}
    data = {"set": name, "context": context, "horizon": horizon}
    data |= {key: value for key, value in strides.items() if value > 1}
    # Too few windows to train a network, or to choose it: as many validate as test.
    if trained < MANY or tested < ensemble.LEAST * horizon:
        net, train = {"normalise": [], "maps": MAPS}, {"epochs": 0, "loss": "pinball"} | SOLVED
        return {"arch": "ensemble", "data": data, "net": net, "train": train}
    windows = max(1, trained // strides["train_stride"])
    batch = max(16, 64 // columns)
    epochs = STEPS * batch // windows
    return {
        "arch": "ensemble",
        "data": data,
        "net": {"look_backs": [context]} | NETWORK | {"maps": MAPS, "choose": "greedy"},
        "train": {
            "epochs": min(max(epochs, EPOCHS[0]), EPOCHS[1]),
            "batch": batch,
            "lr": 0.003,
            "schedule": "cosine",
            "loss": "pinball",
            "aux_weight": 1.0,
        }
        | SOLVED,
    }
