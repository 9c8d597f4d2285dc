"""Pictures of answers: where the boxes, tints and texts are."""

from collections.abc import Iterator
from itertools import combinations
from typing import Any

import numpy as np
import pytest
from convline.colours import rgb
from convline.images import draw
from convline.images.draw import (
    class_colour,
    draw_caption,
    draw_finds,
    draw_label,
    draw_mask,
    mask_palette,
)
from convline.runtime.rows import Row
from PIL import Image

LABELS = ["cat", "dog"]
GROUND = (10, 120, 10)


def find(label: str, score: float, *box: float) -> dict[str, Any]:
    sides = zip(("x_min", "y_min", "x_max", "y_max"), box, strict=True)
    return {"path": "a.png", "label": label, "score": score, **dict(sides)}


def scene(width: int = 64, height: int = 48) -> Image.Image:
    return Image.new("RGB", (width, height), GROUND)


@pytest.fixture
def texts(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """The lines of text that are written."""
    written: list[str] = []
    monkeypatch.setattr(draw, "write_text", lambda *args: written.append(args[2]))
    yield written


def test_a_box_surrounds_its_pixels(texts: list[str]) -> None:
    """A scene of 64 px is enlarged 8 times: the box 10 to 20 has its lines on the pixels 80 and
    159, none inside and none outside; the find below has no label and is not drawn."""
    image = scene()
    none = {**find("", 0, 0, 0, 0, 0), "label": None, "score": None}
    picture = np.asarray(draw_finds(image, [find("dog", 0.876, 10, 20, 20, 30), none], LABELS))
    assert picture.shape == (384, 512, 3)
    dog = rgb(class_colour(1))
    rows, columns = [170, 200, 230], [80, 159]
    assert (picture[np.ix_(rows, columns)] == dog).all()
    assert (picture[np.ix_(rows, [79, 82, 120, 157, 160])] == GROUND).all()
    assert texts == ["dog: 88 %"]
    assert np.asarray(image).tolist() == np.asarray(scene()).tolist()


@pytest.mark.parametrize("width", [200, 1000])
def test_words_fit_a_narrow_picture(texts: list[str], width: int) -> None:
    draw_caption(scene(width, 6000), "a dark square")
    assert " ".join(texts) == "a dark square"
    draw_finds(scene(width, 6000), [find("dog", 0.876, 10, 20, 150, 300)], LABELS)
    assert texts[-1] == "dog: 88 %"


def test_the_most_probable_find_is_on_top(texts: list[str]) -> None:
    box = (10, 20, 20, 30)
    for finds in (
        [find("cat", 0.9, *box), find("dog", 0.5, *box)],
        [find("dog", 0.5, *box), find("cat", 0.9, *box)],
    ):
        picture = draw_finds(scene(), finds, LABELS)
        assert picture.getpixel((80, 200)) == rgb(class_colour(0))


def test_tags_keep_clear_of_each_other_and_of_the_edge(monkeypatch: pytest.MonkeyPatch) -> None:
    placed: list[list[draw.Box]] = []
    place_tag = draw._draw_tag

    def record(*args: Any) -> None:
        place_tag(*args)
        placed.append(args[4])

    monkeypatch.setattr(draw, "_draw_tag", record)
    corners = [(0, 0, 64, 48), (0, 0, 20, 20), (44, 28, 64, 48), (1, 1, 21, 21)]
    draw_finds(scene(), [find("dog", 0.5, *box) for box in corners], LABELS)
    tags = placed[-1]
    assert len(tags) == 4
    assert not any(draw._overlap(one, other) for one, other in combinations(tags, 2))
    assert all(0 <= x < X <= 512 and 0 <= y < Y <= 384 for x, y, X, Y in tags)


def test_a_mask_tints_its_pixels(texts: list[str]) -> None:
    mask = np.zeros((48, 64), np.uint8)
    mask[:12, :] = 2
    mask[40:, :] = 255
    picture = np.asarray(draw_mask(scene(), mask, ["background", *LABELS]))
    assert picture.shape[1] == 512
    mixed = np.array(GROUND) + draw.TINT * (np.array(rgb(class_colour(1))) - GROUND)
    np.testing.assert_allclose(
        picture[:96, :].reshape(-1, 3), np.tile(mixed, (96 * 512, 1)), atol=1
    )
    assert (picture[96:320] == GROUND).all()
    assert texts == ["dog: 25 %"]
    draw_mask(scene(), np.zeros_like(mask), ["background", *LABELS])
    assert texts[1:] == ["only background"]


def test_texts_are_below_the_picture(texts: list[str]) -> None:
    """Control characters are shown as escapes; long lines are wrapped or cut."""
    picture = draw_caption(scene(), "a cat \x1b[31m left of a dog")
    assert texts == ["a cat \\x1b[31m left of a dog"]
    assert picture.width == 512
    assert picture.height > 384
    assert (np.asarray(picture)[:384] == GROUND).all()
    row: Row = {
        "path": "label.png",
        "label": "cat",
        "score": 0.5,
        "label_2": "dog",
        "score_2": 0.004,
    }
    draw_label(scene(), row)
    assert texts[1:] == ["cat: 50 %", "dog: < 1 %"]
    draw_caption(scene(), "many words " * 30)
    assert 2 < len(texts[3:]) <= draw.MOST_LINES
    draw_caption(scene(), "x" * 10_000)
    assert texts[-1].endswith("x...")


@pytest.mark.parametrize("size", [(1, 1), (3, 900), (900, 3), (2000, 1500)])
def test_any_size_can_be_drawn(size: tuple[int, int]) -> None:
    """Also grey images, and words that no font has."""
    image, (width, height) = Image.new("L", size), size
    label = "\U0001f408 店" * 50
    boxes = [find(label, 0.5, 0, 0, width, height), find(label, 0.5, 0, 0, 0.5, 0.5)]
    scale = max(1, round(512 / max(size)))
    assert draw_finds(image, boxes, [label]).size == (scale * width, scale * height)
    assert draw_mask(image, np.full((height, width), 1, np.uint8), ["no", label]).mode == "RGB"
    assert draw_caption(image, label).width >= draw.NARROWEST_PX


def test_the_palette_has_the_colours_of_the_pictures() -> None:
    colours = np.frombuffer(mask_palette(), np.uint8).reshape(256, 3)
    assert colours[0].tolist() == [0, 0, 0]
    assert tuple(colours[4].tolist()) == rgb(class_colour(3))
    assert len({class_colour(index) for index in range(18)}) == 18
