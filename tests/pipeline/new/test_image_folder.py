"""What is seen in a folder of images, and what is refused in one sentence."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.core.errors import StageError
from pipeline.new.image_folder import ImageFolder, look

Folder = Callable[..., Path]


def draw(path: Path, size: tuple[int, int] = (48, 40), grey: bool = False) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(len(path.name)).integers(0, 256, (size[1], size[0], 3), np.uint8)
    if grey:
        pixels[:] = pixels[:, :, :1]
    Image.fromarray(pixels).save(path)


def seen(folder: Path) -> ImageFolder:
    return look(folder, "own", str(folder))


def test_classes_sizes_and_drawn_splits(photo_folder: Folder) -> None:
    """20 images: 20 % of 20 are 4 for validation and test each, drawn from each class."""
    folder = photo_folder({"cat": 15, "dog": 5})
    draw(folder / "cat" / "large.jpg", (300, 200))
    draw(folder / "loose.png")
    facts = seen(folder)
    assert facts.counts == {"cat": 16, "dog": 5}
    assert facts.splits == {"train": 13, "validation": 4, "test": 4} and facts.drawn
    assert facts.rarest == 3 and not facts.grey and facts.left_out == 1
    assert (facts.widths, facts.heights, facts.shorter_side) == ((5, 300), (6, 200), 5)
    assert facts.data_set.model_dump(exclude_unset=True) == {
        "source": "folder", "path": str(folder), "licence": "own", "validation": 0.2, "test": 0.2,
    }  # fmt: skip
    assert facts.facts == [
        "classes   2: cat 16, dog 5",
        "images    21: widths 5 to 300, heights 6 to 200 pixels, colour",
        "splits    13 train, 4 validation, 4 test: drawn from each class, by the seed",
        "balance   always answering 'cat' is right for 76%",
        "few       3 training images in the smallest class: more images help more than any setting",
        "left out  1 images beside the class folders",
    ]


def test_given_splits_are_taken(photo_folder: Folder) -> None:
    for split, count in (("train", 6), ("val", 2), ("test", 3)):
        photo_folder({f"{split}/cat": count, f"{split}/dog": count})
    facts = seen(photo_folder({}))
    assert facts.splits == {"train": 12, "validation": 4, "test": 6} and not facts.drawn
    assert "validation" not in facts.data_set.model_dump(exclude_unset=True)
    assert facts.facts[1] == "images    22: 5 x 6 pixels, colour"
    assert facts.facts[2].endswith(": as the folders say")


@pytest.mark.parametrize("kind", ["L", "RGB", "JPEG"])
def test_grey_images_are_seen_as_grey(tmp_path: Path, kind: str) -> None:
    """Grey by mode, or by equal channels; the rounding of a JPEG does not make it colour."""
    for name in ("a", "b"):
        for k in range(6):
            file = tmp_path / name / f"{k}.{'jpg' if kind == 'JPEG' else 'png'}"
            draw(file, grey=True)
            if kind == "L":
                Image.open(file).convert("L").save(file)
    assert seen(tmp_path).grey
    draw(tmp_path / "b" / "7.png")
    assert not seen(tmp_path).grey


def refused(folder: Path) -> str:
    with pytest.raises(StageError) as error:
        seen(folder)
    message = str(error.value)
    assert "\n" not in message
    return message


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    assert f"did you mean {tmp_path}/photos?" in refused(tmp_path / "photso")
    assert refused(tmp_path / "nothing").endswith("; correct the path")
    assert f"nor {tmp_path}/no" in refused(tmp_path / "no" / "photos")


@pytest.mark.parametrize(
    "name, answer",
    [
        ("pets.zip", "unpack the archive"),
        ("pets.tar.gz", "unpack the archive"),
        ("sales.csv", "--csv"),
        ("cat.jpg", "one folder of images for each class"),
    ],
)
def test_a_file_in_place_of_a_folder(tmp_path: Path, name: str, answer: str) -> None:
    (tmp_path / name).write_bytes(b"x")
    assert answer in refused(tmp_path / name)


def test_folders_without_classes(tmp_path: Path, photo_folder: Folder) -> None:
    for k in range(3):
        draw(tmp_path / "loose" / f"{k}.jpg")
    assert "3 images and no folders" in refused(tmp_path / "loose")
    (tmp_path / "empty").mkdir()
    assert "0 images and no folders" in refused(tmp_path / "empty")
    (tmp_path / "tables").mkdir()
    (tmp_path / "tables" / "a.csv").write_text("day,value")
    assert "no image, but a.csv; a table of series" in refused(tmp_path / "tables")
    (tmp_path / "phone").mkdir()
    for k in range(2):
        (tmp_path / "phone" / f"{k}.HEIC").write_bytes(b"x")
    message = refused(tmp_path / "phone")
    assert message.endswith(
        "0.HEIC, 1.HEIC; .heic files are not read: convert images to JPEG or PNG"
    )


def test_one_class(photo_folder: Folder) -> None:
    assert "one folder, 'cat', and at least two classes" in refused(photo_folder({"cat": 9}, "one"))
    nested = photo_folder({"pets/cat": 9, "pets/dog": 9}, "nested")
    assert refused(nested).endswith(f"did you mean --images {nested}/pets?")


def test_a_class_that_is_too_small_for_the_splits(photo_folder: Folder) -> None:
    message = refused(photo_folder({"cat": 2, "dog": 2, "fish": 2}))
    assert re.search(r"class '\w+' has 2 images, none of them in the \w+ split", message)
    assert message.endswith("give it 5 or more")


def test_a_small_class_of_a_large_folder(
    photo_folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Above FEW_IMAGES 15 % are drawn: 3 of 83 images are .45 of one, 7 of 87 are 1.05."""
    monkeypatch.setattr("pipeline.new.image_folder.FEW_IMAGES", 50)
    assert refused(photo_folder({"cat": 80, "dog": 3})).endswith("give it 7 or more")
    enough = photo_folder({"cat": 80, "dog": 7}, "enough")
    assert seen(enough).splits == {"train": 61, "validation": 13, "test": 13}


