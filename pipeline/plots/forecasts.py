"""Pictures of a forecaster's backtest: fans over the test rows, errors by step, and what the residuals still hold."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from statistics import NormalDist

import numpy as np
from matplotlib.axes import Axes

from pipeline.plots.style import BLUE, GREEN, GRID, INK, ORANGE, PURPLE, Picture, drawing
from pipeline.report.tables import format_number

MOST_SERIES = 3
LAGS = 40
Answers = dict[
    str, np.ndarray
]  # context (M, T, D), target, forecast (M, S, D), quantiles (M, S, D, Q), their levels


def examples(answers: Answers, columns: Sequence[str], path: Path) -> Picture:
    """Draw the best, the median and the worst forecast (by squared error) of up to three series."""
    target, forecast = answers["target"], answers["forecast"]
    order = np.argsort(((forecast - target) ** 2).mean((1, 2)), kind="stable")
    chosen = {"best": order[0], "median": order[len(order) // 2], "worst": order[-1]}
    series = min(MOST_SERIES, target.shape[2])
    width, height = 760, 62 + 160 * series
    with drawing(path, width, height, rows=series, columns=len(chosen), head_px=24) as axes:
        for column, (name, window) in enumerate(chosen.items()):
            for row in range(series):
                example(axes[row, column], answers, window, row)
                axes[row, column].set_title(
                    f"{name} of {len(order)} windows: {columns[row]}".replace("$", r"\$")
                )
        axes[-1, 0].set_xlabel("steps from the last known")
        legend(axes)
    steps, shown = target.shape[1], f"{series} of {target.shape[2]} series"
    alt = f"History, target, forecast and its fan, {steps} steps ahead, in the best, median and worst window; {shown}."
    return Picture(path.name, width, height, alt)


def example(axis: Axes, answers: Answers, window: int, series: int) -> None:
    """Draw one window of one series; step 0 is the last value that the model has seen."""
    past = answers["context"][window, :, series]
    steps = answers["target"].shape[1]
    past = past[-max(2 * steps, 40) :]  # an older history would squeeze the forecast to nothing
    ahead = np.arange(1, steps + 1)
    axis.plot(np.arange(1 - len(past), 1), past, color=INK, lw=0.8, label="history")
    fan(axis, ahead, answers, window, series)
    axis.plot(
        ahead,
        answers["target"][window, :, series],
        color=BLUE,
        lw=1,
        marker=dot(steps),
        label="target",
    )


def fan(axis: Axes, x: np.ndarray, answers: Answers, window: int, series: int) -> None:
    """Draw a forecast in its nested intervals, the inner ones darker."""
    quantiles, levels = answers["quantiles"][window, :, series], answers["quantile_levels"]
    for k in range(len(levels) // 2):
        label = f"{100 * (levels[-1 - k] - levels[k]):.0f} % interval"
        ends, look = (
            (quantiles[:, k], quantiles[:, -1 - k]),
            {"color": ORANGE, "alpha": 0.2 + 0.2 * k, "lw": 0},
        )
        axis.fill_between(x, *ends, **look, label=label)
    forecast = answers["forecast"][window, :, series]
    axis.plot(x, forecast, color=ORANGE, lw=1, marker=dot(len(x)), label="forecast")


def dot(points: int) -> str | None:
    return "." if points == 1 else None


def legend(axes: np.ndarray) -> None:
    """Give all axes one legend, above them, and the numbers of the lowest row to those above it."""
    for axis in axes[:-1].flat:
        axis.tick_params(labelbottom=False)
    handles, labels = axes[0, 0].get_legend_handles_labels()
    once = dict(zip(labels, handles, strict=True))
    axes[0, 0].figure.legend(once.values(), once.keys(), loc="upper left", ncols=len(once))


def along(answers: Answers, columns: Sequence[str], stride: int, path: Path) -> Picture:
    """Draw the test rows of one series, and over them the forecasts of successive origins whose targets do not meet."""
    context, target = answers["context"], answers["target"]
    steps, series = target.shape[1], min(MOST_SERIES, target.shape[2])
    first = answers["rows"] * stride  # test rows before each window's targets
    width, height = 760, 44 + 170 * series
    with drawing(path, width, height, rows=series, columns=1, head_px=24) as axes:
        for name, axis in enumerate(axes[:, 0]):
            end, shown = first[0] - steps, 0  # rows drawn already
            for window in range(len(first)):
                if (gap := first[window] - end) < 0:
                    continue
                both = np.append(context[window, :, name], target[window, :, name])
                truth = both[-min(gap + steps + 1, len(both)) :]  # from the last that is drawn on
                end, shown = first[window] + steps, shown + 1
                axis.plot(
                    np.arange(end - len(truth), end) + 1, truth, color=BLUE, lw=0.9, label="truth"
                )
                fan(axis, np.arange(end - steps, end) + 1, answers, window, name)
            axis.set_title(columns[name].replace("$", r"\$"))
        axes[-1, 0].set_xlabel("test row")
        legend(axes)
    alt = f"The truth over the test rows, and {shown} forecasts of {steps} steps with their intervals over it."
    return Picture(path.name, width, height, alt)


def by_step(answers: Answers, names: Sequence[str], path: Path) -> Picture:
    """Draw the test error over the steps ahead, ours and the baselines', and what share the widest interval holds."""
    steps, held, levels = answers["steps"], answers["inside"], answers["quantile_levels"]
    ahead, nominal = np.arange(1, steps.shape[1] + 1), levels[-1] - levels[0]
    columns = 2 if len(levels) > 1 else 1  # the median alone has no interval
    with drawing(path, 380 * columns, 280, columns=columns, head_px=22) as axes:
        error = axes[0, 0]
        looks = [(c, style) for style in ("-", "--") for c in (INK, BLUE, GREEN, PURPLE)]
        for name, row, (colour, style) in zip(names, steps[1:], looks, strict=False):
            error.plot(
                ahead, row, color=colour, ls=style, lw=0.9, marker=dot(len(ahead)), label=name
            )
        error.plot(
            ahead, steps[0], color=ORANGE, lw=1.8, marker=dot(len(ahead)), label="this entry"
        )
        ends = steps[np.isfinite(steps) & (steps > 0)]
        if ends.size and ends.max() > 20 * ends.min():
            error.set_yscale("log")
        error.set(title="test mean squared error", xlabel="steps ahead")
        error.figure.legend(
            loc="upper left", ncols=len(steps) + 2, fontsize=7, handlelength=1.4, columnspacing=1.2
        )
        for share in axes[0, 1:]:
            share.axhline(nominal, color=INK, lw=0.8, ls="--", label="promised")
            share.plot(ahead, held, color=ORANGE, marker=dot(len(ahead)), label="held")
            share.set(
                title=f"share inside the {100 * nominal:.0f} % interval",
                xlabel="steps ahead",
                ylim=(0, 1.02),
            )
        for axis in axes.flat:
            axis.xaxis.get_major_locator().set_params(integer=True)
    alt = f"Mean squared error by step: {format_number(steps[0, 0])} at the first, {format_number(steps[0, -1])} at the last"
    alt += (
        f"; the interval holds {held.min():.2f} to {held.max():.2f} by step."
        if columns > 1
        else "."
    )
    return Picture(path.name, 380 * columns, 280, alt)


