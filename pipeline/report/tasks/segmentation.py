"""Segmentation: masks over images beside the truth, overlap by class, and confused classes."""

from __future__ import annotations

from convline.model_file.onnx_file import ModelFile

from pipeline.report import image_files, segmenter_page
from pipeline.report.live_demo import Demo, demo_of_pictures

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


def demo(file: ModelFile) -> Demo | None:
    colours = [list(segmenter_page.colour_of(k)) for k in range(len(file.json["labels"]))]
    columns = ["class", "share of pixels", "colour"]
    return demo_of_pictures(file, "label pixels", "Classes", columns, colours=colours)
