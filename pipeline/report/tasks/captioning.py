"""Captioning: captions beside their references, by the grade of their mistakes."""

from __future__ import annotations

import base64
from typing import Any

from convline.model_file.onnx_file import ModelFile

from pipeline.report import captioner_page, image_files
from pipeline.report.live_demo import Demo, demo_of_pictures

TITLE = "Captioning"
SAMPLES = "images"
METRICS = ["exact_match", "cider"], ["int8_exact_match"]
TEMPLATE = "captioner.html.j2"

describe_test = image_files.describe_test
serve_command = image_files.serve_command
verdicts = image_files.verdicts
test_samples = image_files.test_files
compare = image_files.count_images
analyse = captioner_page.captioner_context


def describe_targets(about: dict[str, Any]) -> str:
    return f"{len(about['words'])} words"


def demo(file: ModelFile) -> Demo | None:
    step, columns = base64.b64encode(file.step_graph).decode(), ["word", "probability"]
    return demo_of_pictures(file, "write a caption", "Words", columns, step=step)
