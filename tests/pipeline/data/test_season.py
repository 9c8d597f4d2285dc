"""The season of series is taken from the step between rows, on real calendars."""

import sys
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from convline.model_file.document import Step
from recipes import SERIES_RECIPE, SETS

from pipeline.core.errors import StageError
from pipeline.data import __main__ as data_main
from pipeline.data import prepare, season
from pipeline.evaluate import naive_baselines
from pipeline.params.schema import EntryRecipe

Resolve = Callable[..., EntryRecipe]
MINUTE, HOUR, DAY, WEEK = 60, 3600, 86_400, 604_800


@pytest.mark.parametrize(
    ("step", "expected"),
    [
        (Step("seconds", 1), 60),
        (Step("seconds", MINUTE), 60),
        (Step("seconds", 10 * MINUTE), 144),
        (Step("seconds", 15 * MINUTE), 96),
        (Step("seconds", 30 * MINUTE), 48),
        (Step("seconds", HOUR), 24),
        (Step("seconds", DAY), 7),
        (Step("seconds", WEEK), 52),
        (Step("months", 1), 12),
        (Step("months", 3), 4),
        (Step("months", 12), 1),
        (Step("seconds", 7 * MINUTE), 1),  # no whole part of a day
        (Step("seconds", 365 * DAY), 1),
        (Step("index", 1), 1),
    ],
)
def test_the_season_of_a_step(step: Step, expected: int) -> None:
    """By the tables of Hyndman 2014 and Godahewa et al. 2021, which the module cites."""
    assert season.calendar_season(step)[0] == expected


def months(n: int, every: int = 1, last: bool = False) -> list[str]:
    """Return n dates `every` so many months, on the first or the last day of each."""
    firsts = [date(2000 + k * every // 12, 1 + k * every % 12, 1) for k in range(n)]
    if last:
        firsts = [(day + timedelta(days=31)).replace(day=1) - timedelta(days=1) for day in firsts]
    return [str(day) for day in firsts]


def berlin(n: int) -> list[str]:
    """Return n hours over the change of clocks of 27 March 2022, in local time with its offset."""
    start = datetime(2022, 3, 25, tzinfo=UTC)
    change = datetime(2022, 3, 27, 1, tzinfo=UTC)
    stamps = []
    for k in range(n):
        utc = start + timedelta(hours=k)
        ahead = 2 if utc >= change else 1
        local = (utc + timedelta(hours=ahead)).replace(tzinfo=None)
        stamps.append(f"{local.isoformat()}+0{ahead}:00")
    return stamps


CALENDARS = {
    "months, 28 to 31 days": (months(80), 12),
    "last days of months": (months(80, last=True), 12),
    "months without a day": ([day[:7] for day in months(80)], 12),
    "quarters": (months(60, every=3), 4),
    "hours over a change of clocks": (berlin(120), 24),
    "days": ([str(date(2024, 1, 1) + timedelta(days=k)) for k in range(60)], 7),
    "weeks": ([str(date(2020, 1, 5) + timedelta(weeks=k)) for k in range(160)], 52),
    "years": ([f"{1950 + k}-01-01" for k in range(60)], 1),
    "years as numbers": ([str(1950 + k) for k in range(60)], 1),
    "no times": (None, 1),
    "months, less than a year of training": (months(18), 1),
}


def write_csv(folder: Path, times: list[str] | None, n: int = 60) -> Path:
    rng = np.random.default_rng(0)
    times = times if times is not None else [""] * n
    lines = [f"{time},{rng.normal():.3f}" for time in times]
    text = "\n".join(["t,y", *lines]) if times[0] else "\n".join(["y", *(x[1:] for x in lines)])
    (folder / "mine.csv").write_text(text + "\n")
    return folder / "mine.csv"


def recipe_of(resolved: Resolve, path: Path, times: list[str] | None, **options: Any) -> Any:
    sets = {"mine": {"source": "csv", "path": str(path), "licence": "own", **options}}
    if times is not None:
        sets["mine"]["time"] = "t"
    return resolved({**SERIES_RECIPE, "data": {"set": "mine", "context": 5, "horizon": 2}}, sets)


@pytest.mark.parametrize("name", CALENDARS)
def test_the_season_of_a_file(name: str, resolved: Resolve, tmp_path: Path) -> None:
    """By the calendar. If the season is 1, a note says so and names the key that sets it."""
    times, expected = CALENDARS[name]
    path = write_csv(tmp_path, times)
    about = prepare.make(recipe_of(resolved, path, times).data)[0].about
    assert about["season"] == expected, about["season_from"]
    note = "season is 1: seasonal naive equals the last value; set data.mine.season"
    assert (note in about["notes"]) == (expected == 1)


def test_a_season_that_the_recipe_gives_is_kept(resolved: Resolve, tmp_path: Path) -> None:
    """The recipe's season is kept; a season of 1 in the recipe needs no warning."""
    times = months(80)
    path = write_csv(tmp_path, times)
    for given in (5, 1):
        about = prepare.make(recipe_of(resolved, path, times, season=given).data)[0].about
        assert (about["season"], about["notes"]) == (given, [])
        assert about["season_from"] == "as data.mine.season says"
    waves = prepare.make(resolved(SERIES_RECIPE, SETS).data)[0].about
    assert waves["season"] == SETS["waves"]["season"]
    with pytest.raises(StageError, match="expected season below the 56 rows of training, got 56"):
        prepare.make(recipe_of(resolved, path, times, season=56).data)


def test_a_season_longer_than_the_context_is_noted(resolved: Resolve, tmp_path: Path) -> None:
    """Seasonal naive repeats the 5 rows of the context then, and not the 12 of a year."""
    times = months(80)
    path = write_csv(tmp_path, times)
    about = prepare.make(recipe_of(resolved, path, times).data)[0].about
    note = "a season has 12 rows, the context only 5: seasonal naive repeats the context; give a"
    assert about["notes"][0].startswith(note)


def test_seasonal_naive_is_not_the_last_value(resolved: Resolve, tmp_path: Path) -> None:
    """A monthly series that repeats each year: with the season of its months the seasonal naive
    forecast is exact; with season 1, the default before, it was as bad as the last value.
    """
    times = months(120)
    text = "".join(f"{time},{np.sin(k * np.pi / 6):.6f}\n" for k, time in enumerate(times))
    (tmp_path / "mine.csv").write_text("t,y\n" + text)
    sets = {"mine": {"source": "csv", "path": str(tmp_path / "mine.csv"), "time": "t"}}
    sets["mine"]["licence"] = "own"
    recipe = {**SERIES_RECIPE, "data": {"set": "mine", "context": 24, "horizon": 3}}
    source, _ = prepare.make(resolved(recipe, sets).data)
    history, target = source.windows("test")
    errors = {
        name: float(np.abs(forecast - target).max())
        for name, forecast in naive_baselines.baseline_forecasts(history, source, 3)
    }
    assert errors["seasonal naive"] < 1e-5 and errors["last value"] > 0.5


def test_the_stage_says_the_season_and_why(
    resolved: Resolve, workspace: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    times = months(80)
    recipe = recipe_of(resolved, write_csv(workspace, times), times)
    (workspace / "out/params/mine").mkdir(parents=True)
    (workspace / "out/params/mine/data.json").write_text(recipe.model_dump_json(include={"data"}))
    monkeypatch.setattr(sys, "argv", ["data", "mine"])
    data_main.main()
    assert "season 12: a year, as there is a row every month\n" in capsys.readouterr().err
