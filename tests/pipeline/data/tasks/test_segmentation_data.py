"""Targets of segmentation: class indices of the nearest pixel, from masks and from polygons."""

from pathlib import Path

import numpy as np
import pytest
from annotated import HEIGHT, WIDTH, annotated_recipe, coco_content, write_coco_set, write_mask_set
from convline.images.annotations import draw_mask, read_masks
from PIL import Image

from pipeline.core.errors import StageError
from pipeline.data import dataset, prepare
from pipeline.data.splits import AnnotatedSample
from pipeline.data.tasks import TASKS, segmentation


def test_a_mask_takes_the_nearest_pixel() -> None:
    """Every second row and column after doubling is the mask again; no index is mixed."""
    mask = np.random.default_rng(0).integers(0, 4, (HEIGHT, WIDTH)).astype(np.uint8)
    sample = AnnotatedSample("a", Path(), size=(WIDTH, HEIGHT), draw_mask=lambda: mask)
    large = segmentation.resized_mask(sample, (2 * HEIGHT, 2 * WIDTH))
    np.testing.assert_array_equal(large, mask.repeat(2, 0).repeat(2, 1))
    bare = AnnotatedSample("b", Path(), size=(WIDTH, HEIGHT))
    assert segmentation.resized_mask(bare, (5, 7)).tolist() == [[0] * 7] * 5


def test_a_folder_of_masks_as_data(tmp_path: Path) -> None:
    """Written, read again, and its raw files read as `infer evaluate` reads them."""
    folder = str(write_mask_set(tmp_path))
    spec = {"source": "masks", "path": folder, "classes": ["floor", "lamp"]}
    made, samples = prepare.make(annotated_recipe("segmentation", (20, 40), **spec))
    assert made.about["labels"] == ["background", "floor", "lamp"]
    assert made.about["balance"]["test"] == {"background": 3, "floor": 3, "lamp": 3}
    assert made.y["train"].shape == (5, HEIGHT, WIDTH) and made.y["train"].dtype == np.uint8
    row = made.y["train"][0]
    assert (row[:5, :5] == 2).all() and (row[5:, :20] == 1).all() and (row[:, -4:] == 255).all()
    assert (row[:, 20:-4] == 0).all()
    (tmp_path / "data/raw").mkdir(parents=True)
    dataset.save(tmp_path / "data", made)
    np.testing.assert_array_equal(
        dataset.read(tmp_path / "data", made.about).y["test"], made.y["test"]
    )
    TASKS["segmentation"].write_raw(tmp_path / "data/raw", made, samples)
    images, labels = read_masks(tmp_path / "data/raw", tmp_path / "data/raw_masks", spec["classes"])
    assert len(images) == 3 and images[0].path.name == "000000.jpg"
    for image, y in zip(images, made.y["test"], strict=True):
        np.testing.assert_array_equal(draw_mask(image, labels), y)


def test_a_densely_labelled_set_needs_no_background(tmp_path: Path) -> None:
    """Every pixel has a class: a remark for index 0 in place of an error."""
    folder = write_mask_set(tmp_path)
    for path in (folder / "SegmentationClass").iterdir():
        mask = np.asarray(Image.open(path))
        Image.fromarray(np.where(mask == 0, 2, mask).astype(np.uint8)).save(path)
    made, _ = prepare.make(
        annotated_recipe("segmentation", (20, 40), source="masks", path=str(folder))
    )
    assert made.about["balance"]["train"] == {"background": 0, "1": 5, "2": 5}
    assert "no training image of class 'background'" in made.about["notes"]


def test_polygons_are_masks_where_they_are_there(tmp_path: Path) -> None:
    """The square of "cat" is class 1; "dog" has a box alone, whose pixels are void."""
    recipe = annotated_recipe(
        "segmentation", (HEIGHT, WIDTH), source="coco", path=str(write_coco_set(tmp_path))
    )
    with pytest.raises(StageError, match="class 'dog' is in no training image"):
        prepare.make(recipe)
    content = coco_content()
    for annotation in content["annotations"]:
        if annotation.get("category_id") == 9 and annotation["image_id"] != 0:
            annotation["segmentation"] = [[20, 5, 30, 5, 30, 10, 20, 10]]
    write_coco_set(tmp_path, content)
    made, samples = prepare.make(recipe)
    rows = {
        s.id: y
        for split in dataset.SPLITS
        for s, y in zip(samples[split], made.y[split], strict=True)
    }
    assert (rows["0"][5:10, 20:30] == 255).all() and (rows["2"][5:10, 20:30] == 2).all()
    for y in rows.values():
        assert (y[2:10, 4:12] == 1).all() and (y == 1).sum() == 64


def test_an_image_with_boxes_alone_is_void_there(tmp_path: Path) -> None:
    """One image among others with polygons, as `infer evaluate` judges it; without any, ground."""
    content = coco_content()
    del content["annotations"][1]  # the dog of image 0
    content["annotations"] = [one for one in content["annotations"] if one["image_id"] != 1]
    content["annotations"][0].pop("segmentation")
    for annotation in content["annotations"]:
        if annotation.get("category_id") == 9:
            annotation["segmentation"] = [[20, 5, 30, 5, 30, 10, 20, 10]]
    path = str(write_coco_set(tmp_path, content))
    recipe = annotated_recipe("segmentation", (HEIGHT, WIDTH), source="coco", path=path)
    made, samples = prepare.make(recipe)
    rows = {
        s.id: y
        for split in dataset.SPLITS
        for s, y in zip(samples[split], made.y[split], strict=True)
    }
    assert (rows["0"][2:10, 4:12] == 255).all() and (rows["0"] == 0).sum() == HEIGHT * WIDTH - 64
    assert (rows["1"] == 0).all()


def test_boxes_alone_are_refused(tmp_path: Path) -> None:
    content = coco_content()
    for annotation in content["annotations"]:
        annotation.pop("segmentation", None)
    path = str(write_coco_set(tmp_path, content))
    with pytest.raises(StageError, match=r"data.coco: expected masks or polygons, got none; add"):
        prepare.make(annotated_recipe("segmentation", (20, 40), source="coco", path=path))


def test_masks_of_scenes() -> None:
    """The scene's own mask, where the input has the scene's size."""
    scenes = {"source": "scenes", "train": 40, "validation": 2, "test": 2}
    made, samples = prepare.make(annotated_recipe("segmentation", (80, 80), **scenes))
    assert made.about["labels"] == ["background", *map(str, range(10))]
    for sample, y in zip(samples["test"], made.y["test"], strict=True):
        np.testing.assert_array_equal(sample.draw_mask(), y)
        assert set(y[y > 0] - 1) == set(sample.labels)
