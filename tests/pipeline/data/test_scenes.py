"""Scenes: boxes, masks and captions against the drawn pixels, and a parser of the captions."""

import numpy as np
import pytest

from pipeline.core.errors import StageError
from pipeline.data import scenes
from pipeline.data.image_sources import digits
from pipeline.data.scenes import Scene
from pipeline.params.schema import DigitsSet

SIZE = (64, 96)


@pytest.fixture(scope="module")
def digit_images() -> tuple[np.ndarray, np.ndarray]:
    """Images (n, 8, 8) and labels (n,)."""
    samples = digits(DigitsSet(source="digits"))[0]["validation"]
    given = np.stack([np.asarray(sample.image) for sample in samples])
    return given, np.array([sample.label for sample in samples])


@pytest.fixture(scope="module")
def drawn(digit_images: tuple[np.ndarray, np.ndarray]) -> list[Scene]:
    return [
        scenes.make_scene(np.random.default_rng(k), *digit_images, SIZE, (1, 6)) for k in range(60)
    ]


def test_a_box_is_tight_around_the_ink_of_its_digit(drawn: list[Scene]) -> None:
    """The mask within a box has its digit's class in every border row and column, and each inked
    pixel lies in a box of its class.
    """
    for scene in drawn:
        explained = np.zeros(SIZE, bool)
        for (left, top, right, bottom), label in zip(
            scene.boxes.astype(int), scene.labels, strict=True
        ):
            assert 0 <= left < right <= SIZE[1] and 0 <= top < bottom <= SIZE[0]
            own = scene.mask[top:bottom, left:right] == label + 1
            assert own[[0, -1]].any(1).all() and own[:, [0, -1]].any(0).all()
            explained[top:bottom, left:right] |= own
        np.testing.assert_array_equal(explained, scene.mask > 0)


def test_ink_differs_from_the_ground(drawn: list[Scene]) -> None:
    """The mean of inked pixels is at least 40 grey levels from the mean of the ground."""
    for scene in drawn:
        grey = scene.image.mean(2)
        assert abs(grey[scene.mask > 0].mean() - grey[scene.mask == 0].mean()) > 40


def test_sizes_and_overlap(drawn: list[Scene]) -> None:
    """Pairwise intersections in plain Python."""
    assert {len(scene.labels) for scene in drawn} == {1, 2, 3, 4, 5, 6}
    for scene in drawn:
        heights = scene.boxes[:, 3] - scene.boxes[:, 1]
        assert all(11 <= h <= 17 or 21 <= h <= 28 for h in heights)
        boxes = scene.boxes.tolist()
        for i, a in enumerate(boxes):
            for b in boxes[:i]:
                across = max(0, min(a[2], b[2]) - max(a[0], b[0]))
                down = max(0, min(a[3], b[3]) - max(a[1], b[1]))
                areas = [(c[2] - c[0]) * (c[3] - c[1]) for c in (a, b)]
                assert across * down <= 0.2 * min(areas)


def test_a_caption_says_what_is_in_the_picture(drawn: list[Scene]) -> None:
    """A parser of the grammar: the named digits are those drawn, and each relation holds for the
    boxes by 6 pixels.
    """
    for scene in drawn:
        words = scene.caption.replace(" of", "").split()
        assert len(words) <= 40
        order = np.lexsort((scene.boxes[:, [0, 2]].mean(1), scene.labels))
        assert words[2::4] == [str(digit) for digit in scene.labels[order]]
        assert set(words[::4]) == {"a"}
        heights = (scene.boxes[:, 3] - scene.boxes[:, 1])[order]
        assert words[1::4] == ["large" if height > 19 else "small" for height in heights]
        centres = ((scene.boxes[:, :2] + scene.boxes[:, 2:]) / 2)[order]
        for relation, (x, y) in zip(words[3::4], np.diff(centres, axis=0), strict=True):
            away = {"left": x, "right": -x, "above": y, "below": -y}
            across = y if relation in ("left", "right") else x
            assert away[relation] >= abs(across) + 6


