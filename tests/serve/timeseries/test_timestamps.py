"""Times: parsing, steps and the times ahead, compared with pandas where it has the same rules."""

import calendar
from datetime import datetime

import numpy as np
import pandas as pd
import pytest
from convline.model_file.document import Step
from convline.timeseries.timestamps import (
    common_offset,
    find_period_jump,
    find_step,
    format_times,
    future_times,
    has_times_after,
    integer_times,
    month_day,
    parse_times,
)


@pytest.mark.parametrize(
    ("cells", "expected"),
    [
        (["2024-01-31", "2024-02-29"], ["2024-01-31T00:00:00", "2024-02-29T00:00:00"]),
        (["2024-01", "2024-02"], ["2024-01-01T00:00:00", "2024-02-01T00:00:00"]),
        (["20240131", "20240229"], ["2024-01-31T00:00:00", "2024-02-29T00:00:00"]),
        (
            ["2024-01-31T12:30", "2024-01-31 12:31:05"],
            ["2024-01-31T12:30:00", "2024-01-31T12:31:05"],
        ),
        (
            ["2024-01-31T12:30Z", "2024-01-31T14:30+01:00"],
            ["2024-01-31T12:30:00", "2024-01-31T13:30:00"],
        ),
        (["202401", "202402"], ["2024-01-01T00:00:00", "2024-02-01T00:00:00"]),
        (["202401.0", "202402.0"], ["2024-01-01T00:00:00", "2024-02-01T00:00:00"]),
        (["2024013123", "2024020100"], ["2024-01-31T23:00:00", "2024-02-01T00:00:00"]),
        (["202401312359", "202402010000"], ["2024-01-31T23:59:00", "2024-02-01T00:00:00"]),
        (["20240131235959", "20240201000000"], ["2024-01-31T23:59:59", "2024-02-01T00:00:00"]),
        (["202412", "202413"], [202412, 202413]),  # no month
        (["150001", "150002"], [150001, 150002]),  # before 1600
        (["202401", "20240201"], [202401, 20240201]),  # two widths
        (["2024013123", "2024013124"], [2024013123, 2024013124]),  # no hour
        (["1712010100", "1712010200"], [1712010100, 1712010200]),  # seconds since 1970
        (["1700", "1701"], [1700, 1701]),
        (["1700.0", "-5"], [1700, -5]),
        (["20240132", "20240133"], [20240132, 20240133]),
    ],
)
def test_times_are_parsed(cells: list[str], expected: list) -> None:
    """Eight digits are dates only if all of them are; offsets are converted to UTC."""
    times, trouble = parse_times(cells)
    assert trouble is None and [str(t) for t in times] == [str(e) for e in expected]
    if all(cell.isdecimal() for cell in cells):
        assert [str(t) for t in integer_times(np.array(cells, np.int64))] == [
            str(e) for e in expected
        ]


@pytest.mark.parametrize(
    ("cells", "row"),
    [
        (["2024-01-31", "yesterday"], 1),
        (["2024-02-30"], 0),
        (["2024-01-31", ""], 1),
        (["2024-01-31T00:00Z", "2024-01-31T01:00"], 1),
        (["2024-01-31T00:00:00.5"], 0),
        (["0001-01-01T00:00+05:00"], 0),
        (["1e5"], 0),
    ],
)
def test_the_first_wrong_time_is_named(cells: list[str], row: int) -> None:
    """A cell that is no time, that mixes offsets with none, or is finer than a second."""
    assert parse_times(cells)[1] is not None and parse_times(cells)[1][0] == row


@pytest.mark.parametrize(
    ("frequency", "step"),
    [("h", Step("seconds", 3600)), ("D", Step("seconds", 86400)), ("W", Step("seconds", 604800)),
     ("MS", Step("months", 1)), ("ME", Step("months", 1)), ("QS", Step("months", 3)),
     ("YE", Step("months", 12))],
)  # fmt: skip
@pytest.mark.parametrize("start", ["2023-01-01", "2023-02-28", "2024-02-29", "1969-11-30"])
def test_steps_and_times_ahead_equal_pandas(frequency: str, step: Step, start: str) -> None:
    """pandas.date_range: the first 8 stamps give the step, and the step gives the 9 that follow."""
    stamps = pd.date_range(start, periods=17, freq=frequency).to_numpy().astype("datetime64[s]")
    assert find_step(stamps[:8]) == step
    assert (future_times(stamps[7], step, 9, day=month_day(stamps[:8])) == stamps[8:]).all()


