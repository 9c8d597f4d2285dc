"""Captioning: captions beside their references, by the grade of their mistakes."""

from __future__ import annotations

import base64
from typing import Any

import onnx
from convline.model_file.onnx_file import ModelFile

from pipeline.report import captioner_page, image_files
from pipeline.report.live_demo import Demo, demo_of_pictures

TITLE = "Captioning"
SAMPLES = "images"
METRICS: tuple[list[str], list[str]] = ["exact_match", "cider"], []
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
    columns = ["word", "probability"]
    return demo_of_pictures(
        file, "write a caption", "Words", columns, step=step_without_defaults(file)
    )


def step_without_defaults(file: ModelFile) -> str:
    """Return the step graph in base64, its inputs required: onnxruntime-web takes no value for an
    input that has a default.
    """
    model = onnx.load_from_string(file.step_graph)
    inputs = {value.name for value in model.graph.input}
    weights = [tensor for tensor in model.graph.initializer if tensor.name not in inputs]
    del model.graph.initializer[:]
    model.graph.initializer.extend(weights)
    return base64.b64encode(model.SerializeToString()).decode()
