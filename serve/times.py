"""Time stamps of a series: parsing, the step between rows, the stamps that follow.

Three kinds of column, decided from all its cells: `YYYYMMDD` where every cell is such a date; whole numbers (years,
counters) otherwise; else ISO 8601 dates and times, or `YYYY-MM`. Stamps with an offset become UTC.
"""

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np
import numpy.typing as npt

Times = npt.NDArray[Any]  # datetime64[s] or int64

WHOLE = re.compile(r"[+-]?\d{1,18}(\.0*)?$")
MONTH = re.compile(r"\d{4}-\d{2}$")
COMPACT = re.compile(r"\d{8}$")
MARKS = {4: b"-", 7: b"-", 10: b"T ", 13: b":", 16: b":"}  # between the digits of 2024-01-31T12:00:00
MANY = 256  # cells from which it pays to take them together
SHORTEST_MONTH = np.timedelta64(28, "D")
FIRST = np.datetime64("0001-01-01")  # of Python's calendar


@dataclass(frozen=True)
class Step:
    """The time from one row to the next: `count` seconds, calendar months, or units of a whole-number index."""

    unit: str  # "seconds" | "months" | "index"
    count: int

    def to_dict(self) -> dict[str, Any]:
        return {"unit": self.unit, "count": self.count}

    @classmethod
    def from_dict(cls, document: dict[str, Any]) -> "Step":
        return cls(document["unit"], document["count"])

    def __str__(self) -> str:
        return f"{self.count} {self.unit}" if self.unit != "index" else f"{self.count} (whole numbers)"


def parse_times(cells: list[str]) -> tuple[Times, tuple[int, str] | None]:
    """Return (times, None), or (what was parsed so far, (row, reason)) at the first cell that is no time."""
    if _are_whole(cells):
        return np.array([int(cell.split(".")[0]) for cell in cells], dtype=np.int64), None
    if len(cells) >= MANY and (plain := _plain(cells)) is not None:
        return plain, None
    stamps: list[datetime] = []
    first_aware = None
    for row, cell in enumerate(cells):
        try:
            stamp = datetime.fromisoformat(cell + "-01" if MONTH.match(cell) else cell)
            aware = stamp.tzinfo is not None
            stamp = stamp.astimezone(UTC).replace(tzinfo=None) if aware else stamp
        except (ValueError, OverflowError):
            reason = f"expected a time such as 2024-01-31 or 2024-01-31T12:00, got {cell!r}"
            return np.array(stamps, dtype="datetime64[s]"), (row, reason)
        if first_aware is None:
            first_aware = aware
        if stamp.microsecond or aware != first_aware:
            expected = "whole seconds" if stamp.microsecond else "all times with an offset or none"
            return np.array(stamps, dtype="datetime64[s]"), (row, f"expected {expected}, got {cell!r}")
        stamps.append(stamp)
    return np.array(stamps, dtype="datetime64[s]"), None


def coded_times(codes: npt.NDArray[np.int64], words: list[str]) -> tuple[Times, tuple[int, str] | None]:
    """Return what `parse_times` returns for a column of text as `serve.coded` gives it."""
    times, trouble = parse_times(words)
    if trouble:
        return times, (int((codes == trouble[0]).argmax()), trouble[1])
    return times[codes], None


def _plain(cells: list[str]) -> Times | None:
    """Return the stamps of cells that are all written like the first: a date, or with minutes or seconds; else None."""
    width, text = len(cells[0]), "".join(cells)
    if width not in (10, 16, 19) or not text.isascii() or {*map(len, cells)} != {width}:
        return None
    chars = np.frombuffer(text.encode(), np.uint8).reshape(-1, width)
    if not all(np.isin(chars[:, k], [*MARKS.get(k, b"0123456789")]).all() for k in range(width)):
        return None
    try:
        stamps = chars.view(f"S{width}")[:, 0].astype("datetime64[s]")
    except ValueError:
        return None
    return stamps if stamps.min() >= FIRST else None