def autocorrelation(values: np.ndarray, lags: int) -> np.ndarray:
    """Return the autocorrelation of values (n,) at lags 1 to `lags`.

    Box & Jenkins 1976, "Time Series Analysis", eq. 2.1.13.
    """
    centred = values - values.mean()
    total = float(centred @ centred) or 1.0
    return np.array([centred[k:] @ centred[:-k] / total for k in range(1, lags + 1)])


def residuals(error: np.ndarray, name: str, path: Path) -> Picture:
    """Draw the errors of one step ahead (n,): over time, as a histogram, their autocorrelation, and beside a normal."""
    error = error.astype(np.float64)
    centre, spread, n = error.mean(), error.std() or 1.0, len(error)
    lags = min(LAGS, n // 3)
    bound = 1.96 / np.sqrt(n)
    with drawing(path, 760, 380, rows=2, columns=2) as axes:
        time, bars, memory, normal = axes.flat
        time.axhline(0, color=INK, lw=0.6)
        time.plot(error, color=BLUE, lw=0.7, marker="." if n < 80 else None)
        time.set(
            title=f"{name}: forecast less truth, one step ahead, by origin".replace("$", r"\$")
        )
        bars.hist(error, bins=min(40, max(8, n // 8)), density=True, color=GRID)
        x = np.linspace(error.min(), error.max(), 200)
        bars.plot(
            x,
            np.exp(-(((x - centre) / spread) ** 2) / 2) / (spread * np.sqrt(2 * np.pi)),
            color=ORANGE,
        )
        bars.set(title="their histogram, and the normal of that mean and spread")
        memory.axhspan(-bound, bound, color=GRID, alpha=0.6, lw=0)
        memory.vlines(np.arange(1, lags + 1), 0, autocorrelation(error, lags), color=BLUE)
        memory.axhline(0, color=INK, lw=0.6)
        memory.set(
            title="autocorrelation; white noise stays in the band 95 % of the time",
            xlabel="origins apart",
        )
        expected = np.array([NormalDist().inv_cdf((k + 0.5) / n) for k in range(n)])
        normal.plot(expected, expected, color=INK, lw=0.6)
        normal.plot(expected, np.sort((error - centre) / spread), ".", color=BLUE, ms=3)
        normal.set(title="quantiles, standardised, over the normal's", xlabel="normal")
    first = autocorrelation(error, 1)[0]
    alt = f"First step: mean error {format_number(centre)}, spread {format_number(spread)}, autocorrelation {first:.2f} at lag 1."
    return Picture(path.name, 760, 380, alt)
