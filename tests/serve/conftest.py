"""Sealed model files for the tests of `serve`; `tiny.py` says what they compute."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tiny
from convline.model_file.onnx_file import seal


@pytest.fixture(scope="session")
def classifier_bytes() -> bytes:
    return seal(tiny.classifier_graph().SerializeToString(), tiny.classifier_document())


@pytest.fixture
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hide every GPU the way a user does."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")


@pytest.fixture
def classifier(tmp_path: Path, classifier_bytes: bytes) -> Path:
    """The path of a sealed classifier."""
    path = tmp_path / "brightness.onnx"
    path.write_bytes(classifier_bytes)
    return path


@pytest.fixture
def detector(tmp_path: Path) -> Path:
    """The path of a sealed detector of bright halves."""
    path = tmp_path / "halves.onnx"
    path.write_bytes(seal(tiny.detector_graph().SerializeToString(), tiny.detector_document()))
    return path


@pytest.fixture
def segmenter(tmp_path: Path) -> Path:
    """The path of a sealed segmenter of shades."""
    path = tmp_path / "shades.onnx"
    path.write_bytes(seal(tiny.segmenter_graph().SerializeToString(), tiny.segmenter_document()))
    return path


@pytest.fixture
def make_forecaster(tmp_path: Path) -> Callable[..., Path]:
    """A function that writes a sealed forecaster of some columns, with changes to its `input`
    object.
    """

    def make(*columns: str, **rule: Any) -> Path:
        names = columns or ("y",)
        path = tmp_path / "riser.onnx"
        graph = tiny.forecaster_graph(len(names)).SerializeToString()
        path.write_bytes(seal(graph, tiny.forecaster_document(names, **rule)))
        return path

    return make
