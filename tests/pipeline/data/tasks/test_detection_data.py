"""Targets of detection: boxes in pixels of the input, ragged rows, raw files."""

import csv
from pathlib import Path

import numpy as np
import pytest
from annotated import HEIGHT, WIDTH, annotated_recipe, coco_content, write_coco_set
from convline.images.annotations import read_coco

from pipeline.core.errors import StageError
from pipeline.data import dataset, prepare
from pipeline.data.splits import AnnotatedSample
from pipeline.data.tasks import TASKS, detection


def test_boxes_scale_with_the_image_and_rows_are_filled() -> None:
    """By hand: the input is twice as wide and half as high as the image."""
    boxes = np.array([[4, 2, 12, 10], [20, 5, 30, 10]], np.float32)
    both = AnnotatedSample("a", Path(), size=(WIDTH, HEIGHT), boxes=boxes, labels=np.array([3, 1]))
    none = AnnotatedSample("b", Path(), size=(WIDTH, HEIGHT))
    y = detection.box_targets([both, none], (HEIGHT // 2, WIDTH * 2), 3)
    assert y.dtype == np.float32
    filler = [0, 0, 0, 0, -1]
    expected = [[[8, 1, 24, 5, 3], [40, 2.5, 60, 5, 1], filler], [filler] * 3]
    np.testing.assert_array_equal(y, np.array(expected, np.float32))


def test_a_coco_set_as_data(tmp_path: Path) -> None:
    """Written, read again, and its raw files read as `infer evaluate` reads them."""
    path = str(write_coco_set(tmp_path))
    made, samples = prepare.make(annotated_recipe("detection", (10, 20), source="coco", path=path))
    assert made.x["train"].shape == (5, 10, 20, 3) and made.y["test"].shape == (3, 2, 5)
    assert made.about["labels"] == ["cat", "dog"] and made.task == "detection"
    assert sum(made.about["balance"][split]["cat"] for split in dataset.SPLITS) == 10
    assert sum(made.about["balance"][split]["dog"] for split in dataset.SPLITS) == 5
    (tmp_path / "data/raw").mkdir(parents=True)
    dataset.save(tmp_path / "data", made)
    np.testing.assert_array_equal(
        dataset.read(tmp_path / "data", made.about).y["test"], made.y["test"]
    )
    np.testing.assert_array_equal(made.served("test"), made.x["test"])
    TASKS["detection"].write_raw(tmp_path / "data/raw", made, samples)
    images, labels = read_coco(tmp_path / "data/raw/annotations.json")
    with (tmp_path / "data/raw.csv").open() as file:
        rows = list(csv.DictReader(file))
    for image, sample, row in zip(images, samples["test"], rows, strict=True):
        assert image.path == tmp_path / "data" / row["file"] and int(row["row"]) == int(image.id)
        np.testing.assert_array_equal(image.boxes, sample.boxes)
        assert [labels[k] for k in image.labels] == [("cat", "dog")[k] for k in sample.labels]
        assert image.path.read_bytes() == (tmp_path / sample.name).read_bytes()


def test_boxes_are_needed_and_every_class_in_training(tmp_path: Path) -> None:
    content = coco_content()
    content["annotations"] = [a for a in content["annotations"] if "caption" in a]
    path = str(write_coco_set(tmp_path, content))
    with pytest.raises(StageError, match=r"data.coco: expected boxes, got none; add some"):
        prepare.make(annotated_recipe("detection", (20, 40), source="coco", path=path))
    content = coco_content()
    recipe = annotated_recipe("detection", (20, 40), source="coco", path=path)
    write_coco_set(tmp_path, content)
    held_out = int(prepare.make(recipe)[1]["test"][0].id)
    bird = {"id": 999, "image_id": held_out, "bbox": [1, 1, 5, 5], "category_id": 11}
    content["annotations"].append(bird)
    content["categories"].append({"id": 11, "name": "bird"})
    write_coco_set(tmp_path, content)
    with pytest.raises(StageError, match=r"data: class 'bird' is in no training image; give it"):
        prepare.make(recipe)