def test_the_31st_becomes_the_last_day_of_shorter_months() -> None:
    """31 January 2024, then 29 February, 31 March."""
    times = future_times(np.datetime64("2024-01-31T06:00"), Step("months", 1), 3)
    assert [str(t) for t in times] == [
        "2024-02-29T06:00:00",
        "2024-03-31T06:00:00",
        "2024-04-30T06:00:00",
    ]


@pytest.mark.parametrize("day", range(1, 32))
@pytest.mark.parametrize("months", [1, 3, 12])
@pytest.mark.parametrize("begin", ["2023-01", "2024-02", "2023-11"])
def test_every_day_of_a_month_is_a_monthly_series(day: int, months: int, begin: str) -> None:
    """Each stamp is on `day`, or on the last day of a shorter month (calendar module).

    From any row after the first stamp on `day`, the times ahead are the rows that follow.
    """
    first, stamps = np.datetime64(begin, "M").astype(int), []
    for place in range(16):
        year, month = divmod(int(first) + months * place, 12)
        cut = min(day, calendar.monthrange(1970 + year, month + 1)[1])
        stamps.append(f"{1970 + year}-{month + 1:02}-{cut:02}T06:00:00")
    times = np.array(stamps, "datetime64[s]")
    assert find_step(times[:4]) == Step("months", months)
    for known in range(4, 16):
        seen = month_day(times[:known])
        if (
            seen == day
        ):  # 31 where the stamps so far are all last days: then nothing else can be known
            assert (
                future_times(times[known - 1], Step("months", months), 16 - known, day=seen)
                == times[known:]
            ).all()
    assert seen == day or months == 12 or day == 31


@pytest.mark.parametrize(
    "cells",
    [
        ["2024-01-30", "2024-02-29", "2024-03-29"],  # the 29th, after a 30th
        ["2024-01-30", "2024-02-28", "2024-03-30"],  # February 2024 has a 29th
        ["2024-01-30T00:00", "2024-02-29T01:00", "2024-03-30T00:00"],
    ],
)
def test_other_days_are_not_monthly(cells: list[str]) -> None:
    """Each list breaks the rule in one row."""
    assert find_step(parse_times(cells)[0]).unit == "seconds"


@pytest.mark.parametrize(
    ("cells", "offset", "written"),
    [
        (
            ["2024-01-31T12:30+02:00", "2024-01-31T13:30+02:00"],
            "+02:00",
            "2024-01-31T13:30:00+02:00",
        ),
        (["2024-01-31T12:30Z", "2024-01-31T13:30Z"], "Z", "2024-01-31T13:30:00Z"),
        (["2024-01-31 12:30-0530", "2024-01-31 13:30-0530"], "-05:30", "2024-01-31T13:30:00-05:30"),
        (["20240131T1230+02", "20240131T1330+02"], "+02:00", "2024-01-31T13:30:00+02:00"),
        (["2024-03-31T01:30+01:00", "2024-03-31T03:30+02:00"], "Z", "2024-03-31T01:30:00Z"),
        (
            ["2024-01-31t12:30+02:00", "2024-01-31t13:30+02:00"],
            "+02:00",
            "2024-01-31T13:30:00+02:00",
        ),
        (
            ["2024-01-31T22:30:00.000+00:00", "2024-02-01T00:00:00+00:00"],
            "+00:00",
            "2024-02-01T00:00:00+00:00",
        ),
        (["2024-01-30", "2024-01-31"], "", "2024-01-31"),
        (["2024-01", "2024-02"], "", "2024-02-01"),
    ],
)
def test_times_keep_their_offset(cells: list[str], offset: str, written: str) -> None:
    """One offset is written as it was read, several become UTC, and none stays none."""
    times, trouble = parse_times(cells)
    assert trouble is None and common_offset(cells) == offset
    assert format_times(times, offset=offset)[1] == written


@pytest.mark.parametrize(
    "cell", ["2024-01-31_12:30+02:00", "2024-01-31T12:30+05:30:15", "1890-01-31T12:30-00:25:21"]
)
def test_an_offset_that_could_not_be_written_is_refused(cell: str) -> None:
    """Read as UTC, each would be written hours away from what was read, without a note."""
    _, trouble = parse_times(["2024-01-30T12:30+02:00", cell])
    assert trouble is not None and trouble[0] == 1 and trouble[1].endswith(f"got {cell!r}")


def test_the_last_possible_time() -> None:
    """2^63 - 1 is the last whole number of 64 bits, 9999 the last year of four digits."""
    assert has_times_after(2**63 - 4, Step("index", 1), 3) and not has_times_after(
        2**63 - 3, Step("index", 1), 3
    )
    assert not has_times_after(10, Step("index", 2**53), 10**6)
    assert has_times_after(np.datetime64("9999-12-30", "s"), Step("seconds", 86400), 1)
    assert not has_times_after(np.datetime64("9999-12-30", "s"), Step("seconds", 86400), 2)
    assert has_times_after(np.datetime64("9999-11-30", "s"), Step("months", 1), 1)
    assert not has_times_after(np.datetime64("9999-11-30", "s"), Step("months", 1), 2)


