"""The one style of all matplotlib pictures, and pictures of image files.

Pictures have a transparent background and dark ink, and each is drawn once. Its kind says what a
dark page does with it (style.css): a chart is turned light, its hues kept; a photograph, or a map
whose colours mean values, is shown as it is, on a light ground.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import matplotlib
import numpy as np
from convline.colours import BLUE, GRID, INK, ORANGE, PALETTE
from matplotlib import rcsetup
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullLocator
from PIL import Image

MAX_DECADES = 8  # that are labelled on a logarithmic axis: labels of more would overlap
STYLE: dict[Any, Any] = {
    "font.size": 8,
    "figure.autolayout": False,  # `drawing` lays out once, whatever a matplotlibrc says
    "figure.constrained_layout.use": False,
    "text.parse_math": False,  # a $ in a name of the user's begins no formula
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
    "axes.prop_cycle": rcsetup.cycler(color=PALETTE[:4]),
    "grid.color": GRID,
    "grid.linewidth": 0.4,
    "lines.linewidth": 1.4,
    "legend.frameon": False,
    "legend.fontsize": 8,
}
# matplotlib's colour maps for values with a sign, values without one, classes, and layers
SIGNED, UNSIGNED, CLASSES, DEPTH = "RdBu_r", "Blues", "tab10", "viridis"
CSS_DPI = 96  # CSS pixels per inch
PIXEL_RATIO = 2  # image pixels per CSS pixel, for sharp text on phones
PNG_LEVEL = 4  # of zlib: half the time of the default, 6, for files that are 7 % larger


Kind = Literal["chart", "photograph"]


@dataclass(frozen=True)
class Picture:
    """A picture of the report: file name, size in CSS pixels, and its text alternative.

    spec: the Vega specification of a chart that the page draws again.
    """

    file: str
    width: int
    height: int
    alt: str
    spec: dict[str, Any] | None = None
    kind: Kind = "chart"


def format_number(number: float | None) -> str:
    """Format to 3 significant digits, integers in full: 1077.3 -> '1,077', None -> '–'."""
    if number is None:
        return "–"
    if isinstance(number, int) or 999.5 <= abs(number) < 1e9:
        return f"{number:,.0f}"
    return f"{number:#.3g}".rstrip(".")


@contextmanager
def drawing(
    path: Path, width_px: int, height_px: int, *, rows: int = 1, columns: int = 1, head_px: int = 0
) -> Iterator[np.ndarray]:
    """Yield axes (rows, columns) of a new figure, and write it to `path` at the end.

    head_px: height that is left free above the axes, for a legend.
    """
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(width_px / CSS_DPI, height_px / CSS_DPI))
        FigureCanvasAgg(figure)
        yield figure.subplots(rows, columns, squeeze=False)
        figure.tight_layout(pad=0.4, rect=(0, 0, 1, 1 - head_px / height_px))
        figure.set_layout_engine()  # none: savefig would first draw all once more for a layout
        path.unlink(missing_ok=True)  # else a link to DVC's cache would change the file there
        packing = {"compress_level": PNG_LEVEL}
        figure.savefig(path, dpi=CSS_DPI * PIXEL_RATIO, transparent=True, pil_kwargs=packing)


def use_integer_ticks(axis: Axis) -> None:
    """Put ticks at integers alone."""
    axis.set_major_locator(MaxNLocator("auto", steps=[1, 2, 2.5, 5, 10], integer=True))


def label_log_axis(axis: Axis) -> None:
    """Put ticks with plain numbers on a logarithmic axis, after all is drawn on it.

    matplotlib labels powers of ten, of which a narrow axis has one or none.
    """
    ticks = log_ticks(*axis.get_view_interval())
    axis.set_minor_locator(NullLocator())
    axis.set_ticks(ticks, [f"{tick:.10g}" for tick in ticks])


def log_ticks(low: float, high: float) -> list[float]:
    """Return ticks of a logarithmic axis from low to high, both above 0: three or more.

    Powers of ten, over many decades every second, third, ... of them; over less than three decades
    also twice and five times these; over less than one decade multiples of 1, 2 or 5 times a power
    of ten.
    """
    factors = (1,) if high / low > 1e3 else (1, 2, 5)
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    step = math.ceil((last - first) / MAX_DECADES)
    exponents = range(first - first % step, last + 1, step)
    ticks = [factor * 10.0**exponent for exponent in exponents for factor in factors]
    ticks = [tick for tick in ticks if low <= tick <= high]
    if len(ticks) < 3:
        linear = MaxNLocator(5, steps=[1, 2, 5, 10], min_n_ticks=3).tick_values(low, high)
        ticks = [float(tick) for tick in linear if low <= tick <= high]
    return ticks


def depth_colours(count: int) -> np.ndarray:
    """Return colours (count, 4) of layers from the input, light, to the output, dark."""
    return matplotlib.colormaps[DEPTH](np.linspace(0.1, 0.85, count))[::-1]


def show_image(axis: Axes, image: np.ndarray, title: str, font_size: int = 7) -> None:
    """Draw a uint8 image (H, W, C) without axes, its title in the middle."""
    axis.imshow(np.broadcast_to(image, (*image.shape[:2], 3)), interpolation="nearest")
    axis.set(xticks=[], yticks=[])
    axis.set_title(title, loc="center", fontsize=font_size, y=1)  # a given y saves a search for it
    axis.spines[:].set_visible(False)


def save_enlarged(image: np.ndarray, path: Path, alt: str, side_px: int = 112) -> Picture:
    """Write a uint8 image (H, W, C), its longer side near `side_px`, small pixels visible."""
    picture = Image.fromarray(image[:, :, 0] if image.shape[2] == 1 else image)
    longer = max(picture.size)
    if longer <= side_px:
        factor = side_px // longer
        larger = picture.width * factor, picture.height * factor
        picture = picture.resize(larger, Image.Resampling.NEAREST)
    else:
        picture.thumbnail((side_px * PIXEL_RATIO, side_px * PIXEL_RATIO))
    picture.save(path)
    scale = side_px / max(picture.size)
    width, height = (max(1, round(side * scale)) for side in picture.size)
    return Picture(path.name, width, height, alt, kind="photograph")


def draw_neighbours(
    rows: list[tuple[np.ndarray, str, list[np.ndarray], list[str]]], path: Path
) -> Picture:
    """Draw queries at the left, then their nearest images, framed blue for the same class.

    rows: a query (H, W, C) and its class, its neighbours and their classes, the nearest first.
    """
    columns = 1 + max(len(neighbours) for _, _, neighbours, _ in rows)
    width, height = 96 * columns, 112 * len(rows)
    with drawing(path, width, height, rows=len(rows), columns=columns) as axes:
        for line, (query, label, neighbours, classes) in zip(axes, rows, strict=True):
            colours = [INK, *(BLUE if name == label else ORANGE for name in classes)]
            titles = [f"query: {label}", *classes]
            cells = zip(line, [query, *neighbours], titles, colours, strict=True)
            for axis, image, title, colour in cells:
                show_image(axis, image, title, 8)
                axis.spines[:].set(visible=True, edgecolor=colour, linewidth=2)
    alt = "Test images, each with the training images nearest to it; blue frames: the same class."
    return Picture(path.name, width, height, alt, kind="photograph")
