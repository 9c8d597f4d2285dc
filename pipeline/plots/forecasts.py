"""Pictures of a forecaster's backtest: forecasts with intervals, errors by step, and residuals."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from statistics import NormalDist

import numpy as np
from convline.colours import BLUE, GRID, INK, ORANGE, PALETTE, interval_tints
from matplotlib.axes import Axes

from pipeline.plots.style import (
    Picture,
    drawing,
    format_number,
    label_log_axis,
    use_integer_ticks,
)
from pipeline.plots.window_times import WindowTimes

MAX_SERIES = 3
MAX_LAGS = 40
# of M windows: context (M, T, D), target and forecast (M, S, D), quantiles (M, S, D, Q) and their
# levels (Q,), steps: the errors (1 + baselines, S), inside: the coverage by step (S,)
Predictions = dict[str, np.ndarray]


def example_windows(predictions: Predictions) -> dict[str, int]:
    """Return which recorded windows have the best, the median and the worst forecast by MSE."""
    target, forecast = predictions["target"], predictions["forecast"]
    order = np.argsort(((forecast - target) ** 2).mean((1, 2)), kind="stable").tolist()
    return {"best": order[0], "median": order[len(order) // 2], "worst": order[-1]}


def draw_examples(
    predictions: Predictions, columns: Sequence[str], path: Path, times: WindowTimes | None = None
) -> Picture:
    """Draw the best, the median and the worst forecast by squared error, of up to three series."""
    target, windows = predictions["target"], example_windows(predictions)
    series = min(MAX_SERIES, target.shape[2])
    width, height = 760, 62 + 160 * series
    with drawing(path, width, height, rows=series, columns=len(windows), head_px=24) as axes:
        for column, (name, window) in enumerate(windows.items()):
            for row in range(series):
                draw_window(axes[row, column], predictions, window, row)
                title = f"{name} of {len(target)} windows: {columns[row]}"
                if times:
                    steps = target.shape[1]
                    rows = shown_history(predictions) + steps
                    places = np.arange(steps - rows, steps) + 1
                    times.label(axes[row, column], places, times.windows[window][-rows:])
                axes[row, column].set_title(title)
        axes[-1, 0].set_xlabel(times.name if times else "steps after the last known value")
        add_shared_legend(axes)
    alt = (
        f"Observed values, forecast and its intervals, {target.shape[1]} steps ahead, in the best, "
        f"median and worst window; {series} of {target.shape[2]} series."
    )
    return Picture(path.name, width, height, alt)


def shown_history(predictions: Predictions) -> int:
    """Return how many rows of a history are drawn: more would leave no room for the forecast."""
    return min(predictions["context"].shape[1], max(2 * predictions["target"].shape[1], 40))


def draw_window(axis: Axes, predictions: Predictions, window: int, series: int) -> None:
    """Draw one window of one series; step 0, a line, is the last value that the model knows."""
    history = predictions["context"][window, :, series]
    target = predictions["target"][window, :, series]
    steps = len(target)
    history = history[-shown_history(predictions) :]
    ahead = np.arange(1, steps + 1)
    observed, places = np.append(history, target), np.arange(1 - len(history), steps + 1)
    axis.plot(places, observed, color=BLUE, lw=0.9, marker=dot(steps), label="observed")
    draw_intervals(axis, ahead, predictions, window, series)
    axis.axvline(0, color=INK, lw=0.5)


def draw_intervals(
    axis: Axes, x: np.ndarray, predictions: Predictions, window: int, series: int
) -> None:
    """Draw a forecast in its nested intervals, the widest first, the inner ones darker."""
    quantiles = predictions["quantiles"][window, :, series]
    levels = predictions["quantile_levels"]
    forecast = predictions["forecast"][window, :, series]
    axis.plot(x, forecast, color=ORANGE, lw=1, marker=dot(len(x)), label="forecast")
    for k, tint in enumerate(interval_tints(len(levels) // 2)):
        label = f"{100 * (levels[-1 - k] - levels[k]):.0f} % interval"
        axis.fill_between(x, quantiles[:, k], quantiles[:, -1 - k], color=tint, lw=0, label=label)


def dot(points: int) -> str | None:
    """Return the marker of a line: a single point would be invisible without one."""
    return "." if points == 1 else None


def add_shared_legend(axes: np.ndarray) -> None:
    """Add one legend for all axes above them, and keep tick labels in the lowest row alone."""
    for axis in axes[:-1].flat:
        axis.tick_params(labelbottom=False)
    handles, labels = axes[0, 0].get_legend_handles_labels()
    unique = dict(zip(labels, handles, strict=True))
    axes[0, 0].figure.legend(unique.values(), unique.keys(), loc="upper left", ncols=len(unique))


def draw_test_rows(
    predictions: Predictions,
    columns: Sequence[str],
    stride: int,
    path: Path,
    times: WindowTimes | None = None,
) -> Picture:
    """Draw the test rows of up to three series, and forecasts of windows that do not overlap."""
    context, target = predictions["context"], predictions["target"]
    steps, series = target.shape[1], min(MAX_SERIES, target.shape[2])
    first = predictions["rows"] * stride  # test rows before each window's targets
    width, height = 760, 44 + 170 * series
    with drawing(path, width, height, rows=series, columns=1, head_px=24) as axes:
        for name, axis in enumerate(axes[:, 0]):
            end, shown = first[0] - steps, 0  # `end`: rows that are drawn already
            for window in range(len(first)):
                if (gap := first[window] - end) < 0:
                    continue
                both = np.append(context[window, :, name], target[window, :, name])
                values = both[-min(gap + steps + 1, len(both)) :]  # from the last drawn value on
                end, shown = first[window] + steps, shown + 1
                rows = np.arange(end - len(values), end) + 1
                axis.plot(rows, values, color=BLUE, lw=0.9, label="observed")
                draw_intervals(axis, rows[-steps:], predictions, window, name)
            axis.set_title(columns[name])
            if times:
                start = first[0] - min(steps, context.shape[1] - 1)
                places = np.arange(start, end + 1)
                times.label(axis, places, times.split[places + context.shape[1] - 1])
        axes[-1, 0].set_xlabel(times.name if times else "test row")
        add_shared_legend(axes)
    alt = f"The test rows, and {shown} forecasts of {steps} steps with their intervals."
    return Picture(path.name, width, height, alt)


def draw_errors_by_step(predictions: Predictions, names: Sequence[str], path: Path) -> Picture:
    """Draw the test errors of entry and baselines by step, and the interval's coverage."""
    steps, coverage = predictions["steps"], predictions["inside"]
    levels = predictions["quantile_levels"]
    ahead, nominal = np.arange(1, steps.shape[1] + 1), levels[-1] - levels[0]
    marker = dot(len(ahead))
    columns = 2 if len(levels) > 1 else 1  # the median alone has no interval
    with drawing(path, 380 * columns, 280, columns=columns, head_px=22) as axes:
        error = axes[0, 0]
        others = [colour for colour in PALETTE if colour != ORANGE]
        looks = [(colour, style) for style in ("-", "--") for colour in (INK, *others)]
        for name, row, (colour, style) in zip(names, steps[1:], looks, strict=False):
            error.plot(ahead, row, color=colour, ls=style, lw=0.9, marker=marker, label=name)
        error.plot(ahead, steps[0], color=ORANGE, lw=1.8, marker=marker, label="this entry")
        positive = steps[np.isfinite(steps) & (steps > 0)]
        if positive.size and positive.max() > 20 * positive.min():
            error.set_yscale("log")
            label_log_axis(error.yaxis)
        error.set(title="test mean squared error", xlabel="steps ahead")
        error.figure.legend(
            loc="upper left", ncols=len(steps) + 2, fontsize=7, handlelength=1.4, columnspacing=1.2
        )
        for share in axes[0, 1:]:
            share.axhline(nominal, color=INK, lw=0.8, ls="--", label="nominal coverage")
            share.plot(ahead, coverage, color=ORANGE, marker=marker, label="coverage")
            title = f"coverage of the {100 * nominal:.0f} % interval"
            share.set(title=title, xlabel="steps ahead", ylim=(0, 1.02))
        for axis in axes.flat:
            use_integer_ticks(axis.xaxis)
    first, last = (format_number(steps[0, k]) for k in (0, -1))
    alt = f"Mean squared error by step: {first} at the first, {last} at the last"
    if columns > 1:
        alt += f"; the coverage of the interval is {coverage.min():.2f} to {coverage.max():.2f}"
    return Picture(path.name, 380 * columns, 280, f"{alt}.")


