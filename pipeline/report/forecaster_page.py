"""The sections of a forecaster's page: forecasts, errors, baselines and intervals."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.data.dataset import Places, spread
from pipeline.plots import forecasts
from pipeline.plots.style import format_number
from pipeline.plots.window_times import WindowTimes
from pipeline.report import tables
from pipeline.report.forecast_verdicts import (
    compare_with_baseline,
    find_best_baseline,
    interval_fault,
    judge_interval,
)
from pipeline.report.result_files import Entry

SEASONAL = "seasonal naive"
MAX_ROWS = 100  # of a table of steps or series


def verdicts(metric: dict[str, Any]) -> dict[str, str]:
    """Return a forecaster's metric in words: against baselines, and whether its interval holds.

    {} for a classifier.
    """
    if (best := find_best_baseline(metric)) is None:
        return {}
    found = {"Against the best baseline": best.sentence}
    if best.name != SEASONAL and SEASONAL in metric["baselines"]:
        seasonal = compare_with_baseline(metric, SEASONAL, best.measure.lower())
        found["Against seasonal naive"] = seasonal.sentence
    for interval in metric["intervals"][:1]:
        found["Prediction interval"] = judge_interval(interval)
    return found


def forecaster_context(entry: Entry, img: Path) -> dict[str, Any] | None:
    """Return the plots of the backtest and the numbers of their captions.

    None before stage check has run.
    """
    if entry.predictions is None or entry.metric is None:
        return None
    predictions, about = entry.predictions, entry.results["data"]
    columns, first, times = about["columns"], predictions["residuals"][:, 0], window_times(entry)
    files = ("forecasts", "along", "steps", "residuals")
    examples, along, steps, residuals = (img / f"{entry.name}.{file}.png" for file in files)
    rows, bounds = None, entry.array("test_y")
    if bounds is not None and len(bounds) == 2:  # several series have no common time axis
        rows = forecasts.draw_test_rows(predictions, columns, about["stride"], along, times)
    names = list(entry.metric["baselines"])
    return {
        "examples": forecasts.draw_examples(predictions, columns, examples, times),
        "windows": describe_examples(predictions, times),
        "along": rows,
        "steps": forecasts.draw_errors_by_step(predictions, names, steps),
        "by_step": describe_steps(predictions, entry.metric),
        "step_rows": step_rows(predictions, entry.metric),
        "series": series_rows(predictions, columns),
        "worst_series": describe_worst_series(predictions, times),
        "intervals": [
            [*tables.interval_row(facts), interval_fault(facts) or "as it should be"]
            for facts in entry.metric["intervals"]
        ],
        "residuals": forecasts.draw_residuals(first, columns[0], residuals, times),
        "column": columns[0],
        "memory": float(forecasts.autocorrelation(first, 1)[0]),
        "noise": 1.96 / len(first) ** 0.5,
        "bias": float(first.mean() / (first.std() or 1)),
    }


def window_times(entry: Entry) -> WindowTimes | None:
    """Return the times of the test windows; None where out/ lacks the files of stage data."""
    times, bounds = entry.array("test_times"), entry.array("test_y")
    about, predictions = entry.results["data"], entry.predictions
    if times is None or bounds is None or predictions is None:
        return None
    given, horizon = about["input"], about["forecast"]["horizon"]
    places = Places.of(bounds, given["context"] + horizon, about["stride"])
    first = places.first_rows(np.arange(len(places)))
    return WindowTimes(
        split=np.asarray(times),
        windows=times[places.rows(predictions["rows"])],
        cutoffs=times[first + given["context"] - 1],
        series=np.searchsorted(bounds, first, side="right") - 1,
        name=given["time"] or "row",
        offset="Z" if given.get("offset") == "utc" else "",
    )


def describe_examples(predictions: dict[str, np.ndarray], times: WindowTimes | None) -> list[str]:
    """Return a sentence on each drawn forecast: cutoff, window and error."""
    sentences = []
    for name, k in forecasts.example_windows(predictions).items():
        window = int(predictions["rows"][k])
        error = ((predictions["forecast"][k] - predictions["target"][k]) ** 2).mean()
        cutoff = f"cutoff {times.text(times.cutoffs[window])}, " if times else ""
        what = f"{cutoff}test window {window}, MSE {format_number(float(error))}"
        sentences.append(f"{name.capitalize()}: {what}.")
    return sentences


def describe_steps(predictions: dict[str, np.ndarray], metric: dict[str, Any]) -> list[str]:
    """Return sentences on the errors and the coverage by step ahead."""
    ours, names = predictions["steps"][0], list(metric["baselines"])
    if len(ours) == 1:
        return []
    worst, number = int(ours.argmax()), format_number
    grows = f"{number(float(ours[0]))} one step ahead and {number(float(ours[-1]))} {len(ours)}"
    largest = f"it is largest at step {worst + 1} ({number(float(ours[worst]))})"
    sentences = [f"The mean squared error is {grows} steps ahead; {largest}."]
    if SEASONAL in names:
        lost = np.flatnonzero(ours >= predictions["steps"][1 + names.index(SEASONAL)]) + 1
        where = f"not better at {describe_ranges(lost.tolist())}" if len(lost) else "at every step"
        won = len(ours) - len(lost)
        better = f"at {won or 'none'} of {len(ours)} steps, {where}" if len(lost) else where
        sentences.append(f"It is lower than that of seasonal naive {better}.")
    inside = predictions["inside"]
    if metric["intervals"] and np.ptp(inside):
        nominal = 100 * metric["intervals"][0]["nominal"]
        low, high = int(inside.argmin()), int(inside.argmax())
        least = f"{100 * inside[low]:.1f} % of the targets at step {low + 1}"
        most = f"{100 * inside[high]:.1f} % at step {high + 1}"
        sentences.append(f"The {nominal:.3g} % interval holds fewest, {least}, and most, {most}.")
    return sentences


def describe_ranges(numbers: list[int]) -> str:
    """Return rising numbers as text, successive ones as ranges: [1, 2, 3, 7] -> "1 to 3, 7"."""
    parts = []
    for _, group in itertools.groupby(enumerate(numbers), lambda pair: pair[1] - pair[0]):
        run = [number for _, number in group]
        parts.append(f"{run[0]} to {run[-1]}" if len(run) > 1 else str(run[0]))
    return ", ".join(parts)


def step_rows(predictions: dict[str, np.ndarray], metric: dict[str, Any]) -> list[list[str]]:
    """Return step, this entry's MSE, that of each baseline, and coverage of the widest interval."""
    errors = predictions["steps"]
    shown = spread(errors.shape[1], MAX_ROWS)
    rows = []
    for step in shown.tolist():
        cells = [str(step + 1), *(format_number(float(error)) for error in errors[:, step])]
        if metric["intervals"]:
            cells.append(f"{100 * predictions['inside'][step]:.1f} %")
        rows.append(cells)
    return rows


