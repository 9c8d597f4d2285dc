"""Scenes: real handwritten digits on a textured ground, with exact boxes, masks and captions.

The digits are scikit-learn's, of 8 x 8 pixels, cut to their ink and enlarged. A digit's ink never
covers another digit's ink, so that its box is tight around visible pixels, and a box overlaps
another one by at most a fifth of the smaller one. A caption is a function of boxes and labels,
and a scene near one of its borders (which relation, which order) is drawn again.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from pipeline.core.errors import StageError

SIDES = {"small": (12, 17), "large": (22, 28)}  # least and largest height of a digit, in pixels
LARGE = 19.5  # a box of this height or more is called large: between the two, ink loses a pixel
OVERLAP = 0.2  # largest intersection of two boxes, as a share of the smaller one
MARGIN = 6  # pixels by which a caption's relation and order are away from their borders
PLACES = 16  # that are tried for a digit, before all are placed again
LAYOUTS = 10  # that are tried for the digits, before others are drawn
DRAWS = 200  # of digits that are tried: six in 64 x 64 pixels took at most 3, in 300 scenes
INK = 128  # of 255: a pixel belongs to a digit where ink covers half of it
LABELS = [str(digit) for digit in range(10)]

Box = tuple[int, int, int, int]  # left, top, right, bottom


@dataclass(frozen=True)
class Scene:
    """A scene.

    image: uint8 (H, W, 3). boxes: float32 (M, 4), x_min, y_min, x_max, y_max in pixels, where pixel
    k covers k to k + 1. labels: int64 (M,), the digits. mask: uint8 (H, W), 0 for the ground and
    digit + 1 for ink. rows: int64 (M,), which of the given digits were drawn.
    """

    image: np.ndarray
    boxes: np.ndarray
    labels: np.ndarray
    mask: np.ndarray
    rows: np.ndarray

    @property
    def caption(self) -> str:
        return describe(self.boxes, self.labels)


def make_scene(
    rng: np.random.Generator,
    digits: np.ndarray,
    labels: np.ndarray,
    size: tuple[int, int],
    counts: tuple[int, int],
    distinct: bool = False,
) -> Scene:
    """Return a scene of some of the digits, uint8 (n, 8, 8) with labels int64 (n,).

    size: height and width of the scene. counts: least and largest number of digits. distinct: no
    two digits of a scene have the same label. Raises StageError where the digits do not fit.
    """
    count = int(rng.integers(counts[0], counts[1], endpoint=True))
    if distinct and count > (values := len(np.unique(labels))):
        what = f"expected at most {values} distinct digits, got {count}"
        raise StageError(f"data.scenes: {what}; lower `digits`, or drop `distinct`")
    for _ in range(DRAWS):
        if distinct:
            kinds = rng.permutation(np.unique(labels))[:count]
            rows = np.array([rng.choice(np.flatnonzero(labels == kind)) for kind in kinds])
        else:
            rows = rng.choice(len(digits), count, replace=False)
        shades = [enlarge(digits[row].tobytes(), int(rng.integers(*band(rng)))) for row in rows]
        boxes = place(rng, shades, labels[rows], size)
        if boxes is not None:
            break
    else:
        what = f"expected {count} digits to fit in {size[0]} x {size[1]} pixels"
        cure = "make `size` larger, or `digits` fewer"
        raise StageError(f"data.scenes: {what}, got none of {DRAWS} draws; {cure}")
    image, mask = make_ground(rng, size), np.zeros(size, np.uint8)
    bright = rng.random() < 0.5  # ink of one scene is brighter or darker than any ground
    for shade, (left, top, right, bottom), label in zip(shades, boxes, labels[rows], strict=True):
        colour = rng.integers(215, 256, 3) if bright else rng.integers(0, 41, 3)
        window = np.s_[top:bottom, left:right]
        cover = shade[:, :, None] / 255
        image[window] += cover * (colour - image[window])
        mask[window][shade >= INK] = label + 1
    image += rng.normal(0, rng.uniform(2, 10), image.shape)
    pixels = np.rint(image).clip(0, 255).astype(np.uint8)
    return Scene(pixels, boxes.astype(np.float32), labels[rows].astype(np.int64), mask, rows)


def band(rng: np.random.Generator) -> tuple[int, int]:
    """Return the bounds of a digit's height, of small or of large ones, the upper one excluded."""
    least, largest = SIDES["large" if rng.random() < 0.5 else "small"]
    return least, largest + 1


@functools.cache  # thousands of scenes share the 1,797 digits and 13 heights
def enlarge(digit: bytes, height: int) -> np.ndarray:
    """Return how much ink covers each pixel, uint8 (h, w): tight around pixels of at least INK.

    digit: uint8 (8, 8). height: of its ink after enlarging; h may be a pixel less.
    """
    pixels = np.frombuffer(digit, np.uint8).reshape(8, 8)
    inked = pixels[tight(pixels)]
    width = max(3, round(height * inked.shape[1] / inked.shape[0]))
    grown = np.asarray(Image.fromarray(inked).resize((width, height), Image.Resampling.BICUBIC))
    return grown[tight(grown)]


