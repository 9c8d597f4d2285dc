"""Ticks of a time axis: where periods begin, with texts that a reader knows."""

import numpy as np
import pytest
from convline.report.time_axis import Tick, time_ticks


def ticks(start: str, end: str, unit: str, step: int = 1, width: float = 100) -> list[Tick]:
    times = np.arange(start, end, step, dtype=f"datetime64[{unit}]").astype("datetime64[s]")
    return time_ticks(times, "", width)


def test_months() -> None:
    """Three years of months on an axis for nine ticks."""
    halves = [(6 * k, text) for k, text in enumerate(["Jan", "Jul"] * 3)]
    years = ["1958", "", "1959", "", "1960", ""]
    assert ticks("1958-01", "1961-01", "M") == [
        Tick(row, text, year) for (row, text), year in zip(halves, years, strict=True)
    ]


def test_years_are_round() -> None:
    """3 in 300 years, each the first row of its century."""
    centuries = [Tick(row, str(1700 + row), "") for row in (0, 100, 200, 300)]
    assert ticks("1700", "2009", "Y", width=50) == centuries


def test_days_and_hours() -> None:
    """The day stands below its first hour that is shown, the year once."""
    assert ticks("2024-02-28", "2024-03-02", "D") == [
        Tick(0, "28 Feb", "2024"), Tick(1, "29 Feb", ""), Tick(2, "1 Mar", ""),
    ]  # fmt: skip
    assert ticks("2024-02-20T05", "2024-02-21T14", "h", width=45) == [
        Tick(7, "12:00", "20 Feb 2024"), Tick(19, "00:00", "21 Feb"), Tick(31, "12:00", ""),
    ]  # fmt: skip
    [first, *_] = ticks("2024-02-20T05:00:00", "2024-02-20T05:00:09", "s")
    assert first == Tick(0, "05:00:00", "20 Feb 2024")


def test_weeks_have_ticks_at_mondays() -> None:
    """1 January 2024 is a Monday."""
    days = ticks("2024-01-01", "2024-02-10", "D", width=60)
    assert [tick.text for tick in days][:3] == ["1 Jan", "8 Jan", "15 Jan"]


def test_times_are_those_of_their_clocks() -> None:
    """22:00 in UTC is midnight at +02:00."""
    times = np.arange("2024-01-01T20", "2024-01-02T06", dtype="datetime64[h]")
    [first, *_] = time_ticks(times.astype("datetime64[s]"), "+02:00", 40)
    assert first == Tick(2, "00:00", "2 Jan 2024")


@pytest.mark.parametrize(
    ("times", "texts"),
    [
        (range(10, 45), ["10", "20", "30", "40"]),
        ((0, 3, 6, 9), ["0", "3", "6", "9"]),
        ((2**61, 2**61 + 5), [str(2**61), str(2**61 + 5)]),
    ],
)
def test_row_numbers(times: range | tuple[int, ...], texts: list[str]) -> None:
    """Multiples of 1, 2 or 5 times a power of ten, or each row where all fit."""
    shown = time_ticks(np.array(times, np.int64), "", 25)
    assert [tick.text for tick in shown] == texts


def test_every_axis_has_a_tick() -> None:
    """Any number of rows of any step; few enough, and the rows rise."""
    for unit, step in (
        ("s", 1),
        ("m", 7),
        ("h", 1),
        ("D", 1),
        ("D", 7),
        ("M", 1),
        ("M", 3),
        ("Y", 1),
    ):
        for rows in (2, 3, 10, 100, 1000):
            times = np.datetime64("1999-12-31", unit) + step * np.arange(rows)
            shown = time_ticks(times.astype("datetime64[s]"), "", 70)
            places = [tick.row for tick in shown]
            assert 1 <= len(shown) <= 7 and places == sorted({*places}), (unit, step, rows)
            assert shown[0].text and max(len(tick.text) for tick in shown) <= 8