def reference(
    rng: np.random.Generator,
    digits: np.ndarray,
    labels: np.ndarray,
    size: tuple[int, int],
    counts: tuple[int, int],
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return image, mask and boxes of a scene as `make_scene` draws it, pixel by pixel."""
    count = int(rng.integers(counts[0], counts[1], endpoint=True))
    boxes = None
    while boxes is None:
        rows = rng.choice(len(digits), count, replace=False)
        heights = [int(rng.integers(*scenes.band(rng))) for _ in rows]
        shades = [
            scenes.enlarge.__wrapped__(digits[row].tobytes(), height)
            for row, height in zip(rows, heights, strict=True)
        ]
        layouts = (layout(rng, shades, size) for _ in range(scenes.LAYOUTS))
        fit = (
            found for found in layouts if found and scenes.is_clear(found, labels[rows].tolist())
        )
        boxes = next(fit, None)
    image, mask = scenes.make_ground(rng, size), np.zeros(size, np.uint8)
    bright = rng.random() < 0.5
    for shade, (left, top, _, _), label in zip(shades, boxes, labels[rows], strict=True):
        colour = rng.integers(215, 256, 3) if bright else rng.integers(0, 41, 3)
        for (y, x), ink in np.ndenumerate(shade):
            image[top + y, left + x] += ink / 255 * (colour - image[top + y, left + x])
            if ink >= 128:
                mask[top + y, left + x] = label + 1
    image += rng.normal(0, rng.uniform(2, 10), image.shape)
    return np.rint(image).clip(0, 255).astype(np.uint8), mask, np.float32(boxes)


def layout(
    rng: np.random.Generator, shades: list[np.ndarray], size: tuple[int, int]
) -> list[tuple[int, int, int, int]] | None:
    """Return a box for each digit, or None where the places that were drawn for one do not fit."""
    taken, boxes = np.zeros(size, bool), []
    for shade in shades:
        height, width = shade.shape
        room = size[0] - height, size[1] - width
        for top, left in rng.integers(0, room, (scenes.PLACES, 2), endpoint=True).tolist():
            own, covered = np.zeros(size, bool), np.zeros(size, bool)
            own[top : top + height, left : left + width] = shade >= 128
            shared = []
            for x, y, right, bottom in boxes:
                covered[:] = False
                covered[top : top + height, left : left + width] = True
                smaller = min(height * width, (right - x) * (bottom - y))
                shared.append(covered[y:bottom, x:right].sum() / smaller)
            if not (own & taken).any() and all(share <= 0.2 for share in shared):
                taken |= own
                boxes.append((left, top, left + width, top + height))
                break
        else:
            return None
    return boxes


@pytest.mark.parametrize("size", [(64, 64), (64, 96), (81, 70)])
def test_scenes_are_those_of_a_reference_without_bits(size: tuple[int, int], digit_images) -> None:
    """Byte for byte: its ink is an array of truth values, and it draws one pixel after the other."""
    for seed in range(12):
        found = scenes.make_scene(np.random.default_rng(seed), *digit_images, size, (1, 6))
        image, mask, boxes = reference(np.random.default_rng(seed), *digit_images, size, (1, 6))
        np.testing.assert_array_equal(found.image, image)
        np.testing.assert_array_equal(found.mask, mask)
        np.testing.assert_array_equal(found.boxes, boxes)


def test_distinct_digits(drawn: list[Scene]) -> None:
    given, labels = np.full((12, 8, 8), 255, np.uint8), np.arange(12) % 4
    scene = scenes.make_scene(np.random.default_rng(0), given, labels, (80, 80), (4, 4), True)
    assert sorted(scene.labels) == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("size", "count", "distinct", "sentence"),
    [
        ((40, 40), 10, False, "expected 10 digits to fit in 40 x 40 pixels, got none of 200 draws"),
        ((96, 96), 5, True, "expected at most 4 distinct digits, got 5; lower `digits`"),
    ],
)
def test_digits_that_do_not_fit_are_refused(
    size: tuple[int, int], count: int, distinct: bool, sentence: str
) -> None:
    given, labels = np.full((12, 8, 8), 255, np.uint8), np.arange(12) % 4
    with pytest.raises(StageError, match=sentence):
        scenes.make_scene(np.random.default_rng(0), given, labels, size, (count, count), distinct)
