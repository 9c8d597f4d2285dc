"""A segmenter's page: masks of drawn scenes whose wrong pixels are known."""

from __future__ import annotations

import numpy as np
import pytest
import scene_entries
from convline.images.draw import mask_palette
from PIL import Image
from scene_entries import CLASSES, RECIPES, name_of

from pipeline.report import segmenter_page
from pipeline.report.result_files import Entry

NAME = name_of("segmentation")


@pytest.fixture
def entry(tmp_path: pytest.TempPathFactory) -> Entry:
    drawn = scene_entries.draw()
    scene_entries.write_data(tmp_path, "segmentation", drawn)
    scene_entries.write_check(tmp_path, "segmentation", drawn)
    (tmp_path / "site" / "img").mkdir(parents=True)
    return Entry(NAME, RECIPES[NAME], tmp_path)


def test_the_worst_images_come_first_and_classes_have_the_overlap_of_the_metric(
    entry: Entry,
) -> None:
    context = segmenter_page.segmenter_context(entry, entry.root / "site" / "img")
    assert context is not None and entry.metric is not None
    assert {image["name"] for image in context["pictures"][:3]} == {
        f"00000{k}.png" for k in range(3)
    }
    assert [image["overlap"] for image in context["pictures"][3:]] == [1.0] * 9
    shown = {row[0].text: row[2].value for row in context["classes"].rows}
    assert shown == pytest.approx(dict(zip(CLASSES, entry.metric["class_iou"], strict=True)))
    first = int(entry.prediction("y")[0].max())
    np.testing.assert_allclose(np.sum(context["matrix"], 1), 1)
    assert f"The worst class is {context['classes'].rows[0][0].text}" in context["worst"]
    assert first < 255


def test_a_mask_is_drawn_in_the_colours_of_infer(entry: Entry) -> None:
    """The first pixel of ink of scene 4, and a void pixel; the background keeps the image."""
    img = entry.root / "site" / "img"
    truth, image = entry.prediction("y")[4], entry.images[4]
    drawn = segmenter_page.draw_mask(image, truth, CLASSES, "<a>", img / "mask.png")
    factor = segmenter_page.SIDE_PX // 64
    with Image.open(img / "mask.png") as picture:
        pixels = np.asarray(picture)[::factor, ::factor]
    palette = np.frombuffer(mask_palette(), np.uint8).reshape(256, 3)
    ink = (truth > 0) & (truth < 255)
    np.testing.assert_array_equal(pixels[ink], palette[truth[ink]])
    np.testing.assert_array_equal(pixels[truth == 255], palette[np.full((truth == 255).sum(), 255)])
    ground = truth == 0
    assert (np.abs(pixels[ground] - (0.4 * image[ground] + 153)) <= 1).all()
    assert drawn.alt.startswith("<a>: background ") and "255" not in drawn.alt
