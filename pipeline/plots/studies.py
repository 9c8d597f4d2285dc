"""Plots of a study's measures and curves."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from convline.colours import BLUE, INK, ORANGE
from matplotlib.axes import Axes
from matplotlib.ticker import PercentFormatter

from pipeline.evaluate.over_seeds import (
    Row,
    Summary,
    crossed_values,
    summarize,
    t_interval,
    variance_shares,
)
from pipeline.params import schema
from pipeline.params.schema import Study
from pipeline.plots.style import Picture, drawing, label_log_axis

KINDS = {  # of the curves' intervals; every other one is of a share
    "gradient at the start": "error",
    "gradient at the end": "error",
    "epochs to settle": "count",
}


def draw_study(study: Study, rows: list[Row], path: Path, alt: str) -> Picture:
    """Draw each measure as intervals with a dot for each seed, or as lines; then the curves."""
    if study.factors:
        return draw_factors(study, rows, path, alt)
    names, summary = [*study.measures, *study.curves], summarize(rows)
    columns = 1 if len(names) == 1 else 2
    lines = -(-len(names) // columns)
    listed = 0 if study.lines else len(summary)
    height = 60 + 22 * max(listed, 9 if study.curves or study.lines else 0)
    width, height = 760, height * lines
    with drawing(path, width, height, rows=lines, columns=columns) as axes:
        for axis, name in zip(axes.flat, names, strict=False):
            axis.set(title=name)
            if name in study.curves:
                draw_curve(axis, name, study, rows)
            elif study.lines:
                draw_lines(axis, name, study.lines, summary)
            else:
                draw_intervals(axis, name, summary, rows, named=axis in axes[:, 0])
        for axis in axes.flat[len(names) :]:
            axis.set_visible(False)
    return Picture(path.name, width, height, alt)


def draw_factors(study: Study, rows: list[Row], path: Path, alt: str) -> Picture:
    """Draw each measure with its interval by level of the first factor, in the colour of the
    second's; beside it the shares of its variance.
    """
    width, height = 760, (60 + 28 * len(next(iter(study.factors.values())))) * len(study.measures)
    with drawing(path, width, height, rows=len(study.measures), columns=2) as axes:
        for (left, right), measure in zip(axes, study.measures, strict=True):
            left.set(title=measure)
            draw_levels(left, measure, study.factors, summarize(rows))
            draw_shares(right, study.factors, crossed_values(rows, study.factors, measure))
            right.set(title=f"share of the variance of {measure}")
    return Picture(path.name, width, height, alt)


def draw_levels(axis: Axes, measure: str, factors: dict[str, list[str]], summary: Summary) -> None:
    """Draw means and intervals: a row for each level of the first factor."""
    rows, colours = factors.values()
    for k, level in enumerate(colours):
        y = [at + 0.22 * (k - (len(colours) - 1) / 2) for at in range(len(rows))]
        points = [summary[f"{row}, {level}"][measure] for row in rows]
        mean, low, high = zip(*points, strict=True)
        (line,) = axis.plot(mean, y, "o", ms=4, label=level)
        axis.hlines(y, low, high, line.get_color(), lw=4, alpha=0.35)
    axis.set(yticks=range(len(rows)), yticklabels=rows)
    axis.invert_yaxis()
    axis.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=len(colours), borderpad=0)


def draw_shares(axis: Axes, factors: dict[str, list[str]], values: np.ndarray) -> None:
    """Draw the shares of the variance of values (A, B, S) as bars."""
    shares = variance_shares(values)
    bars = axis.barh([*factors, "interaction", "seed"], shares, color=BLUE, height=0.6)
    axis.bar_label(bars, [f"{share:.0%}" for share in shares], padding=3)
    axis.set(xlim=(0, 1))
    axis.xaxis.set_major_formatter(PercentFormatter(1))
    axis.invert_yaxis()


def draw_intervals(
    axis: Axes, measure: str, summary: Summary, rows: list[Row], named: bool
) -> None:
    """Draw a measure's mean and interval for each setting, and a dot for each seed."""
    for y, (setting, by_measure) in enumerate(summary.items()):
        if measure in by_measure:
            mean, low, high = by_measure[measure]
            dots = [r["value"] for r in rows if (r["setting"], r["measure"]) == (setting, measure)]
            axis.plot([low, high], [y, y], color=BLUE, lw=4, alpha=0.35, solid_capstyle="butt")
            axis.plot(dots, [y] * len(dots), ".", color=ORANGE, ms=4)
            axis.plot([mean], [y], "|", color=BLUE, ms=11, mew=2)
    axis.set(yticks=range(len(summary)), yticklabels=list(summary) if named else [])
    if schema.MEASURES[measure][1] == "error":
        axis.set_xscale("log")
        label_log_axis(axis.xaxis)
    axis.invert_yaxis()


def draw_lines(axis: Axes, measure: str, lines: dict[str, list[str]], summary: Summary) -> None:
    """Draw each line through its settings, with intervals, and other settings as levels."""
    joined = {setting for settings in lines.values() for setting in settings}
    last = max(len(settings) for settings in lines.values())
    for name, settings in lines.items():
        mean, low, high = zip(*(summary[setting][measure] for setting in settings), strict=True)
        x = range(1, len(settings) + 1)
        (line,) = axis.plot(x, mean, ".-", label=name)
        axis.fill_between(x, low, high, color=line.get_color(), alpha=0.15, lw=0)
    for setting in summary.keys() - joined:
        level = summary[setting][measure][0]
        axis.hlines(level, 1, last, INK, "dotted", lw=1, label=setting)
    axis.set_xticks(range(1, last + 1))
    axis.legend(loc="center left", bbox_to_anchor=(1, 0.5))


def draw_curve(axis: Axes, curve: str, study: Study, rows: list[Row]) -> None:
    """Draw each setting's mean over seeds with its interval, by epoch or by depth of a layer."""
    kind = KINDS.get(curve, "share")
    for k, setting in enumerate(study.settings):
        points: dict[float, list[float]] = {}
        for row in rows:
            if (row["setting"], row["measure"]) == (setting, curve):
                points.setdefault(row["x"], []).append(row["value"])
        x = sorted(points)
        mean, low, high = zip(*(t_interval(points[at], kind) for at in x), strict=True)
        style = "-" if k < 4 else "--"  # there are four colours
        (line,) = axis.plot(x, mean, style, label=setting)
        axis.fill_between(x, low, high, color=line.get_color(), alpha=0.15, lw=0)
    axis.set(xlabel="layer, from input (0) to output (1)" if curve in KINDS else "epoch")
    if kind == "error":
        axis.set_yscale("log")
        label_log_axis(axis.yaxis)
    if curve == study.curves[0]:
        axis.legend(loc="upper left", bbox_to_anchor=(0, -0.22), ncols=2)
