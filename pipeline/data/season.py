"""The season of series: how many rows one period has, taken from the step between rows.

The season counts for the seasonal naive forecast, for MASE, and for seasonal forms of ETS and
ARIMA. Its cycle is the shortest that is usual for the step. Sources: R. J. Hyndman 2014, "Seasonal
periods", robjhyndman.com/hyndsight/seasonal-periods (a second 60, a minute 60, half an hour 48, an
hour 24, a day 7, a week 52, a month 12, a quarter 4, a year 1); for the minutes between (10 and 15
minutes: 144 and 96) Godahewa et al. 2021, "Monash Time Series Forecasting Archive",
arXiv:2105.06643, whose code takes the day.
"""

from __future__ import annotations

from typing import Any

from convline.model_file.document import Step

HOUR, DAY, WEEK = 3600, 24 * 3600, 7 * 24 * 3600
# The longest step, and the cycle of steps up to it: both in seconds, and the cycle's name.
CYCLES = (
    (1, 60, "a minute"),
    (60, HOUR, "an hour"),
    (DAY // 2, DAY, "a day"),
    (DAY, WEEK, "a week"),
    (26 * WEEK, 52 * WEEK, "a year"),  # 365.25 / 7 = 52.18 weeks, in whole rows 52
)


def calendar_season(step: Step) -> tuple[int, str]:
    """Return the rows of a season of the calendar and its name: (24, "a day") of a row an hour.

    (1, "") where the step is no whole part of the cycle, is a year or more, or is no time at all.
    """
    if step.unit == "months":
        cycles: tuple[tuple[int, int, str], ...] = ((6, 12, "a year"),)
    else:
        cycles = CYCLES if step.unit == "seconds" else ()
    for longest, cycle, name in cycles:
        if step.count <= longest:
            return (cycle // step.count, name) if cycle % step.count == 0 else (1, "")
    return 1, ""


def resolve_season(name: str, given: int | None, step: Step, rows: int) -> dict[str, Any]:
    """Return {"season": rows of a season, "season_from": the reason in words}.

    name: of the dataset. given: of its recipe; None takes the season from the step. rows: of the
    shortest series of training, which must be longer than a season from the step.
    """
    if given is not None:
        return {"season": given, "season_from": f"as data.{name}.season says"}
    season, cycle = calendar_season(step)
    if season >= rows:
        reason = f"{cycle} has {season} rows, and the shortest series of training has only {rows}"
        return {"season": 1, "season_from": reason}
    if season > 1:
        reason = f"{cycle}, as there is a row every {describe_step(step)}"
    elif step.unit == "index":
        reason = "the rows have no dates"
    else:
        reason = f"no cycle of the calendar is usual for a row every {describe_step(step)}"
    return {"season": season, "season_from": reason}


def describe_step(step: Step) -> str:
    """Return the step in words, in the largest unit that divides it: "15 minutes", "month"."""
    units = {"months": ((12, "year"), (1, "month")), "index": ((1, "row"),)}
    seconds = ((WEEK, "week"), (DAY, "day"), (HOUR, "hour"), (60, "minute"), (1, "second"))
    size, name = next(
        (size, name) for size, name in units.get(step.unit, seconds) if step.count % size == 0
    )
    count = step.count // size
    return name if count == 1 else f"{count} {name}s"
