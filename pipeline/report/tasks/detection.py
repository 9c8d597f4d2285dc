"""Detection: finds over images, average precision by class, missed and false boxes."""

from __future__ import annotations

from convline.model_file.onnx_file import ModelFile

from pipeline.report import detector_page, image_files
from pipeline.report.live_demo import Demo, demo_of_pictures

TITLE = "Detection"
SAMPLES = "images"
METRICS = ["map50", "map"], ["int8_map50"]
TEMPLATE = "detector.html.j2"

describe_targets = image_files.describe_classes
describe_test = image_files.describe_test
serve_command = image_files.serve_command
verdicts = image_files.verdicts
test_samples = image_files.test_files
compare = image_files.count_images
analyse = detector_page.detector_context


def demo(file: ModelFile) -> Demo | None:
    least = file.json["detection"]["min_score"]
    columns = ["class", "score", "box, in pixels of the input"]
    return demo_of_pictures(file, "find objects", "Finds", columns, least)
