"""The line beside the literature: accuracy over multiply-adds, ours and published, and the depth of ILSVRC's entries.

Published numbers lie in templates/published.json: `imagenet` is the metadata of torchvision's IMAGENET1K_V1 weights
(multiply-adds in billions, top-1 in percent), `ilsvrc` has the source of each row in the row.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.text import Text
from matplotlib.ticker import EngFormatter, LogLocator, NullFormatter
from matplotlib.transforms import Bbox

from pipeline.evidence import Entry
from pipeline.figures import BLUE, GREEN, INK, ORANGE, PURPLE, Picture, drawing
from pipeline.table import scaled

PUBLISHED = json.loads((Path(__file__).parent / "templates" / "published.json").read_text(encoding="utf-8"))
WIDTH, HEIGHT, HEAD = 610, 440, 36  # CSS pixels; two stand side by side on the page
LARGEST = 600  # points^2, the disc of the most parameters in a picture
GREY = "#777777"  # published, never a colour of ours
COLOURS, SHAPES = (BLUE, ORANGE, GREEN, PURPLE), "os^Dv"  # 20 pairs before one comes again
SIDES = [(1, 0), (-1, 0), (0, 1), (0, -1), (1, 1), (-1, 1), (1, -1), (-1, -1)]
LINE = {"arrowstyle": "-", "lw": 0.5, "color": GREY, "shrinkA": 0, "shrinkB": 0}
HORIZONTAL, VERTICAL = {1: "left", 0: "center", -1: "right"}, {1: "bottom", 0: "center", -1: "top"}


@dataclass(frozen=True)
class Network:
    """One bubble: `y` with its interval, in percent or milliseconds; `group` is its data set."""

    name: str
    group: str
    parameters: int
    macs: float
    y: float
    low: float
    high: float


def measured(entries: list[Entry]) -> list[Network]:
    """Return the test accuracy in percent of each classifier that is trained and checked."""
    return [
        network(entry, *(100 * entry.metric[key] for key in ("value", "low", "high")))
        for entry in entries
        if entry.metric and entry.metric["name"] == "accuracy" and "train" in entry.results
    ]


def timed(entries: list[Entry]) -> list[Network]:
    """Return the latency on the CPU (p50 in milliseconds, batch 1) of those of `measured` that have one."""
    p50 = {entry.name: entry.latencies.get("cpu") for entry in entries}
    kept = {found.name for found in measured(entries)}
    return [network(entry, *[p50[entry.name]] * 3) for entry in entries if entry.name in kept and p50[entry.name]]


def network(entry: Entry, y: float, low: float, high: float) -> Network:
    train = entry.results["train"]
    return Network(entry.name, entry.recipe["data"]["set"], train["parameters"], train["macs"], y, low, high)


def published() -> list[Network]:
    """Return ImageNet-1k top-1 in percent of the networks in torchvision's metadata."""
    rows = PUBLISHED["imagenet"].items()
    return [Network(name, "", row["parameters"], 1e9 * row["gmacs"], *[row["top1"]] * 3) for name, row in rows]


def pictures(entries: list[Entry], img: Path) -> dict[str, Picture]:
    """Return the pictures by name; none before a classifier of ours can stand beside the published ones."""
    ours, times = measured(entries), timed(entries)
    if not ours:
        return {}
    sets = sorted({found.group for found in ours})
    where = f"on the test split of {sets[0]}" if len(sets) == 1 else "each on the test split of its own set"
    accuracy, top1 = "test accuracy, %", "ImageNet-1k top-1 accuracy, %"
    drawn = {"accuracy": bubbles(ours, f"this line: measured here, {where}", accuracy, img / "landscape.accuracy.png")}
    title = "published: ImageNet-1k, torchvision's weight metadata"
    drawn["published"] = bubbles(published(), title, top1, img / "landscape.published.png")
    if times:
        title, label = "this line: measured here, onnxruntime on the CPU at batch 1", "latency p50, ms"
        drawn["latency"] = bubbles(times, title, label, img / "landscape.latency.png", log=True)
    return drawn | {"depth": depth_by_year(img / "landscape.depth.png")}


def bubbles(networks: list[Network], title: str, measure: str, path: Path, *, log: bool = False) -> Picture:
    """Draw `measure` over multiply-adds, parameters as area (Canziani et al. 2016, arXiv:1605.07678, figure 2)."""
    most = max(found.parameters for found in networks)
    groups = sorted({found.group for found in networks})
    marks = {group: (COLOURS[i % 4], SHAPES[i % 5]) if group else (GREY, "o") for i, group in enumerate(groups)}
    with drawing(path, WIDTH, HEIGHT, head_px=HEAD) as axes:
        axis = axes[0, 0]
        for found in networks:
            colour, marker = marks[found.group]
            size = LARGEST * found.parameters / most
            axis.scatter(found.macs, found.y, size, color=colour, alpha=0.25, lw=0)
            axis.plot([found.macs] * 2, [found.low, found.high], color=colour, lw=0.6)
            axis.plot(found.macs, found.y, marker, color=colour, ms=3)  # seen where the disc is too small to be
        axis.set(title=title, xlabel="multiply-adds for one input", ylabel=measure, xscale="log")
        axis.margins(0.09)
        axis.xaxis.set_major_formatter(EngFormatter())
        if log:
            axis.set_yscale("log")
            axis.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axis.yaxis.set_major_formatter("{x:g}")
            axis.yaxis.set_minor_formatter(NullFormatter())
        size_legend(axis, most, {group: mark for group, mark in marks.items() if len(groups) > 1})
        axis.figure.tight_layout(pad=0.4, rect=(0, 0, 1, 1 - HEAD / HEIGHT))  # names are placed on the final scale
        put_names(axis, networks, most)
    lowest, highest = (choose(networks, key=lambda found: found.y) for choose in (min, max))
    ends = [f"{found.name} with {found.y:.3g} at {scaled(found.macs).strip()}" for found in (lowest, highest)]
    alt = f"{title}; {measure} over multiply-adds of {len(networks)} networks: from {ends[0]} to {ends[1]}."
    return Picture(path.name, WIDTH, HEIGHT, alt)


