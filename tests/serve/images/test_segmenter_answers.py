"""Segmenters: masks and shares of classes, at the size of the original."""

from pathlib import Path

import numpy as np
import pytest
import tiny
from convline.images.image_model import Options
from convline.images.segmenter import Segmentation, Segmenter, compare_masks
from convline.loading import load_file
from PIL import Image


def load_segmenter(path: Path) -> Segmenter:
    model = load_file(path, "cpu")
    assert isinstance(model, Segmenter)
    return model


def test_probabilities_and_masks_are_those_of_numpy(segmenter: Path) -> None:
    """`tiny.shade_probabilities` repeats the graph's arithmetic."""
    model, images = load_segmenter(segmenter), tiny.wide_images()
    expected = tiny.shade_probabilities(images)
    np.testing.assert_allclose(model.predict_proba(images), expected, rtol=0, atol=1e-6)
    assert (np.stack(model.predict(images)) == expected.argmax(axis=1)).all()
    assert model.replay_golden() <= model.golden_atol


def test_masks_have_the_size_of_the_upright_original(segmenter: Path, tmp_path: Path) -> None:
    """A white left half stays on the left after the EXIF rotation, at twice the input's size."""
    pixels = np.zeros((16, 32), np.uint8)
    pixels[:, :16] = 255
    exif = Image.Exif()
    exif[0x112] = 6
    turned = Image.fromarray(pixels).transpose(Image.Transpose.ROTATE_90)
    turned.save(tmp_path / "turned.png", exif=exif)
    (mask,) = load_segmenter(segmenter).predict(tmp_path / "turned.png")
    assert mask.shape == (16, 32) and mask.dtype == np.uint8
    assert (mask[:, :16] == 2).all() and (mask[:, 16:] == 0).all()


def test_rows_are_the_shares_of_the_classes_in_the_image(segmenter: Path) -> None:
    """A quarter is white; no pixel is grey, so there is no row of that class."""
    pixels = np.zeros((8, 16), np.uint8)
    pixels[:, :4] = 255
    rows = load_segmenter(segmenter).predict_table([pixels])
    assert [(row["label"], row["share"], row["mask"]) for row in rows] == [
        ("background", 0.75, None),
        ("white", 0.25, None),
    ]


@pytest.mark.parametrize(
    ("mask", "probability", "reason"),
    [(3, 0.5, "a class beyond its 3 labels"), (255, 0.5, "beyond"), (0, np.nan, "not finite")],
)
def test_impossible_masks_have_a_reason(
    segmenter: Path, mask: int, probability: float, reason: str
) -> None:
    """255 is no class: a network judges every pixel."""
    outputs = np.full((1, 8, 16), mask, np.uint8), np.full((1, 3, 8, 16), probability, np.float32)
    (answer,) = load_segmenter(segmenter).answers(outputs, [(32, 16)], Options())
    assert isinstance(answer, str) and reason in answer


def test_the_palette_tells_classes_apart() -> None:
    """Indices survive; the first 18 classes have different colours."""
    indices = np.arange(19, dtype=np.uint8)[None]
    picture = Segmentation(indices, (19, 1)).picture()
    assert picture.mode == "P" and (np.asarray(picture) == indices).all()
    assert len({*picture.convert("RGB").get_flattened_data()}) == 19


def test_a_pixel_of_another_class_counts_with_the_margin() -> None:
    """At a tie of two classes the difference is that of the probabilities alone."""
    masks = np.zeros((1, 1, 2), np.uint8)
    probabilities = np.array([[[[0.5, 0.7]], [[0.5, 0.2]], [[0.0, 0.1]]]], np.float32)
    tied, far = masks.copy(), masks.copy()
    tied[0, 0, 0], far[0, 0, 1] = 1, 1
    assert compare_masks((tied, probabilities), (masks, probabilities)) == 0
    gap = compare_masks((far, probabilities), (masks, probabilities))
    assert gap == pytest.approx(0.5, abs=1e-6)
    assert compare_masks((masks, probabilities + 0.1), (masks, probabilities)) == pytest.approx(0.1)
