"""COCO files and folders of masks: what is read, and the sentence of everything that is refused."""

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from convline.errors import InputError
from convline.images import annotations
from convline.images.annotations import (
    VOID,
    AnnotatedImage,
    draw_mask,
    find_mask_folders,
    read_coco,
    read_masks,
)
from matplotlib.path import Path as Outline
from PIL import Image

SQUARE = [2, 1, 5, 1, 5, 4, 2, 4]
COCO: dict[str, Any] = {
    "images": [
        {"id": 7, "file_name": "a.png", "width": 10, "height": 8},
        {"id": 3, "file_name": "b.jpg", "width": 6, "height": 9},
        {"id": 4, "file_name": "in/c.png"},
    ],
    "categories": [
        {"id": 20, "name": "dog"},
        {"id": 9, "name": "unused"},
        {"id": 5, "name": "cat"},
    ],
    "annotations": [
        {"id": 1, "image_id": 7, "category_id": 20, "bbox": [2, 1, 3, 3], "segmentation": [SQUARE]},
        {"id": 2, "image_id": 7, "category_id": 5, "bbox": [0, 0, 10.4, 8], "caption": "a cat"},
        {"id": 3, "image_id": 3, "caption": "two dogs"},
        {
            "image_id": 3,
            "category_id": 20,
            "bbox": [1, 1, 4, 4],
            "iscrowd": 1,
            "segmentation": {"counts": [1], "size": [9, 6]},
        },
    ],
}


def write_image(path: Path, width: int, height: int, orientation: int = 1) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.new("RGB", (width, height)).save(path, exif=exif)


