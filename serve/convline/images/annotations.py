"""Images with boxes, captions or masks: COCO's JSON, and PNG masks as in Pascal VOC.

Training and `infer evaluate` both read their truth here. Nothing is repaired in silence: a file
that contradicts itself or its images is refused in one sentence that names the place.

- COCO: Lin et al. 2014, "Microsoft COCO", arXiv:1405.0312; https://cocodataset.org/#format-data.
  Sizes and boxes are of the upright image, as annotation tools show it. A crowd (a box around many
  objects, which COCO does not judge) is no object; its box is void in masks. Run-length
  masks are refused.
- VOC: Everingham et al. 2010, "The Pascal Visual Object Classes Challenge": a PNG for each image,
  whose samples are class indices; 0 is the background, 255 is void and not judged.

Positions are corner coordinates: pixel k covers k to k + 1.
"""

import io
import json
import math
import os
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import numpy.typing as npt

from convline.errors import InputError
from convline.images.decode import read_indices, read_size
from convline.images.sources import ImageSources
from convline.model_file.schema import SURROGATES

MAX_JSON_BYTES = 2**29  # COCO's own largest file has 470 MB
ROUNDING_PX = 1.0  # positions that lie outside by at most this were rounded, and are clipped
BACKGROUND, VOID = "background", 255
MASK_FOLDERS = (("JPEGImages", "SegmentationClass"), ("images", "masks"))

Polygon = npt.NDArray[np.float32]  # (V, 2): x, y


@dataclass(frozen=True, eq=False)
class AnnotatedImage:
    """One image with what is true of it."""

    id: str
    path: Path
    size: tuple[int, int]  # width, height in pixels of the upright image
    boxes: npt.NDArray[np.float32]  # (M, 4): x_min, y_min, x_max, y_max in pixels
    labels: npt.NDArray[np.int64]  # (M,): index into the labels of the file
    polygons: list[list[Polygon]]  # of each box, empty where it has none
    captions: list[str]
    mask: Path | None = None  # a PNG of class indices
    crowds: list[list[float]] = field(default_factory=list)  # boxes around many objects


@dataclass(frozen=True, eq=False)
class _Annotation:
    label: int
    box: list[float]
    polygons: list[Polygon]


def read_coco(
    json_path: Path, images_folder: Path | None = None
) -> tuple[list[AnnotatedImage], list[str]]:
    """Return the images of a COCO file in its order, and its labels: the names of the categories
    that have a box, by category id.

    images_folder: by default the folder of the file. Raises InputError.
    """
    content = _read_json(json_path)
    images, annotations = (_objects(json_path, content, key) for key in ("images", "annotations"))
    for key, found in (("images", images), ("annotations", annotations)):
        if not found:
            raise InputError(str(json_path), f"expected {key}, got an empty list")
    names = _category_names(json_path, _objects(json_path, content, "categories", required=False))
    files = _image_files(json_path, images, images_folder or json_path.parent)
    boxes: dict[str, list[_Annotation]] = {id: [] for id in files}
    captions: dict[str, list[str]] = {id: [] for id in files}
    crowds: dict[str, list[list[float]]] = {id: [] for id in files}
    ids, labels = set[str](), {category: place for place, category in enumerate(names)}
    for place, annotation in enumerate(annotations):
        where = f"{json_path} annotations[{place}]"
        if "id" in annotation:
            _refuse_repeated(where, "id", _id(where, annotation, "id"), ids)
        image = _id(where, annotation, "image_id")
        if image not in files:
            raise InputError(where, f"expected the id of an image, got image_id {image}")
        path, size = files[image]
        where += f" of {path.name!r}"
        if "caption" in annotation:
            captions[image].append(_text(where, annotation, "caption"))
        elif "bbox" not in annotation:
            raise InputError(where, "expected a bbox or a caption, got neither")
        if "bbox" in annotation and annotation.get("iscrowd") == 1:
            crowds[image].append(_box(where, annotation["bbox"], size))
        elif "bbox" in annotation:
            category = _id(where, annotation, "category_id")
            if category not in labels:
                known = ", ".join(f"{id} ({name})" for id, name in [*names.items()][:20]) or "none"
                expected = f"expected a category_id of categories, {known}"
                raise InputError(where, f"{expected}, got {category}")
            box = _box(where, annotation["bbox"], size)
            polygons = _polygons(where, annotation.get("segmentation") or [], size)
            boxes[image].append(_Annotation(labels[category], box, polygons))
    used = sorted({one.label for found in boxes.values() for one in found})
    return [
        AnnotatedImage(
            id, *files[id],
            boxes=np.array([one.box for one in found], np.float32).reshape(-1, 4),
            labels=np.searchsorted(used, [one.label for one in found]).astype(np.int64),
            polygons=[one.polygons for one in found],
            captions=captions[id],
            crowds=crowds[id],
        )
        for id, found in boxes.items()
    ], [[*names.values()][label] for label in used]  # fmt: skip


