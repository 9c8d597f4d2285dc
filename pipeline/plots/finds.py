"""A detector's finds over an image: right, false and missed boxes differ in colour and in line."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np
from convline.colours import BLUE, INK, ORANGE, WHITE
from matplotlib.patches import Rectangle
from matplotlib.patheffects import Stroke

from pipeline.plots.style import Picture, drawing, show_image

Kind = Literal["right", "false", "missed"]
LOOK = {"right": (BLUE, "-"), "false": (ORANGE, (0, (4, 2))), "missed": (INK, (0, (1, 1.5)))}
SIDE_PX = 224  # CSS pixels of the longer side


def draw_finds(
    image: np.ndarray, boxes: list[tuple[np.ndarray, str, Kind]], alt: str, path: Path
) -> Picture:
    """Draw boxes, each with its name and kind, over a uint8 image (H, W, C).

    A box is x_min, y_min, x_max, y_max in pixels; pixel k covers k to k + 1.
    """
    rows, columns = image.shape[:2]
    width, height = (max(48, round(SIDE_PX * n / max(rows, columns))) for n in (columns, rows))
    with drawing(path, width, height) as axes:
        axis = axes[0, 0]
        show_image(axis, image, "")
        for (left, top, right, bottom), name, kind in boxes:
            colour, line = LOOK[kind]
            corner, size = (left - 0.5, top - 0.5), (right - left, bottom - top)
            around, frame = (Rectangle(corner, *size, fill=False, clip_on=False) for _ in range(2))
            around.set_path_effects([Stroke(linewidth=3.4, foreground=WHITE)])
            frame.set(edgecolor=colour, linestyle=line, linewidth=1.6)
            axis.add_patch(around)
            axis.add_patch(frame)
            text = axis.text(left, top, name, va="top", color=colour, weight="bold")
            text.set_bbox({"facecolor": WHITE, "edgecolor": "none", "alpha": 0.85, "pad": 0.8})
    return Picture(path.name, width, height, alt, kind="photograph")
