"""Times of a series: parsing, the step between rows, the times that follow.

A column of times is of one of three kinds, decided from all its cells. They are dates in digits if
every cell is one: `YYYYMM`, `YYYYMMDD`, `YYYYMMDDHH`, or with minutes or seconds. They are whole
numbers (years, counters) if every cell is one. Else they are ISO 8601 dates and times, or
`YYYY-MM`. Times with an offset from UTC are kept in UTC, and written with the offset that all of
them have, or with Z if it changes.

Parsing is written by hand around `datetime.fromisoformat`: numpy and pyarrow take neither dates in
digits nor offsets as they are needed here, and numpy 2.4 ends the process at a date that does not
exist among more than 500.
"""

import re
from datetime import UTC, datetime
from typing import Any

import numpy as np
import numpy.typing as npt

from convline.model_file.document import Step

Times = npt.NDArray[Any]  # datetime64[s] or int64

WHOLE = re.compile(r"[+-]?\d{1,18}(\.0*)?$")
MONTH = re.compile(r"\d{4}-\d{2}$")
# The offset behind a time of day.
OFFSET = re.compile(r"[Tt ]\d\d(?::?\d\d(?::?\d\d(?:[.,]\d+)?)?)?(Z|z|[+-]\d\d(?::?\d\d)?)$")
# How many digits may be a date (to the month, day, hour, minute, second), and in which years.
YEARS = {6: (1600, 2200), 8: (1, 9999), 10: (1800, 2200), 12: (1800, 2200), 14: (1800, 2200)}
SHORTEST_MONTH = np.timedelta64(28, "D")
LAST = np.datetime64("9999-12-31T23:59:59")
LARGEST = 2**62  # of whole numbers as times: the difference of any two fits in 64 bits


def parse_times(cells: list[str]) -> tuple[Times, tuple[int, str] | None]:
    """Return (times, None), or for the first cell that is no time (times before, (row, reason))."""
    if "" in cells:
        return _as_array([]), (cells.index(""), "expected a time, got a missing value")
    if all(map(WHOLE.match, cells)):
        digits = [cell.split(".")[0] for cell in cells]
        dates = _parse_digits(digits)
        return np.array([int(cell) for cell in digits], np.int64) if dates is None else dates, None
    stamps: list[datetime] = []
    first_has_offset = None
    for row, cell in enumerate(cells):
        expected = ""
        try:
            stamp = datetime.fromisoformat(f"{cell}-01" if MONTH.match(cell) else cell)
            has_offset = stamp.tzinfo is not None
            if has_offset:
                stamp = stamp.astimezone(UTC).replace(tzinfo=None)
        except (ValueError, OverflowError):
            expected = "a time such as 2024-01-31 or 2024-01-31T12:00"
        else:
            if row == 0:
                first_has_offset = has_offset
            if has_offset and not OFFSET.search(cell):  # forecasts could not be written with it
                expected = "a time with an offset such as 2024-01-31T12:00+02:00"
            elif stamp.microsecond:
                expected = "whole seconds"
            elif has_offset != first_has_offset:
                expected = "all times with an offset or none"
        if expected:
            return _as_array(stamps), (row, f"expected {expected}, got {cell!r}")
        stamps.append(stamp)
    return _as_array(stamps), None


def _as_array(stamps: list[datetime]) -> Times:
    """Return datetime64[s] (rows,), by way of text, which numpy reads faster than datetimes."""
    return np.array([stamp.isoformat() for stamp in stamps], "datetime64[s]")


def integer_times(numbers: npt.NDArray[np.int64]) -> Times:
    """Return what `parse_times` returns for whole numbers (rows,) written as text."""
    ends = str(numbers.min()), str(numbers.max())
    if not {*map(len, ends)} <= {*YEARS} or not _is_date(str(numbers[0])):
        return numbers  # most counters are told by this alone
    different, codes = np.unique(numbers, return_inverse=True)
    dates = _parse_digits(different.astype(str).tolist())
    return numbers if dates is None else dates[codes]