def _are_whole(cells: list[str]) -> bool:
    dates = all(COMPACT.match(cell) and _is_date(cell) for cell in cells)
    return not dates and all(WHOLE.match(cell) for cell in cells)


def _is_date(cell: str) -> bool:
    try:
        datetime.fromisoformat(cell)
    except ValueError:
        return False
    return True


def positions(times: Times, unit: str) -> npt.NDArray[np.int64]:
    """Return times as whole numbers of the unit: seconds or months since 1970, or the index itself."""
    if unit == "months":
        return times.astype("datetime64[M]").astype(np.int64)
    return times.astype(np.int64)


def base_step(times: Times) -> Step:
    """Return the most common difference of at least two rising times, the smallest of equally common ones.

    Months where every stamp has the same day and time of day, or every stamp is the last day of its month.
    """
    gaps, index = np.diff(times), times.dtype.kind == "i"
    if (index or gaps[0] < SHORTEST_MONTH) and (gaps == gaps[0]).all():  # most series are told by this alone
        return Step("index" if index else "seconds", int(gaps[0].astype(np.int64)))
    unit = "index" if index else "months" if _are_monthly(times) else "seconds"
    found = np.diff(positions(times, unit))
    steps, counts = np.unique(found, return_counts=True)
    return Step(unit, int(steps[counts.argmax()]))


def _are_monthly(times: Times) -> bool:
    if np.diff(times).min() < SHORTEST_MONTH:
        return False
    within = times - times.astype("datetime64[M]").astype(times.dtype)
    clock = times - times.astype("datetime64[D]").astype(times.dtype)
    months = positions(times, "months")
    if not (np.diff(months) > 0).all():
        return False
    return bool((within == within[0]).all()) or (are_month_ends(times) and bool((clock == clock[0]).all()))


def are_month_ends(times: Times) -> bool:
    """True where every stamp lies on the last day of its month."""
    if times.dtype.kind == "i":
        return False
    day = np.timedelta64(1, "D")
    return all(
        ((part + day).astype("datetime64[M]") > part.astype("datetime64[M]")).all() for part in (times[:2], times)
    )


def future_times(last: Any, step: Step, n: int, *, month_end: bool = False) -> Times:
    """Return the n times after `last` (a datetime64, or a whole number): datetime64[s] (n,) or int64 (n,).

    Months keep the day, cut to the length of the month (31 January, 29 February, 31 March), or take the last day of
    each month where `month_end`.
    """
    ahead = step.count * np.arange(1, n + 1, dtype=np.int64)
    if step.unit == "index":
        return np.asarray(ahead + int(last))
    stamp = np.datetime64(last, "s")
    if step.unit == "seconds":
        return np.asarray(stamp + ahead.astype("timedelta64[s]"))
    month = stamp.astype("datetime64[M]")
    months = month + ahead.astype("timedelta64[M]")
    lengths = ((months + 1).astype("datetime64[D]") - months.astype("datetime64[D]")).astype(np.int64)
    day = (stamp.astype("datetime64[D]") - month.astype("datetime64[D]")).astype(np.int64)
    days = lengths - 1 if month_end else np.minimum(day, lengths - 1)
    clock = stamp - stamp.astype("datetime64[D]").astype("datetime64[s]")
    dates = months.astype("datetime64[D]") + days.astype("timedelta64[D]")
    return np.asarray(dates.astype("datetime64[s]") + clock)


def are_dates(times: Times) -> bool:
    """True where every stamp is a midnight."""
    return times.dtype.kind != "i" and bool((times.astype("datetime64[D]") == times).all())


def format_times(times: Times, dates: bool | None = None) -> list[str]:
    """Return times as text: whole numbers, dates where all are midnights (or `dates` says so), else with seconds."""
    if times.dtype.kind == "i":
        return [str(time) for time in times.tolist()]
    short = are_dates(times) if dates is None else dates
    texts: list[str] = np.datetime_as_string(times, "D" if short else "s").tolist()
    return texts
