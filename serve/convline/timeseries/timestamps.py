"""Time stamps of a series: parsing, the step between rows, the stamps that follow.

Three kinds of column, decided from all its cells: `YYYYMM`, `YYYYMMDD` or `YYYYMMDDHH`, with minutes or seconds, where
every cell is such a date; whole numbers (years, counters) otherwise; else ISO 8601 dates and times, or `YYYY-MM`.
Stamps with an offset are counted in UTC, and written with the offset that all of them have, or with Z where it changes.
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
OFFSET = re.compile(
    r"[Tt ]\d\d(?::?\d\d(?::?\d\d(?:[.,]\d+)?)?)?(Z|z|[+-]\d\d(?::?\d\d)?)$"
)  # behind a time
WIDTHS = (
    6,
    8,
    10,
    12,
    14,
)  # digits of dates without signs between: months, days, hours, minutes, seconds
YEARS = {6: (1600, 2200), 8: (1, 9999)}  # in which they are dates; else those of CLOCK_YEARS
CLOCK_YEARS = (1800, 2200)
PLACES = (
    (0, 4),
    (5, 7),
    (8, 10),
    (11, 13),
    (14, 16),
    (17, 19),
)  # year ... second of 2024-01-31T12:00:00
MARKS = {
    4: b"-",
    7: b"-",
    10: b"T ",
    13: b":",
    16: b":",
}  # between the digits of 2024-01-31T12:00:00
MANY = 256  # cells from which it pays to take them together
SHORTEST_MONTH = np.timedelta64(28, "D")
FIRST = np.datetime64("0001-01-01")  # of Python's calendar
LAST = np.datetime64("9999-12-31T23:59:59")
LARGEST = 2**62  # of whole numbers as times: the difference of any two fits in 64 bits


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
        return (
            f"{self.count} {self.unit}" if self.unit != "index" else f"{self.count} (whole numbers)"
        )


def parse_times(cells: list[str]) -> tuple[Times, tuple[int, str] | None]:
    """Return (times, None), or (what was parsed so far, (row, reason)) at the first cell that is no time."""
    if all(map(WHOLE.match, cells)):
        whole = [cell.split(".")[0] for cell in cells]
        dates = _compact(whole)
        return np.array(
            [int(cell) for cell in whole], dtype=np.int64
        ) if dates is None else dates, None
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
        if aware and not OFFSET.search(cell):  # it could not be written as it came
            reason = f"expected a time with an offset such as 2024-01-31T12:00+02:00, got {cell!r}"
            return np.array(stamps, dtype="datetime64[s]"), (row, reason)
        if stamp.microsecond or aware != first_aware:
            expected = "whole seconds" if stamp.microsecond else "all times with an offset or none"
            return np.array(stamps, dtype="datetime64[s]"), (
                row,
                f"expected {expected}, got {cell!r}",
            )
        stamps.append(stamp)
    return np.array(stamps, dtype="datetime64[s]"), None


def parse_encoded_times(
    codes: npt.NDArray[np.int64], words: list[str]
) -> tuple[Times, tuple[int, str] | None]:
    """Return what `parse_times` returns for a column of text as `convline.timeseries.raw_table` gives it."""
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
    # Not by numpy's own parser: numpy 2.4 ends the process at a date that does not exist among 500 and more.
    digits = chars.astype(np.int64) - ord("0")
    year, month, day, *clock = [
        digits[:, start:end] @ 10 ** np.arange(end - start)[::-1]
        for start, end in PLACES
        if end <= width
    ]
    months = (12 * (year - 1970) + month - 1).astype("datetime64[M]")
    sound = (year > 0) & (month > 0) & (month < 13) & (day > 0) & (day <= _lengths(months))
    for part, most in zip(clock, (24, 60, 60), strict=False):
        sound &= part < most
    if not sound.all():
        return None
    seconds = 86400 * (day - 1) + sum(
        part * unit for part, unit in zip(clock, (3600, 60, 1), strict=False)
    )
    stamps: Times = months.astype("datetime64[s]") + seconds.astype("timedelta64[s]")
    return stamps


def integer_times(numbers: npt.NDArray[np.int64]) -> Times:
    """Return what `parse_times` returns for whole numbers (rows,) written as text."""
    if len({len(str(end)) for end in (numbers.min(), numbers.max())} - {*WIDTHS}) or not _is_date(
        str(numbers[0])
    ):
        return numbers
    different, codes = np.unique(numbers, return_inverse=True)
    dates = _compact(different.astype(str).tolist())
    return numbers if dates is None else dates[codes]


def _compact(cells: list[str]) -> Times | None:
    """Return the stamps of cells of digits where all are dates of one width; else None."""
    if len({*map(len, cells)}) != 1 or not all(map(_is_date, cells)):
        return None
    stamps = [datetime.fromisoformat(_spaced(cell)) for cell in cells]
    return np.array(stamps, dtype="datetime64[s]")


def _is_date(cell: str) -> bool:
    """True for the digits of a date, such as 202401 or 20240131."""
    if len(cell) not in WIDTHS or not cell.isdecimal():
        return False
    first, last = YEARS.get(len(cell), CLOCK_YEARS)
    try:
        return first <= datetime.fromisoformat(_spaced(cell)).year <= last
    except ValueError:
        return False


def _spaced(digits: str) -> str:
    """Return the digits of a date as ISO 8601: 2024-01-01 of 202401, 20240131T12 of 2024013112."""
    return (
        f"{digits[:4]}-{digits[4:]}-01"
        if len(digits) == 6
        else f"{digits[:8]}T{digits[8:]}".rstrip("T")
    )


def find_period_jump(numbers: npt.NDArray[np.int64], step: int, least: int) -> int | None:
    """Return the first row behind a jump of rising whole numbers that seem to be dates; None where they do not.

    They do where most jumps, and `least` of them, lead to one small number of two or three last digits that no other
    row has, or two of them to one of the last digit: 20244 to 20251 (quarters), 2412 to 2501 (months), 2024366 to
    2025001 (days of the year).
    """
    jumps = np.flatnonzero(np.diff(numbers) != step) + 1
    for digits in (3, 2, 1):
        rest, enough = numbers % 10**digits, max(least if digits > 1 else 2, len(jumps) / 2)
        ends = np.unique(rest[jumps][rest[jumps] <= step]) if step < 10**digits / 2 else ()
        for small in ends:
            there = np.flatnonzero(rest[1:] == small) + 1
            if len(there) >= enough and np.isin(there, jumps).all():
                return int(there[0])
    return None


def positions(times: Times, unit: str, offset: str = "") -> npt.NDArray[np.int64]:
    """Return times as whole numbers of the unit: seconds or months since 1970, or the index itself.

    offset: that of the clocks by which months are counted, here and below; times themselves are in UTC.
    """
    if unit == "months":
        counted: npt.NDArray[np.int64] = (
            local(times, offset).astype("datetime64[M]").astype(np.int64)
        )
        return counted
    return times.astype(np.int64)


def find_step(times: Times, offset: str = "") -> Step:
    """Return the most common difference of at least two rising times, the smallest of equally common ones.

    Months where every stamp has the same day and time of day, or every stamp is the last day of its month.
    """
    gaps, index = np.diff(times), times.dtype.kind == "i"
    if (index or gaps[0] < SHORTEST_MONTH) and (
        gaps == gaps[0]
    ).all():  # most series are told by this alone
        return Step("index" if index else "seconds", int(gaps[0].astype(np.int64)))
    unit = "index" if index else "months" if _are_monthly(local(times, offset)) else "seconds"
    found = np.diff(positions(times, unit, offset))
    steps, counts = np.unique(found, return_counts=True)
    return Step(unit, int(steps[counts.argmax()]))


def _are_monthly(times: Times) -> bool:
    """True where stamps are whole months apart: at one time of one day, or of the last day of shorter months."""
    if np.diff(times).min() < SHORTEST_MONTH:
        return False
    clock = times - times.astype("datetime64[D]").astype(times.dtype)
    if not ((np.diff(positions(times, "months")) > 0).all() and (clock == clock[0]).all()):
        return False
    days, lengths = _days(times), _lengths(times.astype("datetime64[M]"))
    return bool((days == np.minimum(days.max(), lengths)).all())


def month_day(times: Times, offset: str = "") -> int:
    """Return the day of the month on which monthly stamps fall where the month has it; 31 where all are last days."""
    if times.dtype.kind == "i" or not len(times):
        return 31
    times = local(times, offset)
    days = _days(times)
    return 31 if (days == _lengths(times.astype("datetime64[M]"))).all() else int(days.max())


def _days(times: Times) -> npt.NDArray[np.int64]:
    """Return the day of the month, from 1."""
    before: Times = times.astype("datetime64[D]") - times.astype("datetime64[M]").astype(
        "datetime64[D]"
    )
    return 1 + before.astype(np.int64)


def _lengths(months: Times) -> npt.NDArray[np.int64]:
    """Return the days of months."""
    days: Times = (months + 1).astype("datetime64[D]") - months.astype("datetime64[D]")
    return days.astype(np.int64)


def are_months_apart(times: Times, later: Times, offset: str = "") -> bool:
    """True where a stamp (1,) continues monthly stamps (T,), of which there may be none."""
    return not len(times) or _are_monthly(local(np.concatenate([times, later]), offset))


def future_times(
    last: Any, step: Step, n: int, *, day: int | None = None, offset: str = ""
) -> Times:
    """Return the n times after `last` (a datetime64, or a whole number): datetime64[s] (n,) or int64 (n,).

    Months fall on `day`, by default that of `last`, cut to the length of the month (31 January, 29 February, 31 March);
    31 is the last day of each month.
    """
    ahead = step.count * np.arange(1, n + 1, dtype=np.int64)
    if step.unit == "index":
        return np.asarray(ahead + int(last))
    stamp = np.datetime64(last, "s")
    if step.unit == "seconds":
        return np.asarray(stamp + ahead.astype("timedelta64[s]"))
    stamp = local(stamp, offset)
    months = stamp.astype("datetime64[M]") + ahead.astype("timedelta64[M]")
    own = int(_days(np.array([stamp]))[0]) if day is None else day
    days = np.minimum(own, _lengths(months)) - 1
    clock = stamp - stamp.astype("datetime64[D]").astype("datetime64[s]")
    dates = months.astype("datetime64[D]") + days.astype("timedelta64[D]")
    return np.asarray(dates.astype("datetime64[s]") + clock - _seconds(offset))


def has_times_after(last: Any, step: Step, n: int) -> bool:
    """True where the n times after `last` can be counted and written: 64 bits, and years of four digits."""
    if step.unit == "index":
        return int(last) + n * step.count < 2**63
    start, end = positions(np.array([last, LAST], "datetime64[s]"), step.unit).tolist()
    return bool(start + n * step.count <= end)


def common_offset(cells: list[str]) -> str:
    """Return the offset from UTC that times are written with, Z where they have several, "" where they have none."""
    if not cells or not OFFSET.search(cells[0]):
        return ""
    found = offsets_of(cells)
    if len(found) > 1 or "Z" in found:
        return "Z"
    digits = found.pop().replace(":", "")
    return f"{digits[:3]}:{digits[3:] or '00'}"


def offsets_of(cells: list[str]) -> set[str]:
    """Return the different offsets as they are written."""
    return {match.group(1).upper() for cell in cells if (match := OFFSET.search(cell))}


def are_dates(times: Times) -> bool:
    """True where every stamp is a midnight."""
    return times.dtype.kind != "i" and bool((times.astype("datetime64[D]") == times).all())


def format_times(times: Times, dates: bool | None = None, offset: str = "") -> list[str]:
    """Return times as text: whole numbers, dates where all are midnights (or `dates` says so), else with seconds.

    offset: what `common_offset` says; times are then given in it, and never as dates alone.
    """
    if times.dtype.kind == "i":
        return [str(time) for time in times.tolist()]
    if offset:
        return [text + offset for text in np.datetime_as_string(local(times, offset), "s").tolist()]
    short = are_dates(times) if dates is None else dates
    texts: list[str] = np.datetime_as_string(times, "D" if short else "s").tolist()
    return texts


def local(times: Any, offset: str) -> Any:
    """Return times in UTC as clocks of an offset show them; whole numbers have none."""
    return times + _seconds(offset) if offset else times


def _seconds(offset: str) -> np.timedelta64:
    """Return what is added to UTC: of "+02:00" 7200 seconds."""
    if offset in ("", "Z"):
        return np.timedelta64(0, "s")
    hours, minutes = int(offset[1:3]), int(offset[4:6])
    return np.timedelta64((-1 if offset[0] == "-" else 1) * (3600 * hours + 60 * minutes), "s")