def size_legend(axis: Axes, most: int, marks: dict[str, tuple[str, str]]) -> None:
    """Say above the axes how many parameters an area stands for, and which colour and shape is which data set."""
    decade = 10 ** math.floor(math.log10(most))
    style = {"ls": "", "alpha": 0.4, "mew": 0}
    sizes = [n for n in (decade // 10, decade, 5 * decade) if 0 < n <= most]
    keys = [Line2D([], [], ls="", label="area, parameters:")]
    keys += [
        Line2D([], [], marker="o", color=GREY, ms=math.sqrt(LARGEST * n / most), label=EngFormatter()(n), **style)
        for n in sizes
    ]
    keys += [Line2D([], [], marker=shape, color=colour, ms=5, label=g, **style) for g, (colour, shape) in marks.items()]
    axis.figure.legend(handles=keys, loc="upper left", ncols=len(keys), handletextpad=0.6, columnspacing=1.2)


def put_names(axis: Axes, networks: list[Network], most: int) -> None:
    """Name each bubble where the name touches nothing, far off with a line to it; one without such a place has none."""
    to_pixels, frame, pixel = axis.transData.transform, axis.get_window_extent(), axis.figure.dpi / 72
    radii = {found: max(3, math.sqrt(LARGEST * found.parameters / most) / 2) for found in networks}  # points
    renderer = axis.figure.canvas.get_renderer()
    taken, words = [], []
    for found, radius in radii.items():
        low, middle, high = (to_pixels((found.macs, y)) for y in (found.low, found.y, found.high))
        inner = 0.7 * radius * pixel  # half the side of the square inside the disc
        taken += [Bbox([low - 1, high + 1]), Bbox([middle - inner, middle + inner])]
    places = [(gap, right, up) for gap in (2, 10, 20, 32) for right, up in SIDES]
    for found in sorted(networks, key=lambda found: -found.parameters):
        for gap, right, up in places:
            offset = np.array([right, up]) * (radii[found] + gap) / math.hypot(right, up)
            sides = {"ha": HORIZONTAL[right], "va": VERTICAL[up], "textcoords": "offset points", "fontsize": 7}
            line = LINE | {"relpos": (0.5 - right / 2, 0.5 - up / 2)} if gap > 2 else None
            text = axis.annotate(found.name, (found.macs, found.y), offset, **sides, arrowprops=line)
            text.update_positions(renderer)
            box = Text.get_window_extent(text, renderer).padded(2, 0)  # of the words alone, without the line
            steps = np.linspace((0, 0), offset * pixel, 12) if line else []
            way = [Bbox([step - 1, step + 1]).translated(*to_pixels((found.macs, found.y))) for step in steps]
            inside = all(frame.contains(*corner) for corner in (box.min, box.max))
            if inside and not box.count_overlaps(taken) and not any(word.count_overlaps(way) for word in words):
                words.append(box)
                taken += [box, *way]
                break
            text.remove()


def depth_rows() -> list[list[Any]]:
    """Return name, year, weight layers, top-5 error and source of each entry of ILSVRC, oldest first."""
    return [[*map(row.get, ("name", "year")), depth(row), row["error"], row["source"]] for row in PUBLISHED["ilsvrc"]]


def depth(row: dict[str, Any]) -> int | str:
    return row["depth"] or row["instead"]


def depth_by_year(path: Path) -> Picture:
    """Draw weight layers and top-5 error of ILSVRC's entries, oldest first; who did not win its year is faint."""
    rows = PUBLISHED["ilsvrc"]
    places, colours = range(len(rows)), [INK if row["won"] else "#aaaaaa" for row in rows]
    with drawing(path, WIDTH, HEIGHT, rows=2) as axes:
        titles = ("published: weight layers (faint: did not win its year)", "published: ILSVRC top-5 test error, %")
        for axis, key, title in zip(axes[:, 0], ("depth", "error"), titles, strict=True):
            bars = axis.bar(places, [row[key] or 0 for row in rows], color=colours, width=0.6)
            axis.bar_label(bars, [row["error"] if key == "error" else depth(row) for row in rows], padding=2)
            axis.set_title(title)
            axis.margins(y=0.2)
            axis.grid(visible=False, axis="x")
            axis.set_xticks(places, [f"{row['name']}\n{row['year']}" for row in rows])
    said = "; ".join(f"{r['year']} {r['name']} {depth(r)}, {r['error']} %" for r in rows)
    return Picture(path.name, WIDTH, HEIGHT, f"Weight layers and published top-5 error of ILSVRC entries: {said}.")