def series_rows(predictions: dict[str, np.ndarray], columns: list[str]) -> list[list[str]]:
    """Return name, MAE, MASE and coverage of each of several series, the worst MASE first."""
    mae, mase = predictions["column_mae"], predictions["column_mase"]
    if len(mae) < 2:
        return []
    order = np.argsort(np.where(np.isfinite(mase), -mase, np.inf), kind="stable")[:MAX_ROWS]
    return [
        [
            columns[k],
            format_number(float(mae[k])),
            format_number(float(mase[k]) if np.isfinite(mase[k]) else None),
            f"{100 * predictions['column_coverage'][k]:.1f} %",
        ]
        for k in order.tolist()
    ]


def describe_worst_series(
    predictions: dict[str, np.ndarray], times: WindowTimes | None
) -> str | None:
    """Return a sentence on the worst of several series that are told apart by an id, else None."""
    if times is None or times.has_one_series:
        return None
    counts = np.bincount(times.series)
    tested = np.flatnonzero(counts)
    sums = np.bincount(times.series, weights=predictions["window_errors"])
    errors = sums[tested] / counts[tested]
    worst = int(errors.argmax())
    windows = np.flatnonzero(times.series == tested[worst])
    largest, median = (format_number(float(e)) for e in (errors[worst], np.median(errors)))
    return (
        f"Of {len(tested)} series in the test split, number {tested[worst] + 1} is the worst: MSE "
        f"{largest} over its test windows {windows[0]} to {windows[-1]}; the median of the series "
        f"is {median}."
    )