def _parse_digits(cells: list[str]) -> Times | None:
    """Return datetime64[s] (rows,) of cells of digits if all are dates of one width, else None."""
    if len({*map(len, cells)}) != 1 or not all(map(_is_date, cells)):
        return None
    return _as_array([datetime.fromisoformat(_to_iso(cell)) for cell in cells])


def _is_date(cell: str) -> bool:
    """Return whether digits are a date, such as 202401 or 20240131."""
    if len(cell) not in YEARS or not cell.isdecimal():
        return False
    first, last = YEARS[len(cell)]
    try:
        return first <= datetime.fromisoformat(_to_iso(cell)).year <= last
    except ValueError:
        return False


def _to_iso(digits: str) -> str:
    """Return the digits of a date as ISO 8601: 2024-01-01 of 202401, 20240131T12 of 2024013112."""
    if len(digits) == 6:
        return f"{digits[:4]}-{digits[4:]}-01"
    return f"{digits[:8]}T{digits[8:]}".rstrip("T")


def find_period_jump(numbers: npt.NDArray[np.int64], step: int, least: int) -> int | None:
    """Return the first row behind a jump of rising whole numbers that seem to be dates, or None.

    They seem to be if most jumps, and at least `least` of them, lead to one small number of two or
    three last digits that no other row has, or two of them to one of the last digit: 20244 to 20251
    (quarters), 2412 to 2501 (months), 2024366 to 2025001 (days of the year).
    """
    jumps = np.flatnonzero(np.diff(numbers) != step) + 1
    for digits in (3, 2, 1):
        rest, enough = numbers % 10**digits, max(least if digits > 1 else 2, len(jumps) / 2)
        ends = np.unique(rest[jumps][rest[jumps] <= step]) if step < 10**digits / 2 else ()
        for small in ends:
            rows = np.flatnonzero(rest[1:] == small) + 1
            if len(rows) >= enough and np.isin(rows, jumps).all():
                return int(rows[0])
    return None


def positions(times: Times, unit: str, offset: str = "") -> npt.NDArray[np.int64]:
    """Return times as whole numbers of the unit: seconds or months since 1970, or the index itself.

    offset: the UTC offset of the clocks by which months are counted, here and below; `times`
    themselves are in UTC.
    """
    counted = to_local(times, offset).astype("datetime64[M]") if unit == "months" else times
    return np.asarray(counted.astype(np.int64))


def find_step(times: Times, offset: str = "") -> Step:
    """Return the most common difference of at least two rising times, of several the smallest.

    It is in months if every time has the same day and time of day, or every one is on the last day
    of its month.
    """
    gaps, is_index = np.diff(times), times.dtype.kind == "i"
    if (is_index or gaps[0] < SHORTEST_MONTH) and (gaps == gaps[0]).all():  # so are most series
        return Step("index" if is_index else "seconds", int(gaps[0].astype(np.int64)))
    is_monthly = not is_index and _are_monthly(to_local(times, offset))
    unit = "index" if is_index else "months" if is_monthly else "seconds"
    steps, counts = np.unique(np.diff(positions(times, unit, offset)), return_counts=True)
    return Step(unit, int(steps[counts.argmax()]))


def _are_monthly(times: Times) -> bool:
    """Return whether times are whole months apart, each at one time of one day of its month.

    In a month without that day it is the last one.
    """
    if np.diff(times).min() < SHORTEST_MONTH:
        return False
    clock = times - times.astype("datetime64[D]").astype(times.dtype)
    if not ((np.diff(positions(times, "months")) > 0).all() and (clock == clock[0]).all()):
        return False
    days, lengths = _days(times), _lengths(times.astype("datetime64[M]"))
    return bool((days == np.minimum(days.max(), lengths)).all())


def month_day(times: Times, offset: str = "") -> int:
    """Return the day on which monthly times fall in long enough months; 31 for last days."""
    if times.dtype.kind == "i" or not len(times):
        return 31
    times = to_local(times, offset)
    days = _days(times)
    return 31 if (days == _lengths(times.astype("datetime64[M]"))).all() else int(days.max())


def _days(times: Times) -> npt.NDArray[np.int64]:
    """Return the day of the month, from 1."""
    first = times.astype("datetime64[M]").astype("datetime64[D]")
    return np.asarray(1 + (times.astype("datetime64[D]") - first).astype(np.int64))


