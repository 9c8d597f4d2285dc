"""What a forecaster's page says by step ahead and by series, and the dates of its windows."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from finished import FORECASTER, RECIPES, write_all

from pipeline.plots import forecasts, style
from pipeline.plots.window_times import WindowTimes
from pipeline.report import forecaster_page
from pipeline.report.result_files import Entry

METRIC: dict[str, Any] = {
    "baselines": {"last value": {}, "seasonal naive": {}},
    "intervals": [{"nominal": 0.8, "measured": 0.8, "low": 0.7, "high": 0.9, "width": 1.0}],
}
STEPS = np.array([[1.0, 2, 9, 4], [5.0, 5, 5, 5], [0.5, 3, 8, 9]])  # ours, and the two baselines
BY_STEP = {"steps": STEPS, "inside": np.array([0.9, 0.8, 0.5, 0.75])}


def test_the_worst_step_and_the_steps_lost_to_seasonal_naive() -> None:
    error, naive, interval = forecaster_page.describe_steps(BY_STEP, METRIC)
    assert error == (
        "The mean squared error is 1.00 one step ahead and 4.00 4 steps ahead; it is largest at "
        "step 3 (9.00)."
    )
    assert naive == "It is lower than that of seasonal naive at 2 of 4 steps, not better at 1, 3."
    assert interval == (
        "The 80 % interval holds fewest, 50.0 % of the targets at step 3, and most, 90.0 % at "
        "step 1."
    )
    better = BY_STEP | {"steps": np.stack([STEPS[0] / 10, STEPS[1], STEPS[2]])}
    sentence = forecaster_page.describe_steps(better, METRIC | {"intervals": []})[-1]
    assert sentence == "It is lower than that of seasonal naive at every step."
    one = {"steps": STEPS[:, :1], "inside": BY_STEP["inside"][:1]}
    assert forecaster_page.describe_steps(one, METRIC) == []


def test_successive_numbers_are_ranges() -> None:
    assert forecaster_page.describe_ranges([1, 2, 3, 7, 9, 10]) == "1 to 3, 7, 9 to 10"


def test_the_table_of_steps_has_at_most_a_hundred_rows() -> None:
    rows = forecaster_page.step_rows(BY_STEP, METRIC)
    assert rows[2] == ["3", "9.00", "5.00", "8.00", "50.0 %"] and len(rows) == 4
    long = {"steps": np.ones((3, 720)), "inside": np.ones(720)}
    numbers = [int(row[0]) for row in forecaster_page.step_rows(long, METRIC)]
    assert (len(numbers), numbers[0], numbers[-1]) == (100, 1, 720)
    assert len(forecaster_page.step_rows(long, METRIC | {"intervals": []})[0]) == 4


def test_the_worst_series_comes_first_and_one_without_a_scale_last() -> None:
    predictions = {
        "column_mae": np.array([1.0, 2.0, 3.0]),
        "column_mase": np.array([0.5, np.nan, 1.5]),
        "column_coverage": np.array([0.8, 0.7, 0.6]),
    }
    rows = forecaster_page.series_rows(predictions, ["a", "b", "c"])
    assert [row[0] for row in rows] == ["c", "a", "b"]
    assert rows[0] == ["c", "3.00", "1.50", "60.0 %"] and rows[2][2] == "–"
    one = {key: values[:1] for key, values in predictions.items()}
    assert forecaster_page.series_rows(one, ["a", "a column that is not forecast"]) == []


def window_times(series: list[int], days: int = 30) -> WindowTimes:
    times = np.datetime64("2024-01-20", "s") + np.arange(days) * np.timedelta64(86400, "s")
    return WindowTimes(times, times[None], times[: len(series)], np.array(series), "day", "")


def test_of_series_with_an_id_the_one_of_the_largest_error_is_named() -> None:
    """Five windows of three series; series 2, counted from 1, has the mean error 6."""
    predictions = {"window_errors": np.array([1.0, 1.0, 5.0, 7.0, 2.0])}
    assert forecaster_page.describe_worst_series(predictions, window_times([0, 0, 1, 1, 2])) == (
        "Of 3 series in the test split, number 2 is the worst: MSE 6.00 over its test windows 2 to "
        "3; the median of the series is 2.00."
    )
    assert forecaster_page.describe_worst_series(predictions, window_times([0] * 5)) is None
    assert forecaster_page.describe_worst_series(predictions, None) is None


def test_times_of_the_windows_are_those_of_the_rows(tmp_path: Path) -> None:
    """Window k begins at row 3 k; its cutoff is row 3 k + 59, and its last target row 3 k + 65."""
    write_all(tmp_path)
    times = forecaster_page.window_times(Entry(FORECASTER, RECIPES[FORECASTER], tmp_path))
    assert times and times.has_one_series and len(times.cutoffs) == 40
    day = datetime.date(2024, 1, 1)
    assert times.text(times.cutoffs[2]) == str(day + datetime.timedelta(days=6 + 59))
    assert times.windows.shape == (5, 66)
    assert times.text(times.windows[2, -1]) == str(day + datetime.timedelta(days=6 + 65))
    (tmp_path / "out" / FORECASTER / "data" / "test_times.npy").unlink()
    assert forecaster_page.window_times(Entry(FORECASTER, RECIPES[FORECASTER], tmp_path)) is None


def test_the_drawn_forecasts_are_named_by_cutoff_window_and_error(tmp_path: Path) -> None:
    """Of errors 1, 4 and 9 window 7 is the best, 0 the median, 3 the worst."""
    target = np.zeros((3, 2, 1))
    predictions = {
        "target": target,
        "forecast": np.array([2.0, 3.0, 1.0])[:, None, None] + target,
        "rows": np.array([0, 3, 7]),
    }
    assert forecaster_page.describe_examples(predictions, window_times([0] * 9)) == [
        "Best: cutoff 2024-01-27, test window 7, MSE 1.00.",
        "Median: cutoff 2024-01-20, test window 0, MSE 4.00.",
        "Worst: cutoff 2024-01-23, test window 3, MSE 9.00.",
    ]
    assert forecaster_page.describe_examples(predictions, None)[0] == (
        "Best: test window 7, MSE 1.00."
    )


def test_ticks_are_where_periods_begin(tmp_path: Path) -> None:
    """Of 30 days from 20 January 2024 the ticks are Mondays or months, at the days' places."""
    times = window_times([0] * 30)
    with style.drawing(tmp_path / "x.png", 760, 200) as axes:
        axis = axes[0, 0]
        axis.plot(np.arange(30) - 10, np.zeros(30))
        times.label(axis, np.arange(30) - 10, times.split)
        texts = [label.get_text() for label in axis.get_xticklabels()]
        places = axis.get_xticks()
        start = datetime.date(2024, 1, 20)
        for place, text in zip(places, texts, strict=True):
            day = start + datetime.timedelta(days=int(place) + 10)
            assert text.split("\n")[0].split()[0] == str(day.day), text
        assert texts[0].endswith("2024") and 3 <= len(texts) <= 30
        before = len(texts)
        times.label(axis, np.arange(1), times.split[:1])  # one time alone has no axis
        assert len(axis.get_xticklabels()) == before


@pytest.mark.parametrize("with_times", [True, False])
def test_pictures_have_dates_or_steps_on_their_axes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, with_times: bool
) -> None:
    """Texts of the x axes of the pictures, caught where a picture is written."""
    write_all(tmp_path)
    entry = Entry(FORECASTER, RECIPES[FORECASTER], tmp_path)
    predictions, times = entry.predictions, forecaster_page.window_times(entry)
    assert predictions
    texts: list[str] = []
    savefig = style.Figure.savefig

    def save(figure: Any, *arguments: Any, **options: Any) -> None:
        for axis in figure.axes[-1:]:
            texts.extend([axis.get_xlabel(), *(t.get_text() for t in axis.get_xticklabels())])
        savefig(figure, *arguments, **options)

    monkeypatch.setattr(style.Figure, "savefig", save)
    given = times if with_times else None
    forecasts.draw_examples(predictions, ["a", "b"], tmp_path / "a.png", given)
    forecasts.draw_test_rows(predictions, ["a", "b"], 3, tmp_path / "b.png", given)
    assert ("2024" in " ".join(texts)) is with_times
    assert ("day" if with_times else "test row") in texts
