"""Pictures of answers: an image with its boxes, its mask, its caption or its labels.

Small images are enlarged by a whole factor, so that their pixels stay sharp; lines and text grow
with the picture. Each picture is a new one, in RGB.
"""

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from convline.colours import GREY, INK, PALETTE, WHITE, lighten, rgb
from convline.fonts import text_width, write_text
from convline.runtime.rows import Row
from convline.terminal_text import escape_control_characters

ENLARGED_PX = 512  # of the longer side, about
NARROWEST_PX = 240  # of a picture with text below it
SMALLEST_FONT_PX, MOST_LINES = 14, 12
LONGEST = 1000  # characters of a text that are looked at: it may come from anybody's model file
TINT = 0.55  # of a class's colour over the image
# Of the palette's colours, one round after the other: at a half, its blue would be its sky blue.
STRENGTHS = (1.0, 0.3, 0.6)
Box = tuple[float, float, float, float]  # left, top, right, bottom, px


def class_colour(index: int) -> str:
    """Return the colour #rrggbb of a class; the first 18 differ."""
    strength = STRENGTHS[index // len(PALETTE) % len(STRENGTHS)]
    return lighten(PALETTE[index % len(PALETTE)], strength)


def mask_palette() -> bytes:
    """Return red, green and blue of each of 256 class indices: the background is black, void grey,
    and index k has the colour of class k - 1."""
    colours = [*map(class_colour, range(254)), GREY]
    return bytes(3) + b"".join(bytes(rgb(colour)) for colour in colours)


def draw_finds(image: Image.Image, rows: Iterable[Row], labels: list[str]) -> Image.Image:
    """Return an image with a box, label and score for each row of a detector's table.

    The most probable find is on top. Rows without a label are left out.
    """
    picture, scale = _enlarge(image)
    draw, line = ImageDraw.Draw(picture), max(2, max(picture.size) // 250)
    finds = sorted((row for row in rows if row["label"]), key=lambda row: float(row["score"] or 0))
    boxes: list[tuple[Row, Box, str]] = []
    for row in finds:
        left, top, right, bottom = (
            scale * float(row[side] or 0) for side in ("x_min", "y_min", "x_max", "y_max")
        )
        box = left, top, max(right - 1, left), max(bottom - 1, top)
        colour = class_colour(labels.index(str(row["label"])))
        draw.rectangle(box, outline=colour, width=line)
        boxes.append((row, box, colour))
    tags: list[Box] = []
    for row, box, colour in reversed(boxes):
        _draw_tag(picture, _line_of(row["label"], row["score"]), box, colour, tags)
    return picture


def draw_mask(image: Image.Image, mask: npt.NDArray[np.uint8], labels: list[str]) -> Image.Image:
    """Return an image tinted by class, with the names and shares of its classes below it.

    mask: class indices (H, W) of the image's size; index 0, the background, is not tinted.
    """
    picture, _ = _enlarge(image)
    indices = Image.fromarray(mask)
    indices.putpalette(mask_palette())
    indices = indices.resize(picture.size, Image.Resampling.NEAREST)
    tinted = Image.blend(picture, indices.convert("RGB"), TINT)
    picture.paste(tinted, mask=Image.fromarray(np.asarray(indices) > 0))
    counts = np.bincount(mask.ravel(), minlength=len(labels))
    present = [index for index in range(1, len(labels)) if counts[index]]
    legend = [_line_of(labels[index], counts[index] / mask.size) for index in present]
    colours = [class_colour(index - 1) for index in present]
    return _with_text(picture, legend or [f"only {labels[0]}"], colours)


def draw_caption(image: Image.Image, text: str) -> Image.Image:
    """Return an image with a caption below it."""
    return _with_text(_enlarge(image)[0], [text])


def draw_label(image: Image.Image, row: Row) -> Image.Image:
    """Return an image with the labels and scores of its row of a classifier's table below it."""
    names = [name for name in row if name.startswith("label") and row[name]]
    lines = [_line_of(row[name], row[name.replace("label", "score")]) for name in names]
    return _with_text(_enlarge(image)[0], lines)


def _line_of(label: object, score: object) -> str:
    percent = 100 * float(str(score))
    return f"{label}: {percent:.0f} %" if percent >= 1 else f"{label}: < 1 %"


def _enlarge(image: Image.Image) -> tuple[Image.Image, int]:
    """Return a copy of the image in RGB, whose longer side is about ENLARGED_PX or more, and the
    whole factor."""
    scale = max(1, round(ENLARGED_PX / max(image.size)))
    size = image.width * scale, image.height * scale
    return image.convert("RGB").resize(size, Image.Resampling.NEAREST), scale


def _text_px(picture: Image.Image) -> int:
    """Return the font size: by the longer side, but so that words fit a narrow picture's width."""
    return max(SMALLEST_FONT_PX, min(max(picture.size) // 28, picture.width // 14))


def _draw_tag(picture: Image.Image, text: str, box: Box, colour: str, tags: list[Box]) -> None:
    """Write text on a ground of its colour at a box: above, below, or inside where that is free of
    the other tags and of the picture's edge. The tag is added to the tags."""
    px = _text_px(picture)
    text = _shorten(escape_control_characters(text), px, picture.width)
    width, height = text_width(text, px) + px // 2, 1.3 * px
    left, top, right, bottom = box
    lefts = [min(left, picture.width - width), max(right - width, 0)]
    tops = [top - height, bottom, top, bottom - height]
    places = [(x, y, x + width, y + height) for y in tops for x in lefts]
    inside = [place for place in places if place[1] >= 0 and place[3] <= picture.height]
    free = [place for place in inside if not any(_overlap(place, tag) for tag in tags)]
    tag = (free or inside or places)[0]
    tags.append(tag)
    draw = ImageDraw.Draw(picture)
    draw.rectangle(tag, colour)
    write_text(draw, (tag[0] + px // 4, tag[1] + height / 2), text, _ink_on(colour), px, "lm")


def _overlap(one: Box, other: Box) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


def _ink_on(colour: str) -> str:
    """Return white or dark, whichever is told apart better from a ground. The weights are those of
    Rec. 709's luminance."""
    red, green, blue = rgb(colour)
    return WHITE if 0.2126 * red + 0.7152 * green + 0.0722 * blue < 140 else INK


def _shorten(text: str, px: int, width: float) -> str:
    """Return the text, cut so that it fits a width."""
    text = text[:LONGEST]
    if text_width(text, px) <= width - px:
        return text
    while text and text_width(f"{text}...", px) > width - px:
        text = text[:-1]
    return f"{text}..."


def _with_text(
    picture: Image.Image, paragraphs: list[str], colours: list[str] | None = None
) -> Image.Image:
    """Return the picture with text below it, each paragraph after a square of its colour."""
    px = _text_px(picture)
    indent = 1.5 * px if colours else 0.5 * px
    width = max(picture.width, NARROWEST_PX)
    lines = [
        (line, place if not number else None)
        for place, text in enumerate(paragraphs)
        for number, line in enumerate(_wrap(escape_control_characters(text), px, width - indent))
    ][:MOST_LINES]
    step = round(1.4 * px)
    canvas = Image.new("RGB", (width, picture.height + step * len(lines) + px // 2), WHITE)
    canvas.paste(picture, ((width - picture.width) // 2, 0))
    draw = ImageDraw.Draw(canvas)
    for number, (line, place) in enumerate(lines):
        middle = picture.height + px // 4 + (number + 0.5) * step
        if colours and place is not None:
            square = 0.4 * px, middle - 0.4 * px, 1.2 * px, middle + 0.4 * px
            draw.rectangle(square, colours[place])
        write_text(draw, (indent, middle), line, INK, px, "lm")
    return canvas


def _wrap(text: str, px: int, width: float) -> list[str]:
    """Return lines that fit a width, broken between words; a longer word is cut."""
    lines: list[str] = []
    for word in text[:LONGEST].split():
        if lines and text_width(f"{lines[-1]} {word}", px) <= width - px:
            lines[-1] += f" {word}"
        else:
            lines.append(_shorten(word, px, width))
    return lines
