"""Random parts of photos: their areas, shapes and places are distributed as the papers state, and
their pixels are those of the photo.
"""

from __future__ import annotations

import io
from collections import Counter

import numpy as np
import pytest
from convline.images.decode import ORIENTATION, Box, open_part, read_image, resize_part
from convline.model_file.document import ImageRule
from PIL import Image
from scipy import stats

from pipeline.params.schema import Augment
from pipeline.train import photo_crops

RULE = ImageRule((8, 8), "rgb")
DRAWS = 4000


def boxes(crop: str, rule: ImageRule, width: int, height: int, **options: object) -> np.ndarray:
    """Return DRAWS parts of a photo (DRAWS, 4): left, top, right, bottom."""
    cut = photo_crops.build(Augment(crop=crop, **options), rule)  # type: ignore[arg-type]
    assert cut is not None
    rng = np.random.default_rng(0)
    return np.array([cut(rng, width, height) for _ in range(DRAWS)])


def pixels(width: int, height: int) -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (height, width, 3), np.uint8)


def png(image: np.ndarray, **options: object) -> bytes:
    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG", **options)
    return file.getvalue()


def test_no_crop_is_no_function() -> None:
    assert photo_crops.build(None, RULE) is None
    assert photo_crops.build(Augment(flip="horizontal"), RULE) is None


@pytest.mark.parametrize(("width", "height"), [(1000, 1000), (900, 600), (40, 31)])
def test_resized_crops_have_the_paper_s_areas_and_ratios(width: int, height: int) -> None:
    """Szegedy et al. 2015, section 6: 8 % to 100 % of the area, ratio of the sides 3/4 to 4/3.

    Sides are whole pixels, so a part of w x h may be half a pixel too large or small on each side.
    """
    left, top, right, bottom = boxes("random_resized", RULE, width, height).T
    w, h = right - left, bottom - top
    assert left.min() >= 0 and top.min() >= 0 and right.max() <= width and bottom.max() <= height
    assert ((w + 0.5) * (h + 0.5) >= 0.08 * width * height).all()
    assert ((w + 0.5) / (h - 0.5) >= 3 / 4).all() and ((w - 0.5) / (h + 0.5) <= 4 / 3).all()


def test_resized_crops_are_uniform() -> None:
    """Kolmogorov-Smirnov at 1 %, on a square photo: every part of up to 3/4 of its area fits, so
    such areas are uniform, and so are the ratio's logarithm and the place.
    """
    left, top, right, bottom = boxes("random_resized", RULE, 2000, 2000).T
    w, h = right - left, bottom - top
    area = w * h / 2000**2
    fits = area < 0.75
    assert 0.7 < fits.mean() < 0.9
    for found, low, high in (
        (area[fits], 0.08, 0.75),
        (np.log(w / h)[fits], np.log(3 / 4), np.log(4 / 3)),
        (left[fits] / (2000 - w[fits]), 0, 1),
        (top[fits] / (2000 - h[fits]), 0, 1),
    ):
        assert stats.kstest(found, stats.uniform(low, high - low).cdf).pvalue > 0.01


def test_a_photo_too_long_for_any_ratio_gives_its_middle() -> None:
    """All of a 600 x 10 photo's parts that are at least half of its area are longer than 4/3."""
    found = boxes("random_resized", RULE, 600, 10, area=(0.5, 1.0))
    assert (found == [293, 0, 306, 10]).all()  # 10 * 4/3 = 13 wide, (600 - 13) // 2 from the left


def test_random_crops_are_alexnet_s() -> None:
    """Windows of 227 of the central 256 x 256: 30 x 30 places, each as often, none elsewhere."""
    rule = ImageRule((227, 227), "rgb", "crop", shorter_px=256)
    left, top, right, bottom = boxes("random", rule, 512, 1024).T  # 2 pixels to one of the scaled
    assert (right - left == 2 * 227).all() and (bottom - top == 2 * 227).all()
    x, y = left / 2, (top - 256) / 2
    for places in (x, y):
        counts = Counter(places.tolist())
        assert sorted(counts) == list(range(30))
        assert stats.chisquare(list(counts.values())).pvalue > 0.01
    assert abs(np.corrcoef(x, y)[0, 1]) < 0.05