def read_masks(
    images_folder: Path, masks_folder: Path, classes: list[str] | None = None
) -> tuple[list[AnnotatedImage], list[str]]:
    """Return the images that have a mask, sorted by path, and the labels: index 0 is "background".

    A mask belongs to the image of the same path below its folder, but for the suffix; images
    without a mask are left out. classes: the names of the indices from 1 on; by default "1", "2",
    ... to the largest index of any mask. Raises InputError.
    """
    if classes is not None and (BACKGROUND in classes or len({*classes}) < len(classes)):
        expected = f"expected different names of the indices from 1 on; 0 is {BACKGROUND!r}"
        raise InputError(str(masks_folder), f"{expected}, got {', '.join(classes)}")
    known = None if classes is None else len(classes) + 1
    images = _files_by_stem(images_folder)
    pairs, used = list[AnnotatedImage](), set[int]()
    for stem, paths in _files_by_stem(masks_folder).items():
        found = images.get(stem, [])
        if len(found) != 1 or len(paths) != 1:
            names = ", ".join(path.name for path in [*found, *paths[1:]]) or "none"
            expected = f"expected one image of this name in {images_folder}"
            raise InputError(str(paths[0]), f"{expected} and one mask, got {names}")
        size = read_size(found[0])
        used |= {*np.unique(_read_mask(paths[0], size, known)).tolist()}
        none = np.empty((0, 4), np.float32), np.empty(0, np.int64)
        pairs.append(AnnotatedImage(stem, found[0], size, *none, [], [], paths[0]))
    if not (indices := used - {0, VOID}):
        expected = f"expected class indices from 1 on in some mask, got {sorted(used)} alone"
        raise InputError(str(masks_folder), f"{expected}; {VOID} is void: write an object as 1")
    return pairs, [BACKGROUND, *(classes or map(str, range(1, max(indices) + 1)))]


def find_mask_folders(folder: Path) -> tuple[Path, Path]:
    """Return the folders of images and of masks below a folder. Raises InputError."""
    for images, masks in MASK_FOLDERS:
        if (folder / images).is_dir() and (folder / masks).is_dir():
            return folder / images, folder / masks
    expected = " or ".join(" and ".join(pair) for pair in MASK_FOLDERS)
    raise InputError(str(folder), f"expected the folders {expected} in it; name both folders")


def draw_mask(annotated: AnnotatedImage, labels: list[str]) -> npt.NDArray[np.uint8]:
    """Return class indices uint8 (H, W) of an image at its upright size; 0 is the background.

    labels: of the segmentation, the background first. From polygons: label k is index k + 1, and a
    pixel is inside if its centre is. Large objects are drawn first, so that small ones in front of
    them stay. The pixels of a box without polygon are void, because nobody said which are its own,
    and those of a crowd where no object is.
    Raises InputError for a PNG that does not belong to the image or has an index beyond the labels.
    """
    if annotated.mask is not None:
        return _read_mask(annotated.mask, annotated.size, len(labels))
    width, height = annotated.size
    mask = np.zeros((height, width), np.uint8)
    for crowd in annotated.crowds:
        mask[_is_inside(_corners(crowd), height, width)] = VOID
    areas = np.prod(annotated.boxes[:, 2:] - annotated.boxes[:, :2], axis=1)
    for place in np.argsort(-areas, kind="stable").tolist():
        corners = _corners(annotated.boxes[place].tolist())
        for polygon in annotated.polygons[place]:
            mask[_is_inside(polygon, height, width)] = annotated.labels[place] + 1
        if not annotated.polygons[place]:
            mask[_is_inside(corners, height, width)] = VOID
    return mask


def _corners(box: list[float]) -> npt.NDArray[np.float64]:
    """Return the corners (4, 2) of a box."""
    x_min, y_min, x_max, y_max = box
    return np.array([[x_min, y_min], [x_max, y_min], [x_max, y_max], [x_min, y_max]], np.float64)