@pytest.mark.parametrize(
    ("numbers", "row"),
    [
        (
            [2022364, 2022365, 2023001, *range(2023002, 2023366), 2024001, 2024002],
            2,
        ),  # days of the year
        ([10 * year + quarter for year in (2022, 2023, 2024) for quarter in (1, 2, 3, 4)], 4),
        ([100 * year + week for year in (2022, 2023, 2024) for week in range(1, 53)], 52),
        ([100 * year + month for year in (22, 23, 24) for month in range(1, 13)], 12),
        ([100 * year + month for year in (22, 23, 24) for month in (3, 6, 9, 12)], 4),
        (
            [100 * hour + minute for hour in (9, 10, 11) for minute in range(0, 60, 5)],
            12,
        ),  # 0955, 1000
        (
            [2401, 2402, 2404, *range(2405, 2413), *range(2501, 2513), 2601],
            11,
        ),  # one month is missing, too
        ([*range(1, 60), *range(63, 90), *range(97, 130)], None),  # a counter with two gaps
        (
            [*range(1, 18), *range(21, 35), *range(41, 70)],
            None,
        ),  # both to a last 1, which other rows have
        (range(0, 300, 10), None),
        ([0, 10, 20, 40, 50, 70, 80], None),
    ],
)
def test_dates_written_as_numbers_are_detected(numbers: list[int], row: int | None) -> None:
    """The first row of the second year or hour; counters with gaps have none."""
    found = np.array([*numbers])
    assert find_period_jump(found, find_step(found).count, 2) == row


def test_the_step_of_whole_numbers() -> None:
    """The most common difference, and the smaller one of a tie."""
    assert find_step(np.array([1, 3, 5, 9])) == Step("index", 2)
    assert find_step(np.array([0, 1, 3])) == Step("index", 1)
    assert future_times(10, Step("index", 5), 2).tolist() == [15, 20]


def test_midnights_are_written_as_dates() -> None:
    """Only if all times are midnights."""
    assert format_times(np.array(["2024-01-01", "2024-01-02"], "datetime64[s]")) == [
        "2024-01-01",
        "2024-01-02",
    ]
    assert format_times(np.array(["2024-01-01T01:00"], "datetime64[s]")) == ["2024-01-01T01:00:00"]
    midnight = np.array(["2024-01-01"], "datetime64[s]")
    assert format_times(midnight, dates=False) == [
        "2024-01-01T00:00:00"
    ]  # as its hourly series says
    assert format_times(np.array([-5, 7])) == ["-5", "7"]


@pytest.mark.parametrize(
    "wrong", ["2023-02-29", "2024-13-01", "2024-00-01", "2024-04-31", "2024-04-00", "0000-01-01"]
)
@pytest.mark.parametrize("clock", ["", "T12:00", " 12:00:00"])
def test_one_wrong_date_among_many_is_named(wrong: str, clock: str) -> None:
    """numpy's own parser of text ends the process at such a date, from 501 cells on."""
    cells = [f"{year}-03-01{clock}" for year in range(1000, 3000)]
    cells[700] = wrong + clock
    _, trouble = parse_times(cells)
    assert trouble is not None and trouble[0] == 700 and trouble[1].endswith(f"got {cells[700]!r}")


@pytest.mark.parametrize("wrong", ["24:00:00", "12:60:00", "12:00:60", "99:99:99"])
def test_one_wrong_time_of_day_among_many_is_named(wrong: str) -> None:
    cells = [f"{year}-03-01 12:00:00" for year in range(1000, 3000)]
    cells[700] = f"1700-03-01 {wrong}"
    _, trouble = parse_times(cells)
    assert trouble is not None and trouble[0] == 700


@pytest.mark.parametrize("width", [10, 16, 19])
def test_many_cells_are_parsed_as_each_alone(width: int) -> None:
    """Days of all years, seconds of all kinds, compared with Python's own parser."""
    seconds = np.random.default_rng(0).integers(-62135596800, 253402300799, 5000)
    cells = [
        text[:width] for text in np.datetime_as_string(seconds.astype("datetime64[s]")).tolist()
    ]
    times, trouble = parse_times(cells)
    assert trouble is None and times.dtype == "datetime64[s]"
    assert times.tolist() == [datetime.fromisoformat(cell) for cell in cells]
