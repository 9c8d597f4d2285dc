"""Classification: classes, confidence and mistakes; accuracies are compared image by image."""

from __future__ import annotations

from typing import Any

from convline.model_file.onnx_file import ModelFile

from pipeline.report import error_analysis, image_files, paired_images
from pipeline.report.live_demo import Demo
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


def test_samples(entry: Entry) -> tuple[Any, ...]:
    return *image_files.test_files(entry), entry.prediction("y").tobytes()


def demo(file: ModelFile) -> Demo | None:
    """Return the demo of a model of square grey digits with the resize that the page implements."""
    known = {"kind": "image", "colour": "grey", "fit": "stretch", "interpolation": "bilinear"}
    rule, is_of_digits = file.json["input"], file.json["provenance"]["data"]["source"] == "digits"
    height, width = rule["size"]
    if is_of_digits and known.items() <= rule.items() and height == width:
        return Demo("live_digits.html.j2")
    return None