def write_mask(path: Path, indices: list[list[int]], mode: str = "P") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(np.array(indices, np.uint8))
    if mode == "P":
        image.putpalette(bytes(range(256)) * 3)
    image.save(path)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The images of COCO; b.jpg is 9 x 6 in its file and is turned upright by its EXIF data."""
    write_image(tmp_path / "a.png", 10, 8)
    write_image(tmp_path / "b.jpg", 9, 6, orientation=6)
    write_image(tmp_path / "in" / "c.png", 5, 5)
    return tmp_path


def write_coco(folder: Path, content: Any) -> Path:
    path = folder / "coco.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def test_coco_is_read(folder: Path) -> None:
    """Images in the file's order, labels by category id without the unused one, the crowd no
    box but void, a box that a tool rounded out of its image clipped, sizes upright."""
    (a, b, c), labels = read_coco(write_coco(folder, COCO))
    assert labels == ["cat", "dog"]
    assert [image.id for image in (a, b, c)] == ["7", "3", "4"]
    assert a.path == folder / "a.png"
    assert (a.size, b.size, c.size) == ((10, 8), (6, 9), (5, 5))
    assert a.boxes.dtype == np.float32
    assert a.boxes.tolist() == [[2, 1, 5, 4], [0, 0, 10, 8]]
    assert a.labels.tolist() == [1, 0]
    assert [len(polygons) for polygons in a.polygons] == [1, 0]
    assert (a.captions, b.captions, c.captions) == (["a cat"], ["two dogs"], [])
    assert b.boxes.shape == (0, 4)
    expected = np.zeros((9, 6), np.uint8)
    expected[1:5, 1:5] = VOID
    np.testing.assert_array_equal(draw_mask(b, ["background", *labels]), expected)


def test_images_may_be_in_another_folder(folder: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "annotations"
    elsewhere.mkdir()
    assert read_coco(write_coco(elsewhere, COCO), folder)[0][2].path == folder / "in" / "c.png"


def change(path: str, value: Any) -> dict[str, Any]:
    """Return COCO with another value at a path such as "images.0.id"; None removes the key."""
    content = copy.deepcopy(COCO)
    *parents, last = [int(key) if key.isdigit() else key for key in path.split(".")]
    at: Any = content
    for key in parents:
        at = at[key]
    if value is None:
        del at[last]
    else:
        at[last] = value
    return content


MALFORMED = [
    ("[1, 2", "expected COCO's JSON, got none (Expecting"),
    ('{"images": NaN}', "NaN is not JSON"),
    ('{"images": [], "images": []}', "the key 'images' is there twice"),
    ("[" * 100_000, "expected COCO's JSON"),
    ("[]", "expected an object with images and annotations, got a JSON list"),
    ({"annotations": []}, "coco.json images: expected a list of objects, got NoneType"),
    (change("images", [1]), "coco.json images: expected a list of objects, got others in it"),
    (change("images", []), "expected images, got an empty list"),
    (change("annotations", []), "expected annotations, got an empty list"),
    (change("images.0.id", 1.5), "images[0]: expected id, got 1.5"),
    (change("images.0.id", True), "images[0]: expected id, got True"),
    (change("images.1.id", 7), "images[1]: expected each id once, got '7' a second time"),
    (change("images.1.file_name", "in/../a.png"), "a.png' a second time"),
    (change("images.0.file_name", "no.png"), "images[0]: 'no.png' in {}: no such file"),
    (change("images.0.file_name", "../a.png"), "got '../a.png', which leads out of it"),
    (change("images.0.file_name", "/etc/a.png"), "got '/etc/a.png', which leads out of it"),
    (change("images.0.file_name", "a\0.png"), "images[0]: expected file_name, got 'a\\x00.png'"),
    (change("images.0.file_name", "\ud800"), "images[0]: expected file_name, got '\\ud800'"),
    (change("images.0.width", 11), "of 'a.png', 10 x 8 when upright, got width 11 and height 8"),
    (
        change("images.1", {"id": 3, "file_name": "b.jpg", "width": 9, "height": 6}),
        "6 x 9 when upright, got width 9 and height 6; its EXIF data turn it",
    ),
    (change("categories.0.id", 5), "categories[2]: expected each id once, got '5' a second time"),
    (change("categories.0.name", "cat"), "expected each name once, got 'cat' a second time"),
    (change("categories.0.name", " "), "categories[0]: expected name, got ' '"),
    (
        change("annotations.0.category_id", 8),
        "annotations[0] of 'a.png': expected a category_id of categories, "
        "5 (cat), 9 (unused), 20 (dog), got 8",
    ),
    (change("annotations.1.id", 1), "annotations[1]: expected each id once, got '1'"),
    (change("annotations.0.image_id", 1), "annotations[0]: expected the id of an image, got"),
    (change("annotations.2.caption", None), "annotations[2] of 'b.jpg': expected a bbox or a"),
    (change("annotations.2.caption", ""), "annotations[2] of 'b.jpg': expected caption, got ''"),
    (change("annotations.0.bbox", [2, 1, 3]), "expected bbox [x, y, width, height]"),
    (change("annotations.0.bbox", [2, 1, 0, 3]), "a width and height above 0, got [2, 1, 0, 3]"),
    (change("annotations.0.bbox", [2, 1, True, 3]), "expected bbox [x, y, width, height]"),
    (change("annotations.0.bbox", [2, 1, 1e30, 3]), "expected bbox [x, y, width, height]"),
    (
        change("annotations.0.bbox", [2, 1, 10, 3]),
        "annotations[0] of 'a.png': expected corners inside of its image, 10 x 8, got x 12, y 4",
    ),
    (change("annotations.0.bbox", [10.2, 1, 0.5, 3]), "expected a bbox inside of its image"),
    (change("annotations.0.segmentation", {"counts": "a"}), "got a run-length mask; save the mask"),
    (change("annotations.0.segmentation", "a"), "expected segmentation, a list of polygons"),
    (change("annotations.0.segmentation", [[1, 2, 3, 4]]), "three points or more, got [1, 2, 3, 4"),
    (change("annotations.0.segmentation", [[0, 0, 5, 0, 5, 99]]), "got x 5, y 99"),
]


@pytest.mark.parametrize(("content", "expected"), MALFORMED)
def test_malformed_coco_is_refused(folder: Path, content: Any, expected: str) -> None:
    with pytest.raises(InputError) as error:
        read_coco(write_coco(folder, content))
    assert expected.replace("{}", str(folder)) in str(error.value)
    assert str(error.value).startswith(str(folder / "coco.json"))
    assert "\n" not in str(error.value)


def test_a_link_out_of_the_folder_is_refused(folder: Path, tmp_path_factory: Any) -> None:
    outside = tmp_path_factory.mktemp("outside") / "a.png"
    (folder / "a.png").rename(outside)
    (folder / "a.png").symlink_to(outside)
    with pytest.raises(InputError, match=r"'a\.png', which leads out of it"):
        read_coco(write_coco(folder, COCO))


def test_a_file_beyond_the_limit_is_not_read(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(annotations, "MAX_JSON_BYTES", 10)
    with pytest.raises(InputError, match="at most 10 bytes"):
        read_coco(write_coco(folder, COCO))
    with pytest.raises(InputError, match="no such file"):
        read_coco(folder)


def annotated(polygons: list[list[Any]], boxes: list[list[float]]) -> AnnotatedImage:
    return AnnotatedImage(
        id="1",
        path=Path("a.png"),
        size=(10, 8),
        boxes=np.array(boxes, np.float32),
        labels=np.arange(len(boxes)),
        polygons=[[np.array(p, np.float32) for p in one] for one in polygons],
        captions=[],
    )


def test_masks_of_polygons() -> None:
    """Corner coordinates 2 to 5 are the pixels 2, 3 and 4. The small object stays in front of the
    large one whatever their order; a box without polygon is void."""
    large, small = [[0, 0], [8, 0], [8, 8], [0, 8]], [[2, 1], [5, 1], [5, 4], [2, 4]]
    boxes = [[2.0, 1, 5, 4], [0, 0, 8, 8], [8, 6, 10, 8]]
    expected = np.zeros((8, 10), np.uint8)
    expected[:, :8] = 2
    expected[1:4, 2:5] = 1
    expected[6:, 8:] = VOID
    mask = draw_mask(annotated([[small], [large], []], boxes), ["background", "a", "b", "c"])
    assert mask.dtype == np.uint8
    np.testing.assert_array_equal(mask, expected)


def test_a_pixel_is_inside_if_its_centre_is() -> None:
    """Oracle: matplotlib's test of points in polygons, for triangles at random places, some partly
    outside of the image."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:8, :10] + 0.5
    centres = np.stack([x.ravel(), y.ravel()], axis=1)
    for _ in range(50):
        triangle = rng.uniform([-1, -1], [11, 9], (3, 2))
        mask = draw_mask(annotated([[triangle]], [[0.0, 0, 1, 1]]), [])
        inside = Outline(triangle.astype(np.float32)).contains_points(centres)
        np.testing.assert_array_equal(mask.ravel() == 1, inside)


