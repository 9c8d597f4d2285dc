"""Triton's repository for a detector, a segmenter and a captioner: its schema reads it, and the
tensors are those of the graphs.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnx
import tiny
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
