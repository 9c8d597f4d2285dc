"""Charts of a classifier: its calibration, its confidence, and precision against recall."""

from __future__ import annotations

from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from convline.colours import BLUE, INK, ORANGE, PALETTE
from matplotlib.ticker import PercentFormatter

from pipeline.plots.style import Picture, drawing, format_number, label_log_axis

WIDTH, HEIGHT = 392, 280  # three side by side on a page of 1,280 px
COUNTS_PX = 34  # above a reliability diagram, for the counts of its bins
LOG_FROM = 20  # a ratio of counts from which the smaller one would be invisible
PERCENT = PercentFormatter(1, decimals=0, symbol="\u00a0%")
LINES = [(colour, line) for line, colour in product(("-", "--", ":"), PALETTE[:4])]
NEUTRAL = (0, (3, 3))  # the dashes of a line that is not measured


def draw_reliability(bins: list[dict[str, Any]], error: float, path: Path) -> Picture:
    """Draw the accuracy of each bin of `calibration.reliability_bins`, the counts above it."""
    x, y = (np.array([row[key] for row in bins]) for key in ("confidence", "accuracy"))
    ends = np.array([[row["accuracy"] - row["low"], row["high"] - row["accuracy"]] for row in bins])
    with drawing(path, WIDTH, HEIGHT, head_px=COUNTS_PX) as axes:
        axis = axes[0, 0]
        axis.plot([0, 1], [0, 1], color=INK, linewidth=0.8, linestyle=NEUTRAL)
        bars = {"fmt": "o", "markersize": 4, "elinewidth": 1.2, "capsize": 2}
        # rounding puts an end of Wilson's interval beyond a share of 0 or 1
        axis.errorbar(x, y, ends.T.clip(0), color=BLUE, **bars)
        axis.set(xlim=(0, 1.02), ylim=(0, 1.02), xlabel="probability of the predicted class")
        axis.set_ylabel("share of right predictions")
        above = {"transform": axis.get_xaxis_transform(), "fontsize": 7, "va": "bottom"}
        for row in bins:
            middle = (row["from"] + row["to"]) / 2
            axis.text(middle, 1.03, f"{row['n']:,}", rotation=90, ha="center", **above)
        axis.set_title("images in each bin:", fontsize=7, loc="left", pad=COUNTS_PX * 0.5)
    alt = (
        f"Reliability diagram of {len(bins)} bins: share of right predictions over the probability "
        f"of the predicted class; expected calibration error {error:.3f}."
    )
    return Picture(path.name, WIDTH, HEIGHT, alt)


def draw_confidence(confidence: np.ndarray, right: np.ndarray, path: Path) -> Picture:
    """Draw how many right (n,) and wrong predictions have which confidence (n,)."""
    edges = np.linspace(0, 1, 21)
    edges = edges[min(int(20 * confidence.min()), 10) :]
    counts = [np.histogram(confidence[kind], edges)[0] for kind in (right, ~right)]
    most = max(int(count.max()) for count in counts)
    fewest = min((int(count.max()) for count in counts if count.any()), default=1)
    width = (edges[1] - edges[0]) * 0.42
    middles = (edges[:-1] + edges[1:]) / 2
    with drawing(path, WIDTH, HEIGHT) as axes:
        axis = axes[0, 0]
        kinds = zip(counts, ("right", "wrong"), (BLUE, ORANGE), (-0.5, 0.5), strict=True)
        for count, name, colour, side in kinds:
            label = f"{name}: {count.sum():,}"
            axis.bar(middles + side * width, count, width, color=colour, label=label)
        if most > LOG_FROM * fewest:
            axis.set_yscale("log")
            axis.set_ylim(0.7, most * 1.6)
            label_log_axis(axis.yaxis)
        axis.set(xlabel="probability of the predicted class", ylabel="test images")
        axis.legend(loc="upper left")
    kinds_text = f"{right.sum():,} right and {(~right).sum():,} wrong predictions"
    alt = f"Histogram of the probability of {kinds_text}."
    return Picture(path.name, WIDTH, HEIGHT, alt)


def draw_coverage(
    curve: tuple[np.ndarray, np.ndarray], points: list[dict[str, Any]], path: Path
) -> Picture:
    """Draw the accuracy of the rest over the share of images that are sent to a person.

    curve: both shares (n,); points: rows of `calibration.accuracy_above`, marked as thresholds.
    """
    lowest = min(0.98, *curve[1])  # some height also where nothing is wrong
    height = 1 - lowest
    with drawing(path, WIDTH, HEIGHT) as axes:
        axis = axes[0, 0]
        axis.plot(*curve, color=BLUE, drawstyle="steps-post")
        labelled: list[tuple[float, float]] = []
        for row in [row for row in points if row["n"]]:
            x, y = row["sent"], row["accuracy"]
            axis.plot(x, y, "o", color=ORANGE, markersize=4)
            if all(abs(x - u) > 0.06 or abs(y - v) > 0.08 * height for u, v in labelled):
                labelled.append((x, y))
                text = f"{row['threshold']:g}".lstrip("0")
                at = {"textcoords": "offset points", "ha": "right", "fontsize": 7}
                axis.annotate(text, (x, y), (-3, 4), **at)
        axis.set(xlim=(-0.06, 1.02), ylim=(lowest - 0.1 * height, 1 + 0.1 * height))
        axis.set(xlabel="share sent to a person", ylabel="accuracy of the rest")
        axis.xaxis.set_major_formatter(PERCENT)
    alt = "Accuracy of the predictions that are kept, over the share of images sent to a person."
    return Picture(path.name, WIDTH, HEIGHT, alt)


def draw_precision_recall(
    curves: list[tuple[str, float, np.ndarray, np.ndarray]], path: Path
) -> Picture:
    """Draw precision over recall of up to 12 classes: name, average precision, precision, recall.

    precision and recall (thresholds,), recall falling, as scikit-learn returns them.
    """
    width = WIDTH + 100  # for the legend
    with drawing(path, width, HEIGHT) as axes:
        axis = axes[0, 0]
        for (name, average, precision, recall), (colour, line) in zip(curves, LINES, strict=False):
            look = {"color": colour, "linestyle": line, "drawstyle": "steps-post"}
            axis.plot(recall, precision, **look, label=f"{format_number(average)}  {shorten(name)}")
        axis.set(xlim=(0, 1.02), ylim=(0, 1.02), xlabel="recall", ylabel="precision")
        title = {"title": "average precision", "alignment": "left", "title_fontsize": 8}
        axis.legend(loc="upper left", bbox_to_anchor=(1.01, 1.02), **title)
    alt = f"Precision over recall of {len(curves)} classes."
    return Picture(path.name, width, HEIGHT, alt)


def shorten(name: str, most: int = 14) -> str:
    """Return a name for a legend: its middle is left out if it is longer than `most`."""
    if len(name) > most:
        half = (most - 1) // 2
        name = f"{name[:half]}…{name[-half:]}"
    return name