def _lengths(months: Times) -> npt.NDArray[np.int64]:
    """Return the number of days of months."""
    days = (months + 1).astype("datetime64[D]") - months.astype("datetime64[D]")
    return np.asarray(days.astype(np.int64))


def are_months_apart(times: Times, later: Times, offset: str = "") -> bool:
    """Return whether a time (1,) continues monthly times (T,), of which there may be none."""
    return not len(times) or _are_monthly(to_local(np.concatenate([times, later]), offset))


def future_times(
    last: Any, step: Step, n: int, *, day: int | None = None, offset: str = ""
) -> Times:
    """Return the n times after `last`: int64 (n,) if it is a whole number, else datetime64[s].

    Months fall on `day`, by default that of `last`, cut to the length of the month (31 January, 29
    February, 31 March); 31 is the last day of each month.
    """
    ahead = step.count * np.arange(1, n + 1, dtype=np.int64)
    if step.unit == "index":
        return np.asarray(ahead + int(last))
    stamp = np.datetime64(last, "s")
    if step.unit == "seconds":
        return np.asarray(stamp + ahead.astype("timedelta64[s]"))
    stamp = to_local(stamp, offset)
    months = stamp.astype("datetime64[M]") + ahead.astype("timedelta64[M]")
    day = int(_days(np.array([stamp]))[0]) if day is None else day
    dates = months.astype("datetime64[D]") + (np.minimum(day, _lengths(months)) - 1)
    clock = stamp - stamp.astype("datetime64[D]").astype("datetime64[s]")
    return np.asarray(dates.astype("datetime64[s]") + clock - _seconds(offset))


def has_times_after(last: Any, step: Step, n: int) -> bool:
    """Return whether the n times after `last` fit in 64 bits and in years of four digits."""
    if step.unit == "index":
        return int(last) + n * step.count < 2**63
    start, end = positions(np.array([last, LAST], "datetime64[s]"), step.unit).tolist()
    return bool(start + n * step.count <= end)


def common_offset(cells: list[str]) -> str:
    """Return the UTC offset of written times, such as "+02:00"; "Z" for several, "" for none."""
    if not cells or not OFFSET.search(cells[0]):
        return ""
    offsets = find_offsets(cells)
    if len(offsets) > 1 or "Z" in offsets:
        return "Z"
    digits = offsets.pop().replace(":", "")
    return f"{digits[:3]}:{digits[3:] or '00'}"


def find_offsets(cells: list[str]) -> set[str]:
    """Return the different UTC offsets as they are written."""
    return {match.group(1).upper() for cell in cells if (match := OFFSET.search(cell))}


def are_dates(times: Times) -> bool:
    """Return whether every time is a midnight."""
    return times.dtype.kind != "i" and bool((times.astype("datetime64[D]") == times).all())


def format_times(times: Times, dates: bool | None = None, offset: str = "") -> list[str]:
    """Return times as text: whole numbers, dates, or dates with seconds.

    dates: whether dates stand alone; None decides by whether all are midnights. offset: that of
    `common_offset`; times are then written in it, and never as dates alone.
    """
    if times.dtype.kind == "i":
        return [str(time) for time in times.tolist()]
    if offset:
        texts = np.datetime_as_string(to_local(times, offset), "s").tolist()
        return [text + offset for text in texts]
    short = are_dates(times) if dates is None else dates
    return [*np.datetime_as_string(times, "D" if short else "s").tolist()]


def to_local(times: Any, offset: str) -> Any:
    """Return times in UTC as clocks of an offset show them; whole numbers stay."""
    return times + _seconds(offset) if offset else times


def _seconds(offset: str) -> np.timedelta64:
    """Return what clocks of an offset show beyond UTC: of "+02:00" 7200 seconds."""
    if offset in ("", "Z"):
        return np.timedelta64(0, "s")
    hours, minutes = int(offset[1:3]), int(offset[4:6])
    return np.timedelta64((-1 if offset[0] == "-" else 1) * (3600 * hours + 60 * minutes), "s")
