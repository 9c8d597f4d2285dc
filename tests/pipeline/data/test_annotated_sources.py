"""Sets of annotated images: scenes, COCO files, folders of masks, and what is refused."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from annotated import annotated_recipe, coco_content, write_coco_set, write_mask_set
from PIL import Image

from pipeline.core.errors import StageError
from pipeline.data import annotated_sources, prepare
from pipeline.data.annotated_sources import annotated_images
from pipeline.data.image_sources import digits
from pipeline.params.schema import DigitsSet

SCENES = {"source": "scenes", "train": 6, "validation": 3, "test": 4}


def scenes_of(**changes: Any) -> dict[str, list[np.ndarray]]:
    splits, labels = annotated_images(annotated_recipe("detection", (80, 80), **SCENES | changes))
    assert labels == [str(digit) for digit in range(10)]
    return {split: [np.asarray(s.image) for s in samples] for split, samples in splits.items()}


def test_scenes_follow_from_the_seed() -> None:
    """Equal pixels for one seed, others for another; more scenes begin with those of fewer."""
    first, again, more, other = scenes_of(), scenes_of(), scenes_of(train=8), scenes_of(seed=1)
    assert {split: len(images) for split, images in first.items()} == {
        "train": 6,
        "validation": 3,
        "test": 4,
    }
    np.testing.assert_array_equal(first["train"], again["train"])
    np.testing.assert_array_equal(first["train"], more["train"][:6])
    np.testing.assert_array_equal(first["test"], more["test"])
    assert not np.array_equal(first["test"], other["test"])
    assert len({image.tobytes() for images in first.values() for image in images}) == 13


def test_splits_of_scenes_share_no_digit_image(monkeypatch: pytest.MonkeyPatch) -> None:
    """The digits that each split draws from are, together, all 1,797 of them, each once; and they
    are those of that split for another seed, too.
    """
    given: dict[bytes, np.ndarray] = {}
    real = annotated_sources.make_scene

    def recorded(rng: Any, images: np.ndarray, *rest: Any) -> Any:
        given[images.tobytes()] = images
        return real(rng, images, *rest)

    monkeypatch.setattr(annotated_sources, "make_scene", recorded)
    scenes_of()
    scenes_of(seed=1)
    everything = [s for part in digits(DigitsSet(source="digits"))[0].values() for s in part]
    assert [len(images) for images in given.values()] == [1137, 300, 360]
    drawn = sorted(image.tobytes() for images in given.values() for image in images)
    assert drawn == sorted(np.asarray(sample.image).tobytes() for sample in everything)


def test_options_of_scenes() -> None:
    recipe = annotated_recipe("detection", (64, 96), **SCENES, size=[64, 96], digits=[2, 3])
    samples = annotated_images(recipe)[0]["train"]
    assert {len(sample.boxes) for sample in samples} == {2, 3}
    assert {sample.size for sample in samples} == {(96, 64)}


def test_a_coco_set_is_split_by_the_seed(tmp_path: Path) -> None:
    """Every image once; names relative to the file."""
    path = str(write_coco_set(tmp_path))
    recipes = [
        annotated_recipe("detection", (20, 40), source="coco", path=path, seed=k) for k in (0, 0, 1)
    ]
    found = [annotated_images(recipe)[0] for recipe in recipes]
    names = [{split: [s.name for s in part] for split, part in f.items()} for f in found]
    assert names[0] == names[1] != names[2]
    assert {split: len(part) for split, part in names[0].items()} == {
        "train": 5,
        "validation": 2,
        "test": 3,
    }
    assert sorted(name for part in names[0].values() for name in part) == [
        f"{k}.png" for k in range(10)
    ]


def test_images_of_a_coco_set_may_be_elsewhere(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    file = write_coco_set(tmp_path / "images").rename(tmp_path / "instances.json")
    paths = {"path": str(file), "images": str(tmp_path / "images")}
    splits, labels = annotated_images(
        annotated_recipe("detection", (20, 40), source="coco", **paths)
    )
    assert labels == ["cat", "dog"] and splits["test"][0].name.startswith("images/")


def change(content: Any, *path: Any, to: Any) -> None:
    *way, last = path
    for key in way:
        content = content[key]
    content[last] = to


MALFORMED: list[tuple[Callable[[Any], None], str]] = [
    (
        lambda c: change(c, "annotations", 0, "bbox", to=[30, 2, 20, 8]),
        "annotations[0] of '0.png': expected corners inside of its image, 40 x 20, got x 50, y 10",
    ),
    (
        lambda c: change(c, "annotations", 0, "category_id", to=8),
        "annotations[0] of '0.png': expected a category_id of categories, 7 (cat), 9 (dog), got 8",
    ),
    (lambda c: change(c, "images", 3, "file_name", to="absent.png"), "images[3]: 'absent.png' in"),
    (
        lambda c: change(c, "images", 3, "file_name", to="2.png"),
        "images[3]: expected each file once, got ",
    ),
    (lambda c: change(c, "images", to=[]), "expected images, got an empty list"),
    (lambda c: change(c, "annotations", to=[]), "expected annotations, got an empty list"),
    (
        lambda c: change(c, "images", 0, "width", to=30),
        "images[0]: expected the size of '0.png', 40 x 20 when upright, got width 30 and height 20",
    ),
]


@pytest.mark.parametrize(("spoil", "sentence"), MALFORMED, ids=[s[:30] for _, s in MALFORMED])
def test_a_malformed_coco_file_is_one_sentence(
    tmp_path: Path, spoil: Callable[[Any], None], sentence: str
) -> None:
    content = coco_content()
    spoil(content)
    path = write_coco_set(tmp_path, json.loads(json.dumps(content)))
    with pytest.raises(StageError) as error:
        prepare.make(annotated_recipe("detection", (20, 40), source="coco", path=str(path)))
    assert str(error.value).startswith(f"data.coco: {path}")
    assert sentence in str(error.value) and "\n" not in str(error.value)


def test_a_malformed_folder_of_masks_is_one_sentence(tmp_path: Path) -> None:
    """A mask of another size, one without an image, an index beyond the classes, no folder."""
    folder = write_mask_set(tmp_path)
    masks = folder / "SegmentationClass"

    def refused(**options: Any) -> str:
        with pytest.raises(StageError) as error:
            given = {"source": "masks", "path": str(folder), **options}
            prepare.make(annotated_recipe("segmentation", (20, 40), **given))
        assert str(error.value).startswith(f"data.masks: {folder}")
        return str(error.value)

    assert "expected class indices 0 to 1, or 255 for void, got 2" in refused(classes=["cat"])
    mask = Image.open(masks / "3.png")
    mask.crop((0, 0, 30, 20)).save(masks / "3.png")
    assert "3.png: expected the size of its image, 40 x 20, got 30 x 20" in refused()
    mask.save(masks / "3.png")
    (folder / "JPEGImages" / "4.jpg").unlink()
    assert "4.png: expected one image of this name" in refused()
    masks.rename(folder / "elsewhere")
    assert "expected the folders" in refused()


def test_too_few_images_for_the_splits_are_refused(tmp_path: Path) -> None:
    path = str(write_coco_set(tmp_path))
    recipe = annotated_recipe("detection", (20, 40), source="coco", path=path, test=9)
    with pytest.raises(StageError, match=r"data.coco.test: 9 images asked for, 8 are left"):
        prepare.make(recipe)
