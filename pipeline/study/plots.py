"""Plots of a study's measures and curves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pipeline.params import schema
from pipeline.params.schema import Study
from pipeline.study.measures import CURVES
from pipeline.study.runs import Row, interval, summary


def draw(path: Path, study: Study, rows: list[Row]) -> None:
    """Draw each measure, every setting's seeds as dots, its mean and interval as a bar; below, the curves."""
    from pipeline.plots import style

    names, groups = [*study.measures, *study.curves], summary(rows)
    path.parent.mkdir(parents=True, exist_ok=True)
    columns = 1 if len(names) == 1 else 2
    lines = -(-len(names) // columns)
    height = 60 + 22 * max(
        0 if study.lines else len(groups), 9 if study.curves or study.lines else 0
    )
    with style.drawing(path, 760, height * lines, rows=lines, columns=columns) as axes:
        for axis, name in zip(axes.flat, names, strict=False):
            axis.set(title=name)
            if name in CURVES:
                draw_curve(axis, name, study, rows)
            elif study.lines:
                draw_lines(axis, name, study.lines, groups)
            else:
                draw_measure(axis, name, groups, rows, named=axis in axes[:, 0])
        for axis in axes.flat[len(names) :]:
            axis.set_visible(False)


def draw_measure(
    axis: Any, measure: str, groups: dict[str, Any], rows: list[Row], named: bool
) -> None:
    from pipeline.plots import style

    for y, (setting, by) in enumerate(groups.items()):
        if measure in by:
            mean, low, high = by[measure]
            dots = [r["value"] for r in rows if (r["setting"], r["measure"]) == (setting, measure)]
            axis.plot(
                [low, high], [y, y], color=style.BLUE, lw=4, alpha=0.35, solid_capstyle="butt"
            )
            axis.plot(dots, [y] * len(dots), ".", color=style.ORANGE, ms=4)
            axis.plot([mean], [y], "|", color=style.BLUE, ms=11, mew=2)
    axis.set(yticks=range(len(groups)), yticklabels=list(groups) if named else [])
    axis.set_xscale("log" if schema.MEASURES[measure][1] == "error" else "linear")
    axis.invert_yaxis()


def draw_lines(
    axis: Any, measure: str, lines: dict[str, list[str]], groups: dict[str, Any]
) -> None:
    """Draw the means and intervals of joined settings over their places, and of the others as levels."""
    joined = {setting for settings in lines.values() for setting in settings}
    last = max(len(settings) for settings in lines.values())
    for name, settings in lines.items():
        mean, low, high = zip(*(groups[setting][measure] for setting in settings), strict=True)
        x = range(1, len(settings) + 1)
        (line,) = axis.plot(x, mean, ".-", label=name)
        axis.fill_between(x, low, high, color=line.get_color(), alpha=0.15, lw=0)
    for setting in groups.keys() - joined:
        axis.hlines(groups[setting][measure][0], 1, last, "k", "dotted", lw=1, label=setting)
    axis.set_xticks(range(1, last + 1))
    axis.legend(loc="center left", bbox_to_anchor=(1, 0.5))


def draw_curve(axis: Any, curve: str, study: Study, rows: list[Row]) -> None:
    """Draw the settings' means over seeds with their intervals, by epoch or by the place of a layer."""
    kind = {
        "gradient at the start": "error",
        "gradient at the end": "error",
        "epochs to settle": "count",
    }.get(curve)
    for k, setting in enumerate(study.settings):
        points: dict[float, list[float]] = {}
        for row in rows:
            if (row["setting"], row["measure"]) == (setting, curve):
                points.setdefault(row["x"], []).append(row["value"])
        x = sorted(points)
        mean, low, high = zip(*(interval(points[at], kind or "share") for at in x), strict=True)
        (line,) = axis.plot(
            x, mean, "-" if k < 4 else "--", label=setting
        )  # the style has four colours
        axis.fill_between(x, low, high, color=line.get_color(), alpha=0.15, lw=0)
    axis.set(xlabel="layer, from input (0) to answer (1)" if kind else "epoch")
    axis.set_yscale("log" if kind == "error" else "linear")
    if curve == study.curves[0]:
        axis.legend(loc="upper left", bbox_to_anchor=(0, -0.22), ncols=2)
