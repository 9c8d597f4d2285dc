"""Detection: the same finds in each raw image, in its own pixels."""

from __future__ import annotations

from typing import Any

import numpy as np
from convline.images.annotations import read_coco
from convline.images.decode import read_size
from convline.images.detector import SIDES, compare_finds
from convline.metrics.detection import average_precision
from convline.model_file.onnx_file import read_model_file
from convline.model_file.registry import variant_file_name

from pipeline.infer.raw_images import ServedImage, describe_served, serve_images
from pipeline.infer.request import Request
from pipeline.params.schema import ERROR_LIMIT

SHOWN = 3  # finds in the example


def serve(request: Request) -> dict[str, Any]:
    """Return the mAP50 of `infer images` on the raw files, and that of the check on the same
    images.

    Served and checked finds may differ as far as stage check lets onnxruntime differ from torch.
    """
    images, labels = serve_images(request, "--min-score", "0"), request.about["labels"]
    numbers = [image.number for image in images]
    served = [read_finds(image, labels) for image in images]
    checked = [finds[finds[:, 4] >= 0] for finds in request.predictions[numbers]]
    atol = read_model_file(request.package / variant_file_name("fp32")).json["golden"]["atol"]
    same = True
    for image, found, expected in zip(images, served, checked, strict=True):
        size = read_size(image.path)
        placed = enlarge(expected, request.about["input"]["size"], size)
        gap = compare_finds(stack_finds([found]), stack_finds([placed]), max(size))
        same = same and gap.difference <= atol and len(found) == len(placed)
    value, _ = average_precision(stack_finds(served), read_truth(request, images), len(labels))
    y = request.checked["y"][numbers]
    expected_value, _ = average_precision(stack_finds(checked), y, len(labels))
    equal = same and abs(value - expected_value) <= ERROR_LIMIT
    finds = [f"{row['label']} ({row['score']:.3f})" for row in images[0].rows if row.get("label")]
    answer = ", ".join(finds[:SHOWN]) or "nothing"
    return describe_served(images, "map50", value, expected_value, equal, answer)


def read_finds(image: ServedImage, labels: list[str]) -> np.ndarray:
    """Return the finds of an image, (M, 6): box in pixels of the image, label and score."""
    rows = [row for row in image.rows if row.get("label")]
    finds = [
        [*(row[side] for side in SIDES), labels.index(row["label"]), row["score"]] for row in rows
    ]
    return np.array(finds, np.float32).reshape(-1, 6)


def enlarge(finds: np.ndarray, size: list[int], original: tuple[int, int]) -> np.ndarray:
    """Return finds (M, 6) in an input of height and width `size`, in pixels of an original of width
    and height `original`.
    """
    boxes = np.clip(finds[:, :4] / np.tile(size[::-1], 2), 0, 1) * np.tile(original, 2)
    return np.concatenate([boxes, finds[:, 4:]], 1)


def stack_finds(finds: list[np.ndarray]) -> tuple[np.ndarray, ...]:
    """Return boxes (N, K, 4), labels, scores (N, K) and count (N,) of finds (M, 6) an image."""
    count = np.array([len(found) for found in finds])
    most = count.max(initial=1)
    padded = np.stack([np.pad(found, ((0, most - len(found)), (0, 0))) for found in finds])
    return padded[..., :4], padded[..., 4].astype(np.int64), padded[..., 5], count


def read_truth(request: Request, images: list[ServedImage]) -> np.ndarray:
    """Return the boxes (N, M, 5) of the raw files' annotations, label -1 beyond an image's."""
    annotated, names = read_coco(request.data / "raw" / "annotations.json")
    indices = np.array([request.about["labels"].index(name) for name in names])
    by_path = {one.path: one for one in annotated}
    found = [by_path[image.path] for image in images]
    y = np.full((len(found), max(len(one.boxes) for one in found), 5), -1, np.float32)
    for row, one in zip(y, found, strict=True):
        row[: len(one.boxes)] = np.column_stack([one.boxes, indices[one.labels]])
    return y
