"""Triton's repository for a detector, a segmenter and a captioner: its schema reads it, and the
tensors are those of the graphs.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import tiny
import tiny_captioner
from convline.model_file.onnx_file import read_model_file
from google.protobuf import text_format
from triton_schema import triton_message

from pipeline.package import triton

UINT8, INT64, FP32 = 2, 9, 11  # DataType of Triton
WIDE = [8, 16]


def written(folder: Path, document: dict[str, Any], graph: onnx.ModelProto) -> dict[str, Any]:
    """Return the parsed configuration of each model of the repository, by name."""
    path = folder / "model.onnx"
    path.write_bytes(tiny.reseal(document, graph))
    triton.write_triton_models(folder / "triton", "fp32", path, read_model_file(path))
    configs = sorted((folder / "triton").glob("*/config.pbtxt"))
    return {
        file.parent.name: text_format.Parse(file.read_text(), triton_message()) for file in configs
    }


def tensors(part: Any) -> dict[str, tuple[int, list[int]]]:
    return {tensor.name: (tensor.data_type, [*tensor.dims]) for tensor in part}


def test_a_detector(tmp_path: Path) -> None:
    """`count` is one number an image, which Triton writes as [1] reshaped to []."""
    found = written(tmp_path, tiny.detector_document(), tiny.detector_graph())
    config = found["tiny-detection"]
    assert tensors(config.input) == {"images": (UINT8, [*WIDE, 1])}
    assert tensors(config.output) == {
        "boxes": (FP32, [2, 4]), "labels": (INT64, [2]), "scores": (FP32, [2]), "count": (INT64, [1]),
    }  # fmt: skip
    shaped = {tensor.name: tensor.HasField("reshape") for tensor in config.output}
    assert shaped == {"boxes": False, "labels": False, "scores": False, "count": True}
    assert [*config.output[3].reshape.shape] == []
    assert not any(tensor.label_filename for tensor in config.output)  # scores are by find
    lines = (tmp_path / "triton/tiny-detection/labels.txt").read_text().splitlines()
    assert lines == tiny.HALVES
    served = tmp_path / "triton/tiny-detection/1/model.onnx"
    assert served.read_bytes() == (tmp_path / "model.onnx").read_bytes()


def test_a_segmenter(tmp_path: Path) -> None:
    found = written(tmp_path, tiny.segmenter_document(), tiny.segmenter_graph())
    config = found["tiny-segmentation"]
    masks, probabilities = (UINT8, WIDE), (FP32, [3, *WIDE])
    assert tensors(config.output) == {"masks": masks, "probabilities": probabilities}
    assert not any(tensor.label_filename for tensor in config.output)  # a class a pixel
    assert len((tmp_path / "triton/tiny-segmentation/labels.txt").read_text().splitlines()) == 3


def test_a_captioner_is_two_models(tmp_path: Path) -> None:
    """All inputs of the step are required; both together say what the whole file says."""
    found = written(tmp_path, tiny_captioner.document(), tiny_captioner.graph())
    assert [*found] == ["tiny-captioning", "tiny-captioning-step"]
    encoder, step = found.values()
    state = (FP32, [2])
    assert tensors(encoder.input) == {"images": (UINT8, [*WIDE, 1])}
    assert tensors(encoder.output) == {"first_hidden": state, "first_cell": state}
    assert tensors(step.input) == {"word": (INT64, [1]), "hidden": state, "cell": state}
    assert [tensor.HasField("reshape") for tensor in step.input] == [True, False, False]
    assert tensors(step.output) == {
        "log_probabilities": (FP32, [7]), "next_hidden": state, "next_cell": state,
    }  # fmt: skip
    assert [tensor.label_filename for tensor in step.output] == ["labels.txt", "", ""]
    words = (tmp_path / "triton/tiny-captioning-step/labels.txt").read_text().splitlines()
    assert words == tiny_captioner.WORDS
    whole, first, second = (
        onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        for path in (
            tmp_path / "model.onnx",
            tmp_path / "triton/tiny-captioning/1/model.onnx",
            tmp_path / "triton/tiny-captioning-step/1/model.onnx",
        )
    )
    assert {node.name for node in second.get_inputs()} == {"word", "hidden", "cell"}
    given = {"images": tiny.wide_images()}
    hidden, cell = first.run(["first_hidden", "first_cell"], given)
    state_inputs = {"word": np.array([0, 3, 4]), "hidden": hidden, "cell": cell}
    expected = whole.run(["log_probabilities"], given | state_inputs)
    np.testing.assert_array_equal(second.run(["log_probabilities"], state_inputs), expected)