def cut(content: bytes, rule: ImageRule, box: Box) -> np.ndarray:
    """Return a part of an image file as training has it, uint8 (H, W, C)."""
    return photo_crops.cut(content, rule, lambda width, height: box).transpose(1, 2, 0)


@pytest.mark.parametrize("colour", ["rgb", "grey"])
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic", "lanczos", "nearest"])
def test_a_part_is_pillow_s_own_crop_and_resize(interpolation: str, colour: str) -> None:
    """Smaller and larger than the input; torch's to one grey level, in random parts too. Without a
    change of size a part is a slice.
    """
    image, rule = pixels(60, 40), ImageRule((8, 8), colour, interpolation=interpolation)
    original = Image.fromarray(image).convert("L" if colour == "grey" else "RGB")
    resample = Image.Resampling[interpolation.upper()]
    rng = np.random.default_rng(3)
    for _ in range(200):
        left, right = sorted(map(int, rng.choice(61, 2, replace=False)))
        top, bottom = sorted(map(int, rng.choice(41, 2, replace=False)))
        box = (left, top, right, bottom)
        got = cut(png(image), rule, box).astype(int)
        if interpolation == "bilinear":
            expected = np.asarray(original.crop(box).resize((8, 8), resample)).reshape(8, 8, -1)
            assert np.abs(got - expected).max() <= 1
        else:  # it takes in pixels beside the part
            expected = np.asarray(original.resize((8, 8), resample, box=box)).reshape(8, 8, -1)
            np.testing.assert_array_equal(got, expected)
    part = np.asarray(original.crop((5, 7, 13, 15))).reshape(8, 8, -1)
    np.testing.assert_array_equal(cut(png(image), rule, (5, 7, 13, 15)), part)


def test_a_part_of_broken_pixels_is_pillow_s() -> None:
    image = pixels(32, 20)
    box = (1.5, 0.25, 21.5, 17.75)
    expected = Image.fromarray(image).resize((8, 8), Image.Resampling.BILINEAR, box=box)
    np.testing.assert_array_equal(cut(png(image), RULE, box), np.asarray(expected))
    whole = resize_part(*open_part(png(image), RULE, lambda w, h: (0, 0, w, h)), RULE)
    np.testing.assert_array_equal(whole, read_image(png(image), RULE))


def test_a_part_is_of_the_upright_photo() -> None:
    """EXIF orientation 6: the file's columns from the bottom up are the rows of the photo."""
    image, exif, seen = pixels(32, 20), Image.Exif(), list[tuple[int, int]]()
    exif[ORIENTATION] = 6

    def choose(width: int, height: int) -> Box:
        seen.append((width, height))
        return 3, 4, 11, 12

    got = photo_crops.cut(png(image, exif=exif), RULE, choose).transpose(1, 2, 0)
    assert seen == [(20, 32)]
    np.testing.assert_array_equal(got, np.rot90(image, -1)[4:12, 3:11])


@pytest.mark.parametrize("orientation", [1, 6])
def test_a_draft_gives_the_same_part(orientation: int) -> None:
    """A JPEG of 400 x 300 decoded at 1/4: the part of a smooth photo stays, to 4 grey levels."""
    coarse = np.random.default_rng(2).integers(0, 256, (3, 4, 3), np.uint8)
    file, exif = io.BytesIO(), Image.Exif()
    exif[ORIENTATION] = orientation
    smooth = Image.fromarray(coarse).resize((400, 300), Image.Resampling.BICUBIC)
    smooth.save(file, "JPEG", quality=95, exif=exif)
    box = (40, 60, 280, 220)
    drafted, full = (
        cut(file.getvalue(), ImageRule((16, 24), "rgb", draft=draft), box).astype(int)
        for draft in (True, False)
    )
    assert 0 < np.abs(drafted - full).mean() < 4 and np.abs(drafted - full).max() < 16