def tight(shade: np.ndarray) -> tuple[slice, slice]:
    """Return the rows and columns of the tight box around pixels of at least INK."""
    rows, columns = (np.flatnonzero((shade >= INK).any(axis)) for axis in (1, 0))
    return slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)


def place(
    rng: np.random.Generator, shades: list[np.ndarray], labels: np.ndarray, size: tuple[int, int]
) -> np.ndarray | None:
    """Return places for the digits, int64 (M, 4) as boxes, or None where none was found.

    Boxes overlap by at most OVERLAP of the smaller one, ink meets no ink, and the caption is clear.
    """
    inks, values = [(as_bits(s >= INK, size[1]), s.shape) for s in shades], labels.tolist()
    for _ in range(LAYOUTS):
        taken, found = 0, list[Box]()
        for ink, shape in inks:
            placed = free_place(rng, ink, shape, size, taken, found)
            if placed is None:
                break
            box, covered = placed
            taken |= covered
            found.append(box)
        if len(found) == len(inks) and is_clear(found, values):
            return np.array(found, np.int64).reshape(-1, 4)
    return None


def as_bits(ink: np.ndarray, width: int) -> int:
    """Return ink, bool (h, w), as an integer with a bit for each pixel of a scene `width` pixels
    wide, row by row from the lowest bit on: it is shifted left by `width * top + left` to a place.
    """
    rows = np.zeros((len(ink), width), bool)
    rows[:, : ink.shape[1]] = ink
    return int.from_bytes(np.packbits(rows, bitorder="little").tobytes(), "little")


def free_place(
    rng: np.random.Generator,
    ink: int,
    shape: tuple[int, ...],
    size: tuple[int, int],
    taken: int,
    others: list[Box],
) -> tuple[Box, int] | None:
    """Return the first of PLACES random places where ink meets none that is taken and its box
    overlaps no other one too far, as the box and the ink there; None where all do.

    ink, taken: as `as_bits` gives them. shape: height and width of ink. size: of the scene.
    In plain numbers: for one box against a few, arrays take ten times as long.
    """
    room = size[0] - shape[0], size[1] - shape[1]
    for top, left in rng.integers(0, room, (PLACES, 2), endpoint=True).tolist():
        covered = ink << (size[1] * top + left)
        if covered & taken:
            continue
        box = left, top, left + shape[1], top + shape[0]
        if all(overlap(box, other) <= OVERLAP for other in others):
            return box, covered
    return None


def overlap(box: Box, other: Box) -> float:
    """Return the intersection of two boxes as a share of the smaller one."""
    width = min(box[2], other[2]) - max(box[0], other[0])
    height = min(box[3], other[3]) - max(box[1], other[1])
    if width <= 0 or height <= 0:
        return 0.0
    areas = [(right - left) * (bottom - top) for left, top, right, bottom in (box, other)]
    return width * height / min(areas)


def make_ground(rng: np.random.Generator, size: tuple[int, int]) -> np.ndarray:
    """Return a coloured texture, float64 (H, W, 3), of 70 to 180, in spots of 4 to 16 pixels."""
    cells = [max(2, side // int(rng.integers(4, 17))) for side in size]
    spread = rng.uniform(5, 35)
    spots = rng.normal(rng.uniform(95, 160, 3), spread, (*cells, 3)).clip(70, 180)
    coarse = Image.fromarray(spots.astype(np.uint8))
    return np.asarray(coarse.resize(size[::-1], Image.Resampling.BILINEAR), np.float64)


def caption_order(boxes: Sequence[Sequence[float]], labels: Sequence[int]) -> list[int]:
    """Return the order in which a caption names digits: by their value, equal ones from left."""
    return sorted(range(len(labels)), key=lambda k: (labels[k], boxes[k][0] + boxes[k][2]))


def step(box: Sequence[float], other: Sequence[float]) -> tuple[float, float]:
    """Return the way from the centre of a box to that of another one, to the right and down."""
    right, down = (other[k] + other[k + 2] - box[k] - box[k + 2] for k in (0, 1))
    return right / 2, down / 2


def is_clear(boxes: list[Box], labels: list[int]) -> bool:
    """Return whether relations and order of the caption are MARGIN pixels from their borders."""
    for here, there in itertools.pairwise(caption_order(boxes, labels)):
        across, down = map(abs, step(boxes[here], boxes[there]))
        ordered = labels[here] < labels[there] or across >= MARGIN
        if abs(across - down) < MARGIN or not ordered:
            return False
    return True


def describe(boxes: np.ndarray, labels: np.ndarray) -> str:
    """Return the caption, as "a large 3 left of a small 7 above a small 9", of at most 28 words.

    Each digit is related to the next one that is named, along the axis on which their centres are
    further apart.
    """
    corners, values = boxes.tolist(), labels.tolist()
    order = caption_order(corners, values)
    words = []
    for here, there in zip(order, [*order[1:], None], strict=True):
        height = corners[here][3] - corners[here][1]
        words.append(f"a {'large' if height >= LARGE else 'small'} {values[here]}")
        if there is not None:
            x, y = step(corners[here], corners[there])
            if abs(x) > abs(y):
                words.append("left of" if x > 0 else "right of")
            else:
                words.append("above" if y > 0 else "below")
    return " ".join(words)