@pytest.mark.parametrize("count", [5, 6, 7, 8, 9, 11, 13])
@pytest.mark.parametrize("classes", [2, 3, 7])
def test_five_images_of_each_class_are_enough(
    photo_folder: Folder, count: int, classes: int
) -> None:
    """As the error says. The splits of a class are at least one image each."""
    folder = photo_folder({f"c{k}": count for k in range(classes)})
    assert seen(folder).rarest >= 3


def test_all_unreadable_images_are_named(photo_folder: Folder) -> None:
    folder = photo_folder({"cat": 9, "dog": 9})
    (folder / "cat" / "empty.jpg").touch()
    (folder / "dog" / "text.png").write_text("no image")
    draw(folder / "dog" / "cut.jpg", (200, 200))
    (folder / "dog" / "cut.jpg").write_bytes((folder / "dog" / "cut.jpg").read_bytes()[:-4000])
    message = refused(folder)
    assert "3 of 21 images cannot be read: cat/empty.jpg, dog/cut.jpg, dog/text.png;" in message


def test_links_out_of_the_folder_are_not_followed(
    photo_folder: Folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = photo_folder({"cat": 9, "dog": 9})
    secret = tmp_path / "secret"
    for k in range(9):
        draw(secret / f"{k}.png")
    (folder / "fish").symlink_to(secret)
    monkeypatch.setattr("pipeline.data.class_folders.read", lambda spec: 1 / 0)  # refused before
    assert f"{folder}/fish leads out of {folder}" in refused(folder)


def test_a_linked_image_that_leads_out(photo_folder: Folder, tmp_path: Path) -> None:
    folder = photo_folder({"cat": 9, "dog": 9})
    draw(tmp_path / "secret.png")
    (folder / "dog" / "link.png").symlink_to(tmp_path / "secret.png")
    assert "link.png leads out of" in refused(folder)


def test_names_that_no_file_can_hold(photo_folder: Folder, tmp_path: Path) -> None:
    """params.yaml and the model file are UTF-8; a name on disk may be any bytes."""
    folder = photo_folder({"cat": 9, "caf\udce9": 9})
    assert "expected a name in UTF-8, got 'caf\\udce9'; rename it" in refused(folder)


def test_a_folder_in_out(workspace: Path) -> None:
    for name in ("a", "b"):
        draw(workspace / "out" / "pets" / name / "1.png")
    assert "lies in out/, which `make clean` removes" in refused(Path("out/pets"))


def test_large_folders_are_decoded_in_part(
    photo_folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of 40 images 10 are decoded, spread over both classes; all headers are read."""
    decoded: list[Path] = []
    read = "pipeline.new.image_folder.read_image"
    monkeypatch.setattr("pipeline.new.image_folder.DECODED", 10)
    monkeypatch.setattr(
        read, lambda path, rule: decoded.append(path) or np.zeros((32, 32, 3), np.uint8)
    )
    folder = photo_folder({"cat": 20, "dog": 20})
    draw(folder / "dog" / "1-00.png", (100, 70))
    facts = seen(folder)
    assert len(decoded) == 10 and {path.parent.name for path in decoded} == {"cat", "dog"}
    assert facts.grey and facts.widths == (5, 100)
