"""Targets of captioning: word ids of a vocabulary from the training captions."""

from pathlib import Path

import numpy as np
import pytest
from annotated import annotated_recipe, coco_content, write_coco_set
from convline.images.annotations import read_coco

from pipeline.core.errors import StageError
from pipeline.data import prepare
from pipeline.data.tasks import TASKS, captioning


def test_words_by_falling_count_and_ids_by_hand() -> None:
    texts = [[["a", "cat"], ["the", "cat", "sat"]], [["a", "dog"]]]
    words = captioning.vocabulary(texts)
    assert words == ["<start>", "<end>", "<unknown>", "a", "cat", "dog", "sat", "the"]
    y = captioning.caption_targets([*texts, [["a", "bird"]]], words, longest=4, most=2)
    none = [-1] * 4
    expected = [[[3, 4, 1, -1], [7, 4, 6, 1]], [[3, 5, 1, -1], none], [[3, 2, 1, -1], none]]
    assert y.tolist() == expected and y.dtype == np.int64
    assert captioning.caption_targets(texts, words, 3, 2)[0, 1].tolist() == [7, 4, 1]


def test_captions_of_a_coco_set(tmp_path: Path) -> None:
    """Words decoded again are the captions in lower case; test numbers are unknown; images without
    a caption are left out.
    """
    content = coco_content()
    recipe = annotated_recipe(
        "captioning", (20, 40), source="coco", path=str(write_coco_set(tmp_path, content))
    )
    bare = int(prepare.make(recipe)[1]["train"][0].id)
    kept = [a for a in content["annotations"] if a["image_id"] != bare or "bbox" in a]
    write_coco_set(tmp_path, {**content, "annotations": kept})
    made, samples = prepare.make(recipe)
    words = made.about["words"]
    assert made.about["train"] == 4 and made.about["longest"] == 5 and words[3:5] == ["a", "cat"]
    assert "labels" not in made.about
    for split in ("train", "test"):
        for sample, row in zip(samples[split], made.y[split], strict=True):
            number = sample.id if split == "train" else "<unknown>"
            texts = [" ".join(words[k] for k in one if k > 1) for one in row]
            assert texts == ["a cat", f"a cat number {number}"]
    (tmp_path / "data/raw").mkdir(parents=True)
    TASKS["captioning"].write_raw(tmp_path / "data/raw", made, samples)
    images, _ = read_coco(tmp_path / "data/raw/annotations.json")
    assert [tuple(image.captions) for image in images] == [s.captions for s in samples["test"]]


def test_long_captions_are_cut_with_a_note(tmp_path: Path) -> None:
    content = coco_content()
    content["annotations"] = [
        {"id": k, "image_id": k, "caption": "word " * (60 if k == 0 else 3)} for k in range(10)
    ]
    path = str(write_coco_set(tmp_path, content))
    made, _ = prepare.make(annotated_recipe("captioning", (20, 40), source="coco", path=path))
    assert made.about["longest"] == 51
    assert made.about["notes"] == ["1 caption cut after 50 words"]


def test_captions_are_needed(tmp_path: Path) -> None:
    content = coco_content()
    content["annotations"] = [a for a in content["annotations"] if "bbox" in a]
    path = str(write_coco_set(tmp_path, content))
    with pytest.raises(StageError, match=r"data.coco: expected captions in each split, got none"):
        prepare.make(annotated_recipe("captioning", (20, 40), source="coco", path=path))
