"""Two canvases with the same methods, which write SVG and PNG.

Lengths are in px from the top left corner. The PNG has PIXEL_RATIO pixels per px, so that it is
sharp on screens of high resolution.
"""

import io
from collections.abc import Sequence
from html import escape
from itertools import pairwise

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw
from PIL.PngImagePlugin import PngInfo

from convline.colours import INK, WHITE
from convline.fonts import write_text

CSS_DPI = 96  # px per inch
PIXEL_RATIO = 2
COLOURS = 64  # of a PNG: a third of the bytes that it has in all colours, with no visible change
ANCHORS = {"start": "ls", "middle": "ms", "end": "rs"}  # as Pillow names them: on the baseline

Floats = npt.NDArray[np.float64]
Points = Sequence[float] | Floats


class SvgCanvas:
    """A picture as SVG, whose text stays text."""

    def __init__(self, width: int, height: int, title: str) -> None:
        self.parts = [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
            f'width="{width}" height="{height}" font-family="sans-serif" fill="none" '
            'stroke-linejoin="round">',
            f"<title>{escape(title)}</title>",
            f'<rect width="{width}" height="{height}" fill="{WHITE}"/>',
        ]

    def line(self, x: Points, y: Points, colour: str, width: float) -> None:
        self.parts.append(f'<path d="{_path(x, y)}" stroke="{colour}" stroke-width="{width:g}"/>')

    def area(self, x: Points, low: Points, high: Points, colour: str) -> None:
        """Fill what lies between two curves over rising x."""
        path = _path([*x, *reversed(x)], [*low, *reversed(high)])
        self.parts.append(f'<path d="{path}Z" fill="{colour}"/>')

    def text(
        self, x: float, y: float, text: str, *, anchor: str = "start", size: int = 12,
        colour: str = INK,
    ) -> None:  # fmt: skip
        """Write a line of text with its baseline at y. anchor: start, middle or end is at x."""
        place = f'x="{x:.1f}" y="{y:.1f}" font-size="{size}" text-anchor="{anchor}"'
        self.parts.append(f'<text {place} fill="{colour}">{escape(text)}</text>')

    def encode(self) -> bytes:
        return "\n".join([*self.parts, "</svg>\n"]).encode()


class PngCanvas:
    """The same picture as PNG. Lines and areas are antialiased here, which Pillow's are not."""

    def __init__(self, width: int, height: int, title: str) -> None:
        self.title = title
        self.image = Image.new("RGB", (width * PIXEL_RATIO, height * PIXEL_RATIO), WHITE)
        self.draw = ImageDraw.Draw(self.image)

    def line(self, x: Points, y: Points, colour: str, width: float) -> None:
        """Draw a line with round ends: a pixel is covered by its distance from the nearest
        segment."""
        points = PIXEL_RATIO * np.stack([x, y], axis=1)  # (n, 2)
        reach = (PIXEL_RATIO * width + 1) / 2  # at which a pixel is no longer touched
        corner = np.floor(points.min(axis=0) - reach)
        columns, rows = np.ceil(points.max(axis=0) + reach - corner).astype(int) + 1
        mask = np.zeros((rows, columns))
        for start, end in pairwise(points - corner):
            left, top = np.floor(np.minimum(start, end) - reach).astype(int)
            right, bottom = np.ceil(np.maximum(start, end) + reach).astype(int) + 1
            down, across = np.arange(top, bottom)[:, None] + 0.5, np.arange(left, right) + 0.5
            box, (dx, dy) = mask[top:bottom, left:right], end - start
            along = (across - start[0]) * dx + (down - start[1]) * dy
            share = (along / max(dx * dx + dy * dy, 1e-9)).clip(0, 1)  # of the way to the end
            distance = np.hypot(across - start[0] - share * dx, down - start[1] - share * dy)
            np.maximum(box, reach - distance, out=box)
        self._paint(colour, corner, mask)

    def area(self, x: Points, low: Points, high: Points, colour: str) -> None:
        """Fill what lies between two curves over rising x: a pixel is covered by its height in
        it."""
        x, low, high = (PIXEL_RATIO * np.asarray(values, np.float64) for values in (x, low, high))
        columns = np.arange(np.floor(x[0]), np.ceil(x[-1]))
        edges = [np.interp(columns + 0.5, x, values) for values in (low, high)]
        top, bottom = np.minimum(*edges), np.maximum(*edges)
        rows = np.arange(np.floor(top.min()), np.floor(bottom.max()) + 1)[:, None]
        mask = np.minimum(rows + 1, bottom) - np.maximum(rows, top)
        self._paint(colour, np.array([columns[0], rows[0, 0]]), mask)

    def _paint(self, colour: str, corner: Floats, mask: Floats) -> None:
        """Paint a colour where the mask (rows, columns) is above 0, fully where it is 1."""
        opacity = Image.fromarray((255 * mask.clip(0, 1)).round().astype(np.uint8))
        self.image.paste(colour, (int(corner[0]), int(corner[1])), opacity)

    def text(
        self, x: float, y: float, text: str, *, anchor: str = "start", size: int = 12,
        colour: str = INK,
    ) -> None:  # fmt: skip
        """Write a line of text with its baseline at y. anchor: start, middle or end is at x."""
        place = x * PIXEL_RATIO, y * PIXEL_RATIO
        write_text(self.draw, place, text, colour, size * PIXEL_RATIO, ANCHORS[anchor])

    def encode(self) -> bytes:
        about, file = PngInfo(), io.BytesIO()
        about.add_text("Title", self.title.encode("ascii", "replace").decode())
        dpi = (CSS_DPI * PIXEL_RATIO,) * 2
        few = self.image.quantize(COLOURS, dither=Image.Dither.NONE)
        few.save(file, "PNG", pnginfo=about, dpi=dpi, optimize=True)
        return file.getvalue()


def _path(x: Points, y: Points) -> str:
    return "M" + "L".join(f"{a:.1f} {b:.1f}" for a, b in zip(x, y, strict=True))