@pytest.fixture
def voc(tmp_path: Path) -> Path:
    """Two images with masks, of palette and of grey, and one image without."""
    for name in ("a", "deep/b", "c"):
        write_image(tmp_path / "JPEGImages" / f"{name}.jpg", 3, 2)
    write_mask(tmp_path / "SegmentationClass" / "a.png", [[0, 1, 1], [0, 255, 1]])
    write_mask(tmp_path / "SegmentationClass" / "deep/b.png", [[0, 0, 3], [0, 0, 0]], mode="L")
    return tmp_path


def test_masks_are_read(voc: Path) -> None:
    folders = find_mask_folders(voc)
    (a, b), labels = read_masks(*folders)
    assert labels == ["background", "1", "2", "3"]
    assert (a.id, b.id) == ("a", "deep/b")
    assert b.path == voc / "JPEGImages" / "deep" / "b.jpg"
    assert draw_mask(a, labels).tolist() == [[0, 1, 1], [0, 255, 1]]
    assert draw_mask(b, labels).tolist() == [[0, 0, 3], [0, 0, 0]]
    assert read_masks(*folders, ["x", "y", "z"])[1] == ["background", "x", "y", "z"]


def test_malformed_masks_are_refused(voc: Path) -> None:
    images, masks = find_mask_folders(voc)

    def refuse(expected: str, classes: list[str] | None = None) -> None:
        with pytest.raises(InputError) as error:
            read_masks(images, masks, classes)
        assert expected in str(error.value)

    refuse(
        "deep/b.png: expected class indices 0 to 2, or 255 for void, got 3 at x 2, y 0", ["x", "y"]
    )
    refuse("expected different names of the indices from 1 on; 0 is 'background'", ["background"])
    refuse("got x, x", ["x", "x"])
    write_image(images / "a.png", 3, 2)
    refuse(f"a.png: expected one image of this name in {images} and one mask, got a.jpg, a.png")
    (images / "a.png").unlink()
    for name, indices, expected in (
        (
            "none.png",
            [[0]],
            "none.png: expected one image of this name in {} and one mask, got none",
        ),
        ("c.png", [[0, 1]], "c.png: expected the size of its image, 3 x 2, got 2 x 1"),
    ):
        write_mask(masks / name, indices)
        refuse(expected.format(images))
        (masks / name).unlink()
    Image.new("RGB", (3, 2)).save(masks / "c.png")
    refuse(
        "c.png: expected class indices in a PNG with a palette or 8-bit grey, got PNG of mode RGB"
    )
    Image.new("L", (3, 2)).save(masks / "c.jpg")
    (masks / "c.png").unlink()
    refuse("c.jpg: expected class indices in a PNG")
    for mask in masks.rglob("*.*"):
        mask.unlink()
    refuse("holds no image files")
    write_mask(masks / "a.png", [[0, 0, 255], [0, 0, 0]])
    refuse("in some mask, got [0, 255] alone; 255 is void: write an object as 1")
    with pytest.raises(InputError, match="expected the folders JPEGImages and SegmentationClass"):
        find_mask_folders(images)
    with pytest.raises(InputError, match="expected a folder, got none"):
        read_masks(voc / "none", masks)


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_palettes_of_few_bits_keep_their_indices(voc: Path, bits: int) -> None:
    images, masks = find_mask_folders(voc)
    image = Image.fromarray(np.array([[0, 1, 1], [0, 0, 1]], np.uint8))
    image.putpalette(bytes(3 * 2**bits))
    image.save(masks / "c.png", bits=bits)
    [*_, c] = sorted(read_masks(images, masks)[0], key=lambda one: one.id == "c")
    assert draw_mask(c, ["background", "1"]).tolist() == [[0, 1, 1], [0, 0, 1]]
