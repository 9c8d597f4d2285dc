"""Where a time axis has its ticks, and their texts: years, months, days, hours or row numbers."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from convline.timeseries.timestamps import Times, to_local

# Distances between ticks in a unit of numpy's datetime64, the closest first.
DISTANCES = (
    *(("s", count) for count in (1, 5, 15, 30)),
    *(("m", count) for count in (1, 5, 15, 30)),
    *(("h", count) for count in (1, 3, 6, 12)),
    *(("D", count) for count in (1, 2, 4, 7, 14)),
    *(("M", count) for count in (1, 3, 6)),
    *(("Y", count) for count in (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000)),
)
INDEX_DISTANCES = tuple(("index", digit * 10**power) for power in range(18) for digit in (1, 2, 5))
DAY = 86400
LONGEST = {"s": 1, "m": 60, "h": 3600, "D": DAY, "M": 31 * DAY, "Y": 366 * DAY}  # of units, seconds
# Added to numpy's count since 1970: multiples of ten years are decades, weeks start on Mondays.
OFFSETS = {"Y": 1970, "D": 3}
MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
DATE_WIDTH, SPACE = 6, 3  # characters: of a tick's text, and at least between two of them


class Tick(NamedTuple):
    """A tick at a row: "Apr" of "1958"; the context is empty if it is that of the tick before, and
    without a year that is the one before."""

    row: int
    text: str
    context: str


def time_ticks(times: Times, offset: str, width: float) -> list[Tick]:
    """Return ticks at rows where a new period begins, as close as they fit.

    times: at least two rising times. offset: the UTC offset in which they are written. width: of
    the axis in characters.
    """
    is_index = times.dtype.kind == "i"
    local = to_local(times, offset)
    longest = max(len(str(time)) for time in local[[0, -1]]) if is_index else DATE_WIDTH
    most = max(2, int(width / (longest + SPACE)))
    step = np.diff(times).min().astype(np.int64)
    for unit, count in INDEX_DISTANCES if is_index else DISTANCES:
        rows = _period_starts(local, unit, count)
        if len(rows) <= most and count * LONGEST.get(unit, step) >= step:
            break  # a distance below the step would put hours on an axis of days
    ticks, before = [], ""
    for row in rows.tolist() or [0]:
        text, context = _describe(str(local[row]), unit)
        same_year = context[-5:] == before[-5:]
        new = context.removesuffix(before[-5:]) if same_year else context
        ticks.append(Tick(row, text, "" if context == before else new))
        before = context
    return ticks


def _period_starts(times: Times, unit: str, count: int) -> npt.NDArray[np.intp]:
    """Return the rows that are the first ones in a period of `count` units."""
    before = times[:1] - (times[1] - times[0])  # so that the first row may begin a period
    all_times = np.concatenate([before, times])
    if unit != "index":
        all_times = all_times.astype(f"datetime64[{unit}]").astype(np.int64) + OFFSETS.get(unit, 0)
    return np.flatnonzero(np.diff(all_times // count))


def _describe(time: str, unit: str) -> tuple[str, str]:
    """Return the text of a tick and its context: ("Apr", "1958"), ("06:00", "3 Apr 1958").

    time: a number, or 1958-04-03T06:00:00.
    """
    if unit == "index":
        return time, ""
    date, clock = time.split("T")
    year, month, day = date.rsplit("-", 2)
    month_name = MONTHS[int(month) - 1]
    if unit in "YM":
        return (year, "") if unit == "Y" else (month_name, year)
    if unit == "D":
        return f"{int(day)} {month_name}", year
    return clock[: 8 if unit == "s" else 5], f"{int(day)} {month_name} {year}"