def _is_inside(polygon: npt.NDArray[Any], height: int, width: int) -> npt.NDArray[np.bool_]:
    """Return for each pixel (H, W) whether its centre is inside a polygon, by the even-odd rule.

    Each edge toggles all pixels to its right, in the rows that it crosses.
    """
    toggles = np.zeros((height, width + 1), np.uint8)
    for (x, y), (x_next, y_next) in zip(polygon, np.roll(polygon, -1, axis=0), strict=True):
        top, bottom = (math.ceil(end - 0.5) for end in sorted((float(y), float(y_next))))
        rows = np.arange(max(top, 0), min(bottom, height))
        if len(rows):
            crossing = x + (rows + 0.5 - y) * (x_next - x) / (y_next - y)
            toggles[rows, np.ceil(crossing - 0.5).clip(0, width).astype(int)] ^= 1
    return np.asarray(np.bitwise_xor.accumulate(toggles, axis=1)[:, :width], bool)


def _read_mask(path: Path, size: tuple[int, int], classes: int | None) -> npt.NDArray[np.uint8]:
    """Return the indices (H, W) of a mask of `size`; each is below `classes` or void."""
    mask = read_indices(path)
    if mask.shape[::-1] != size:
        expected = f"expected the size of its image, {size[0]} x {size[1]}"
        raise InputError(str(path), f"{expected}, got {mask.shape[1]} x {mask.shape[0]}")
    if classes is not None:
        beyond = np.argwhere((mask >= classes) & (mask != VOID))
        if len(beyond):
            row, column = beyond[0].tolist()
            expected = f"expected class indices 0 to {classes - 1}, or {VOID} for void"
            got = f"got {mask[row, column]} at x {column}, y {row}"
            raise InputError(str(path), f"{expected}, {got}; name all classes or correct the mask")
    return mask


def _files_by_stem(folder: Path) -> dict[str, list[Path]]:
    """Return the image files below a folder by their path there without suffix, sorted."""
    if not folder.is_dir():
        raise InputError(str(folder), "expected a folder, got none")
    files: dict[str, list[Path]] = {}
    for source in ImageSources([os.path.join(folder, "")], io.BytesIO()):
        if source.error:
            raise InputError(source.path, source.error)
        path = Path(source.path)
        files.setdefault(path.relative_to(folder).with_suffix("").as_posix(), []).append(path)
    return files


def _read_json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise InputError(str(path), "expected COCO's JSON, got no such file")
    try:
        if (size := path.stat().st_size) > MAX_JSON_BYTES:
            limit = f"expected at most {MAX_JSON_BYTES} bytes"
            raise InputError(str(path), f"{limit}, got {size}; split it")
        # Of bytes json finds the encoding and a byte order mark itself.
        content = json.loads(
            path.read_bytes(), parse_constant=_refuse_constant, object_pairs_hook=_unique_keys
        )
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(str(path), f"expected COCO's JSON, got none ({error})") from error
    if not isinstance(content, dict):
        got = f"got a JSON {type(content).__name__}"
        raise InputError(str(path), f"expected an object with images and annotations, {got}")
    return content


def _refuse_constant(text: str) -> NoReturn:
    raise ValueError(f"{text} is not JSON")


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) < len(pairs):
        [(key, _)] = Counter(key for key, _ in pairs).most_common(1)
        raise ValueError(f"the key {key!r} is there twice in one object")
    return content


def _objects(
    path: Path, content: dict[str, Any], key: str, required: bool = True
) -> list[dict[str, Any]]:
    found = content.get(key, None if required else [])
    if not isinstance(found, list) or not all(isinstance(one, dict) for one in found):
        got = type(found).__name__ if not isinstance(found, list) else "others in it"
        raise InputError(f"{path} {key}", f"expected a list of objects, got {got}")
    return found


def _category_names(path: Path, categories: list[dict[str, Any]]) -> dict[str, str]:
    """Return the names of the categories by their id, in the order of the ids."""
    ids, names, found = set[str](), set[str](), list[tuple[Any, str]]()
    for place, category in enumerate(categories):
        where = f"{path} categories[{place}]"
        _refuse_repeated(where, "id", _id(where, category, "id"), ids)
        name = _text(where, category, "name")
        _refuse_repeated(where, "name", name, names)
        found.append((category["id"], name))
    # Numbers before text, each by its value.
    ordered = sorted(found, key=lambda one: (isinstance(one[0], str), one[0]))
    return {str(id): name for id, name in ordered}


