"""Classification: classes, confidence and mistakes; accuracies are compared image by image."""

from __future__ import annotations

from typing import Any

import numpy as np

from pipeline.report import error_analysis, image_files, paired_images
from pipeline.report.result_files import Entry

TITLE = "Classification"
SAMPLES = "images"
METRICS = ["accuracy"], ["int8_accuracy", "calibration_error"]
TEMPLATE = "classifier.html.j2"

describe_targets = image_files.describe_classes
describe_test = image_files.describe_test
serve_command = image_files.serve_command
verdicts = image_files.verdicts
analyse = error_analysis.error_context
compare = paired_images.compare_classifiers


def fits(predictions: dict[str, np.ndarray], about: dict[str, Any]) -> bool:
    return predictions["probabilities"].shape == (about["test"], len(about["labels"]))


def test_samples(entry: Entry) -> tuple[Any, ...]:
    return *image_files.test_files(entry), entry.prediction("y").tobytes()
