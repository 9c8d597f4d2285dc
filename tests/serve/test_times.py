"""Time stamps: parsing, steps and the stamps that follow, against pandas where it has an opinion."""

import numpy as np
import pandas as pd
import pytest

from serve.times import Step, base_step, format_times, future_times, parse_times


@pytest.mark.parametrize(
    ("cells", "expected"),
    [
        (["2024-01-31", "2024-02-29"], ["2024-01-31T00:00:00", "2024-02-29T00:00:00"]),
        (["2024-01", "2024-02"], ["2024-01-01T00:00:00", "2024-02-01T00:00:00"]),
        (["20240131", "20240229"], ["2024-01-31T00:00:00", "2024-02-29T00:00:00"]),
        (["2024-01-31T12:30", "2024-01-31 12:31:05"], ["2024-01-31T12:30:00", "2024-01-31T12:31:05"]),
        (["2024-01-31T12:30Z", "2024-01-31T14:30+01:00"], ["2024-01-31T12:30:00", "2024-01-31T13:30:00"]),
        (["1700", "1701"], [1700, 1701]),
        (["1700.0", "-5"], [1700, -5]),
        (["20240132", "20240133"], [20240132, 20240133]),
    ],
)
def test_parse(cells: list[str], expected: list) -> None:
    """Oracle: written by hand; eight digits are dates only where all of them are, offsets become UTC."""
    times, trouble = parse_times(cells)
    assert trouble is None and [str(t) for t in times] == [str(e) for e in expected]


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
def test_parse_names_the_row(cells: list[str], row: int) -> None:
    """Oracle: the first cell that is no time, an hour that mixes clocks, or finer than a second."""
    assert parse_times(cells)[1] is not None and parse_times(cells)[1][0] == row


@pytest.mark.parametrize(
    ("frequency", "step"),
    [("h", Step("seconds", 3600)), ("D", Step("seconds", 86400)), ("W", Step("seconds", 604800)),
     ("MS", Step("months", 1)), ("ME", Step("months", 1)), ("QS", Step("months", 3)), ("YE", Step("months", 12))],
)  # fmt: skip
@pytest.mark.parametrize("start", ["2023-01-01", "2023-02-28", "2024-02-29", "1969-11-30"])
def test_steps_and_futures_follow_pandas(frequency: str, step: Step, start: str) -> None:
    """Oracle: pandas.date_range; the first 8 stamps give the step, the step gives the 9 that follow."""
    stamps = pd.date_range(start, periods=17, freq=frequency).to_numpy().astype("datetime64[s]")
    assert base_step(stamps[:8]) == step
    ends = frequency in ("ME", "YE")
    assert (future_times(stamps[7], step, 9, month_end=ends) == stamps[8:]).all()


def test_same_day_is_cut_to_the_month() -> None:
    """Oracle: 31 January 2024, then 29 February, 31 March (calendar)."""
    times = future_times(np.datetime64("2024-01-31T06:00"), Step("months", 1), 3)
    assert [str(t) for t in times] == ["2024-02-29T06:00:00", "2024-03-31T06:00:00", "2024-04-30T06:00:00"]


def test_index_steps() -> None:
    """Oracle: the most common difference, the smaller one of a tie."""
    assert base_step(np.array([1, 3, 5, 9])) == Step("index", 2)
    assert base_step(np.array([0, 1, 3])) == Step("index", 1)
    assert future_times(10, Step("index", 5), 2).tolist() == [15, 20]


def test_format() -> None:
    """Oracle: dates where all are midnights."""
    assert format_times(np.array(["2024-01-01", "2024-01-02"], "datetime64[s]")) == ["2024-01-01", "2024-01-02"]
    assert format_times(np.array(["2024-01-01T01:00"], "datetime64[s]")) == ["2024-01-01T01:00:00"]
    midnight = np.array(["2024-01-01"], "datetime64[s]")
    assert format_times(midnight, dates=False) == ["2024-01-01T00:00:00"]  # as its hourly series says
    assert format_times(np.array([-5, 7])) == ["-5", "7"]