def autocorrelation(values: np.ndarray, lags: int) -> np.ndarray:
    """Return the autocorrelation of values (n,) at lags 1 to `lags`.

    Box & Jenkins 1976, "Time Series Analysis", eq. 2.1.13.
    """
    centred = values - values.mean()
    total = float(centred @ centred) or 1.0
    return np.array([centred[k:] @ centred[:-k] / total for k in range(1, lags + 1)])


def draw_residuals(
    residuals: np.ndarray, name: str, path: Path, times: WindowTimes | None = None
) -> Picture:
    """Draw residuals (n,) of one step: over time, histogram, autocorrelation, normal plot."""
    residuals = residuals.astype(np.float64)
    n, fit = len(residuals), NormalDist(residuals.mean(), residuals.std() or 1.0)
    lags, bound = min(MAX_LAGS, n // 3), 1.96 / np.sqrt(n)
    with drawing(path, 760, 380, rows=2, columns=2) as axes:
        time, histogram, memory, normal = axes.flat
        time.axhline(0, color=INK, lw=0.6)
        time.plot(residuals, color=BLUE, lw=0.7, marker="." if n < 80 else None)
        what = f"residuals of {name}, forecast minus observed, by cutoff"
        time.set(title=what)
        if times and times.has_one_series:
            times.label(time, np.arange(n), times.cutoffs)
        else:
            time.set_xlabel("test window")
        histogram.hist(residuals, bins=min(40, max(8, n // 8)), density=True, color=GRID)
        x = np.linspace(residuals.min(), residuals.max(), 200)
        histogram.plot(x, [fit.pdf(value) for value in x], color=ORANGE)
        histogram.set(title="histogram and normal density")
        memory.axhspan(-bound, bound, color=GRID, alpha=0.6, lw=0)
        memory.vlines(np.arange(1, lags + 1), 0, autocorrelation(residuals, lags), color=BLUE)
        memory.axhline(0, color=INK, lw=0.6)
        title = "autocorrelation; white noise stays in the band 95 % of the time"
        memory.set(title=title, xlabel="lag in windows")
        expected = np.array([NormalDist().inv_cdf((k + 0.5) / n) for k in range(n)])
        normal.plot(expected, expected, color=INK, lw=0.6)
        standardised = np.sort((residuals - fit.mean) / fit.stdev)
        normal.plot(expected, standardised, ".", color=BLUE, ms=3)
        normal.set(title="standardised residuals over normal quantiles", xlabel="normal quantile")
    alt = (
        f"First step: mean residual {format_number(fit.mean)}, standard deviation "
        f"{format_number(fit.stdev)}, autocorrelation at lag 1 "
        f"{autocorrelation(residuals, 1)[0]:.2f}."
    )
    return Picture(path.name, 760, 380, alt)
