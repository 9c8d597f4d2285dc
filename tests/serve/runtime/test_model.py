"""Models opened by onnxruntime: their numbers, golden samples, and graphs that do not fit their
document.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import tiny
from convline.errors import ModelFileError
from convline.images.classifier import Classifier
from convline.loading import load_file
from convline.model_file.golden import pack_array
from convline.timeseries.forecaster import Forecaster


@pytest.mark.parametrize("count", [1, 3, 64])
def test_classifier_computes_the_formula(classifier: Path, count: int) -> None:
    """The softmax of the mean brightness, in numpy float64."""
    model = load_file(classifier, "cpu")
    assert isinstance(model, Classifier)
    images = np.random.default_rng(count).integers(0, 256, (count, 8, 8, 1), dtype=np.uint8)
    np.testing.assert_allclose(
        model.predict_proba(images), tiny.classify_by_brightness(images), rtol=0, atol=1e-6
    )


def test_forecaster_computes_the_formula(make_forecaster: Callable[..., Path]) -> None:
    """The last value + 1, 2, 3; quantiles one below, at and one above it."""
    model = load_file(make_forecaster("a", "b"), "cpu")
    assert isinstance(model, Forecaster)
    values = np.arange(16.0).reshape(2, 4, 2)
    forecast, quantiles = model.run(values)
    expected = values[:, -1:] + np.array([1, 2, 3]).reshape(1, 3, 1)
    assert (forecast == expected).all()
    assert (quantiles == expected[..., None] + [-1, 0, 1]).all()


def test_golden_samples_are_reproduced(
    classifier: Path, make_forecaster: Callable[..., Path]
) -> None:
    """The golden outputs were computed in numpy, so a replay agrees within the stated tolerance."""
    for path in (classifier, make_forecaster()):
        model = load_file(path, "cpu")
        assert model.replay_golden() <= model.golden_atol


def test_golden_replay_measures_the_difference(tmp_path: Path) -> None:
    """One golden probability is moved by a quarter."""
    document = tiny.classifier_document()
    images = np.zeros((2, 8, 8, 1), np.uint8)
    wrong = tiny.classify_by_brightness(images).astype(np.float32)
    wrong[1, 0] += 0.25
    document["golden"] |= {
        "input": pack_array(images),
        "outputs": {"probabilities": pack_array(wrong)},
    }
    path = tmp_path / "moved.onnx"
    path.write_bytes(tiny.reseal(document))
    assert load_file(path, "cpu").replay_golden() == pytest.approx(0.25, rel=0, abs=1e-6)


def static_batch() -> onnx.ModelProto:
    model = tiny.classifier_graph()
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1
    return model


def extra_input() -> onnx.ModelProto:
    model = tiny.classifier_graph()
    model.graph.input.append(
        onnx.helper.make_tensor_value_info("noise", onnx.TensorProto.FLOAT, [1])
    )
    return model


def renamed_output() -> onnx.ModelProto:
    model = tiny.classifier_graph()
    model.graph.output[0].name = model.graph.node[-1].output[0] = "scores"
    return model


@pytest.mark.parametrize(
    ("graph", "change", "message"),
    [
        (tiny.forecaster_graph, {}, "the document has no input 'series'"),
        (
            tiny.classifier_graph,
            {"labels": ["a", "b"]},
            "graph output 'probabilities'.*'N', 2.*'N', 3",
        ),
        (static_batch, {}, "graph input 'images'"),
        (extra_input, {}, "no input 'noise'"),
        (renamed_output, {}, "expected graph output 'probabilities', got scores"),
    ],
    ids=["other-task", "labels", "static-batch", "extra-input", "renamed-output"],
)
def test_document_and_graph_must_agree(
    tmp_path: Path, graph: Any, change: dict[str, Any], message: str
) -> None:
    """Graph and document are each valid, but belong to different models."""
    path = tmp_path / "other.onnx"
    path.write_bytes(tiny.reseal(tiny.classifier_document() | change, graph()))
    with pytest.raises(ModelFileError, match=message):
        load_file(path, "cpu")


def test_a_graph_that_onnxruntime_refuses_is_an_error(tmp_path: Path) -> None:
    """The file is valid except for an operator that does not exist."""
    graph = tiny.classifier_graph()
    graph.graph.node[0].op_type = "Teleport"
    path = tmp_path / "teleport.onnx"
    path.write_bytes(tiny.reseal(tiny.classifier_document(), graph))
    with pytest.raises(ModelFileError, match=r"cannot open it .*Teleport"):
        load_file(path, "cpu")


def test_impossible_crop_is_a_model_file_error(tmp_path: Path) -> None:
    """8 x 8 pixels cannot be cut from an image whose shorter side is 4."""
    document = tiny.classifier_document()
    document["input"] |= {"fit": "crop", "shorter_px": 4}
    path = tmp_path / "crop.onnx"
    path.write_bytes(tiny.reseal(document))
    with pytest.raises(ModelFileError, match="expected at least 8 to crop, got 4"):
        load_file(path, "cpu")


def test_wrong_shapes_are_value_errors(
    classifier: Path, make_forecaster: Callable[..., Path]
) -> None:
    """The message shows what was expected."""
    with pytest.raises(ValueError, match=r"expected uint8 \(N, \(8, 8, 1\)\), got float32"):
        load_file(classifier, "cpu").predict_proba(np.zeros((1, 8, 8, 1), np.float32))
    with pytest.raises(ValueError, match=r"expected values \(N, \(4, 1\)\)"):
        load_file(make_forecaster(), "cpu").run(np.zeros((1, 5, 1)))
