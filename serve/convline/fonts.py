"""Text in PNG pictures."""

import functools

from PIL import ImageDraw, ImageFont

NAMES = ("DejaVuSans.ttf", "LiberationSans-Regular.ttf", "Arial.ttf")  # of Linux, macOS, Windows


def write_text(
    draw: ImageDraw.ImageDraw, place: tuple[float, float], text: str, colour: str, size: int,
    anchor: str = "la",
) -> None:  # fmt: skip
    """Write a line of text. anchor: what is at the place, as Pillow names it."""
    font, has_all = _find_font(size)
    draw.text(place, text if has_all else _ascii(text), colour, font, anchor=anchor)


def text_width(text: str, size: int) -> float:
    """Return the width in px of a line of text."""
    font, has_all = _find_font(size)
    return font.getlength(text if has_all else _ascii(text))


def _ascii(text: str) -> str:
    return text.encode("ascii", "replace").decode()


@functools.cache
def _find_font(size: int) -> tuple[ImageFont.FreeTypeFont | ImageFont.ImageFont, bool]:
    """Return a font, and whether it has more than ASCII: Pillow's own, the last choice, has not."""
    for name in NAMES:
        try:
            return ImageFont.truetype(name, size), True
        except OSError:
            continue
    return ImageFont.load_default(size), False