def _image_files(
    json_path: Path, images: list[dict[str, Any]], folder: Path
) -> dict[str, tuple[Path, tuple[int, int]]]:
    """Return path, and width and height in pixels, of each image by its id."""
    root = os.path.realpath(folder)
    ids, real_paths, files = set[str](), set[str](), {}
    for place, image in enumerate(images):
        where = f"{json_path} images[{place}]"
        id, name = _id(where, image, "id"), _text(where, image, "file_name")
        _refuse_repeated(where, "id", id, ids)
        real = os.path.realpath(os.path.join(root, name))
        if os.path.commonpath([root, real]) != root:
            expected = f"expected a file below {folder}"
            raise InputError(where, f"{expected}, got {name!r}, which leads out of it")
        _refuse_repeated(where, "file", real, real_paths)
        try:
            size = read_size(os.path.join(folder, name))
        except InputError as error:
            raise InputError(where, f"{name!r} in {folder}: {error.reason}") from error
        declared = image.get("width", size[0]), image.get("height", size[1])
        if declared != size:
            turned = declared == size[::-1]
            cure = "; its EXIF data turn it: annotate the upright image" if turned else ""
            got = f"got width {declared[0]!r} and height {declared[1]!r}"
            expected = f"expected the size of {name!r}, {size[0]} x {size[1]} when upright"
            raise InputError(where, f"{expected}, {got}{cure}")
        files[id] = Path(folder, name), size
    return files


def _id(where: str, entry: dict[str, Any], key: str) -> str:
    value = entry.get(key)
    return str(value) if type(value) is int else _text(where, entry, key)


def _text(where: str, entry: dict[str, Any], key: str) -> str:
    """Return non-empty text that a file can be named by and an output file can hold."""
    value = entry.get(key)
    if not isinstance(value, str) or not value.strip() or "\0" in value or SURROGATES.search(value):
        raise InputError(where, f"expected {key}, got {value!r:.80}")
    return value


def _refuse_repeated(where: str, what: str, value: str, seen: set[str]) -> None:
    """Add a value to those seen. Raises InputError if it was there."""
    if value in seen:
        raise InputError(where, f"expected each {what} once, got {value!r} a second time")
    seen.add(value)


def _box(where: str, bbox: Any, size: tuple[int, int]) -> list[float]:
    """Return x_min, y_min, x_max, y_max in pixels of COCO's x, y, width, height."""
    if not _are_numbers(bbox) or len(bbox) != 4 or min(bbox[2:]) <= 0:
        expected = "expected bbox [x, y, width, height] with a width and height above 0"
        raise InputError(where, f"{expected}, got {bbox!r}")
    x, y, width, height = bbox
    (left, top), (right, bottom) = _clip(where, [[x, y], [x + width, y + height]], size)
    if left >= right or top >= bottom:
        raise InputError(where, f"expected a bbox inside of its image, got {bbox!r}")
    return [left, top, right, bottom]


def _polygons(where: str, segmentation: Any, size: tuple[int, int]) -> list[Polygon]:
    if isinstance(segmentation, dict):
        cure = "save the mask as polygons, or leave segmentation out where boxes are enough"
        raise InputError(where, f"expected polygons, got a run-length mask; {cure}")
    shape = "a list of polygons, each [x, y, x, y, ...] of three points or more"
    if not isinstance(segmentation, list):
        raise InputError(where, f"expected segmentation, {shape}, got {segmentation!r:.80}")
    polygons = []
    for polygon in segmentation:
        if not _are_numbers(polygon) or len(polygon) < 6 or len(polygon) % 2:
            raise InputError(where, f"expected segmentation, {shape}, got {polygon!r:.80}")
        points = [[*point] for point in zip(polygon[::2], polygon[1::2], strict=True)]
        polygons.append(np.array(_clip(where, points, size), np.float32))
    return polygons


def _are_numbers(values: Any) -> bool:
    """Return whether values are a list of numbers that a float holds; true and false are none."""
    return isinstance(values, list) and all(
        type(value) in (int, float) and abs(value) < 1e9 for value in values
    )


def _clip(where: str, points: list[list[float]], size: tuple[int, int]) -> list[list[float]]:
    """Return the points inside of the image. Raises InputError if one lies farther outside than
    rounding explains."""
    for point in points:
        if not all(
            -ROUNDING_PX <= value <= side + ROUNDING_PX
            for value, side in zip(point, size, strict=True)
        ):
            expected = f"expected corners inside of its image, {size[0]} x {size[1]}"
            raise InputError(where, f"{expected}, got x {point[0]:g}, y {point[1]:g}")
    return [[min(max(v, 0), side) for v, side in zip(p, size, strict=True)] for p in points]
