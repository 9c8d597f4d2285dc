"""Segmentation: masks over images beside the truth, overlap by class, and confused classes."""

from __future__ import annotations

from typing import Any

import numpy as np

from pipeline.report import image_files, segmenter_page

TITLE = "Segmentation"
SAMPLES = "images"
METRICS = ["mean_iou", "pixel_accuracy", "class_accuracy"], ["int8_mean_iou"]
TEMPLATE = "segmenter.html.j2"

describe_targets = image_files.describe_classes
describe_test = image_files.describe_test
serve_command = image_files.serve_command
verdicts = image_files.verdicts
test_samples = image_files.test_files
compare = image_files.count_images
analyse = segmenter_page.segmenter_context


def fits(predictions: dict[str, np.ndarray], about: dict[str, Any]) -> bool:
    inside = predictions["masks"].max(initial=0) < len(about["labels"])
    return (
        bool(inside)
        and predictions["y"].shape == predictions["masks"].shape[:1] + tuple(about["input"]["size"])
        and len(predictions["y"]) == about["test"]
    )
