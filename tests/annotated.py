"""A small COCO file with boxes, polygons and captions, and its images; recipes of annotated sets."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from pipeline.params import load
from pipeline.params.schema import ImageData

WIDTH, HEIGHT = 40, 20


def coco_content(count: int = 10) -> dict[str, Any]:
    """Return a COCO file of images 0.png ...: image k has a box of class "cat", polygon and all,
    those of even k another of "dog", and two captions.
    """
    images = [
        {"id": k, "file_name": f"{k}.png", "width": WIDTH, "height": HEIGHT} for k in range(count)
    ]
    square = [4, 2, 12, 2, 12, 10, 4, 10]
    annotations: list[dict[str, Any]] = []
    for k in range(count):
        cat = {"bbox": [4, 2, 8, 8], "category_id": 7, "segmentation": [square]}
        dog = {"bbox": [20, 5, 10, 5], "category_id": 9, "segmentation": []}
        captions = [{"caption": "A cat."}, {"caption": f"a cat, number {k}"}]
        found = [cat, *([dog] if k % 2 == 0 else []), *captions]
        annotations += [
            {"id": len(annotations) + i, "image_id": k, **a} for i, a in enumerate(found)
        ]
    categories = [{"id": 9, "name": "dog"}, {"id": 7, "name": "cat"}]
    return {"images": images, "annotations": annotations, "categories": categories}


def write_coco_set(folder: Path, content: dict[str, Any] | None = None) -> Path:
    """Write a COCO file and the images that it names by default; return the file."""
    rng = np.random.default_rng(0)
    for image in coco_content()["images"]:
        pixels = rng.integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
        Image.fromarray(pixels).save(folder / image["file_name"])
    path = folder / "annotations.json"
    path.write_text(json.dumps(content or coco_content()))
    return path


def write_mask_set(folder: Path, count: int = 10) -> Path:
    """Write images and masks with index 1 in the left half, 2 in a corner and void at the right
    border; return the folder.
    """
    rng = np.random.default_rng(0)
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    mask[:, :20], mask[:5, :5], mask[:, -4:] = 1, 2, 255
    for name in ("JPEGImages", "SegmentationClass"):
        (folder / name).mkdir()
    for k in range(count):
        pixels = rng.integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
        Image.fromarray(pixels).save(folder / "JPEGImages" / f"{k}.jpg")
        Image.fromarray(mask).save(folder / "SegmentationClass" / f"{k}.png")
    return folder


def annotated_recipe(task: Any, input_size: tuple[int, int], **spec: Any) -> ImageData:
    """Return a checked `data:` block; spec: keys of the data set."""
    own = {} if spec["source"] == "scenes" else {"licence": "own", "validation": 2, "test": 3}
    made = load.check_set("mine", own | spec)
    return ImageData(set="mine", size=input_size, colour="rgb", task=task, spec=made)
