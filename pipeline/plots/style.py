"""Every matplotlib picture of the report, in one style.

Pictures have a transparent ground and dark ink; style.css turns them light for a dark page, so each is drawn once.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter
from PIL import Image

# Okabe & Ito 2008, "Color Universal Design": told apart with every common colour vision.
BLUE, ORANGE, GREEN, PURPLE = "#0072B2", "#D55E00", "#009E73", "#CC79A7"
INK, GRID = "#333333", "#cccccc"
STYLE = {
    "font.size": 8,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.titlelocation": "left",
    "axes.titlesize": 8,
    "axes.prop_cycle": matplotlib.cycler(color=[BLUE, ORANGE, GREEN, PURPLE]),
    "grid.color": GRID,
    "grid.linewidth": 0.4,
    "lines.linewidth": 1.4,
    "legend.frameon": False,
    "legend.fontsize": 8,
}
CSS_DPI = 96  # one CSS pixel
PIXEL_RATIO = 2  # drawn at twice that, for sharp text on phones


@dataclass(frozen=True)
class Picture:
    """An image of the report: file name under img/, size in CSS pixels, and what it says to who cannot see it."""

    file: str
    width: int
    height: int
    alt: str
    spec: dict[str, Any] | None = None  # of a chart that the page draws itself


@contextmanager
def drawing(
    path: Path, width_px: int, height_px: int, *, rows: int = 1, columns: int = 1, head_px: int = 0
) -> Iterator[np.ndarray]:
    """Yield axes (rows, columns) of a new figure, and write it to `path` at the end; head_px is kept for a legend."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(width_px / CSS_DPI, height_px / CSS_DPI))
        FigureCanvasAgg(figure)
        yield figure.subplots(rows, columns, squeeze=False)
        figure.tight_layout(pad=0.4, rect=(0, 0, 1, 1 - head_px / height_px))
        path.unlink(missing_ok=True)  # a link to DVC's cache is replaced, not written through
        figure.savefig(path, dpi=CSS_DPI * PIXEL_RATIO, transparent=True)


def small_curve(
    history: list[dict[str, Any]], best_epoch: int | None, limits: tuple[float, float], path: Path
) -> Picture:
    """Draw the loss alone, small, on a scale that its neighbours share."""
    with drawing(path, 210, 120) as axes:
        draw_curves(axes[0, 0], history, "loss", best_epoch)
        axes[0, 0].set(ylim=limits)
    return Picture(
        path.name, 210, 120, f"Validation loss ends at {history[-1]['validation_loss']:.3g}."
    )


def draw_curves(
    axis: Axes, history: list[dict[str, Any]], measure: str, best_epoch: int | None
) -> None:
    """Draw training and validation values; a dot marks the epoch that was kept."""
    epochs = [row["epoch"] for row in history]
    for split, colour in (("train", BLUE), ("validation", ORANGE)):
        values = [row[f"{split}_{measure}"] for row in history]
        marker = "." if len(values) == 1 else None
        axis.plot(epochs, values, color=colour, label=split, marker=marker)
        if split == "validation" and best_epoch in epochs:
            axis.plot(
                [best_epoch],
                [values[epochs.index(best_epoch)]],
                "o",
                color=colour,
                ms=4,
                label="kept",
            )
    if measure == "loss":
        axis.set_yscale("log")
        low, high = axis.get_ylim()
        axis.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if high < 50 * low else (1,)))
        axis.yaxis.set_major_formatter("{x:g}")
        axis.yaxis.set_minor_formatter(NullFormatter())
    axis.xaxis.get_major_locator().set_params(integer=True)


def loss_limits(histories: list[list[dict[str, Any]]]) -> tuple[float, float]:
    """Return limits of a logarithmic axis that hold every positive loss of all histories."""
    losses = [
        row[key] for rows in histories for row in rows for key in ("train_loss", "validation_loss")
    ]
    losses = [loss for loss in losses if loss > 0 and math.isfinite(loss)] or [1.0]
    return min(losses) / 1.3, max(losses) * 1.3


def enlarge(image: np.ndarray, path: Path, alt: str, side_px: int = 112) -> Picture:
    """Write a uint8 image (H, W, C) so that its longer side is near `side_px`; small ones keep their pixels visible."""
    picture = Image.fromarray(image[:, :, 0] if image.shape[2] == 1 else image)
    longer = max(picture.size)
    if longer <= side_px:
        factor = side_px // longer
        picture = picture.resize(
            (picture.width * factor, picture.height * factor), Image.Resampling.NEAREST
        )
    else:
        picture.thumbnail((side_px * PIXEL_RATIO, side_px * PIXEL_RATIO))
    picture.save(path)
    scale = side_px / max(picture.size)
    return Picture(
        path.name, max(1, round(picture.width * scale)), max(1, round(picture.height * scale)), alt
    )


def neighbour_rows(
    rows: list[tuple[np.ndarray, str, list[np.ndarray], list[str]]], path: Path
) -> Picture:
    """Draw queries at the left, each with its nearest images: green frames for the same class, orange for others.

    rows: query (H, W, C) and its class; neighbours and theirs, the nearest first.
    """
    columns = 1 + max(len(found) for _, _, found, _ in rows)
    width, height = 96 * columns, 112 * len(rows)
    with drawing(path, width, height, rows=len(rows), columns=columns) as axes:
        for line, (query, label, found, classes) in zip(axes, rows, strict=True):
            shown = [(query, f"query: {label}", INK)]
            shown += [
                (x, name, GREEN if name == label else ORANGE)
                for x, name in zip(found, classes, strict=True)
            ]
            for axis, (image, title, colour) in zip(line, shown, strict=True):
                axis.imshow(image.squeeze(), cmap="gray", vmin=0, vmax=255, interpolation="nearest")
                axis.set(xticks=[], yticks=[])
                axis.set_title(title, loc="center")
                for spine in axis.spines.values():
                    spine.set(visible=True, edgecolor=colour, linewidth=2)
    return Picture(
        path.name, width, height, "Test images, each with the training images nearest to it."
    )


def adopt(source: Path, path: Path, alt: str, max_width_px: int = 760) -> Picture:
    """Copy a picture made elsewhere, to be shown no wider than `max_width_px`."""
    path.write_bytes(source.read_bytes())
    with Image.open(path) as picture:
        width, height = picture.size
    scale = min(1.0, max_width_px / width)
    return Picture(path.name, round(width * scale), round(height * scale), alt)
