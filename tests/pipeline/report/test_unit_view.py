"""What the page Inside is given: the packaged graph with its inner tensors, and its layers."""

from __future__ import annotations

import base64
import gzip
import json
from pathlib import Path
from typing import Any

import line
import numpy as np
import onnx
import onnxruntime
import operators
import pytest
from convline.model_file.golden import unpack_array
from convline.model_file.onnx_file import read_model_file
from finished import CLASSIFIER, RECIPES
from onnx import numpy_helper

from pipeline.report import browser_demo, unit_view
from pipeline.report.result_files import Entry

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with three packaged files: the line's two, and one of all operators."""
    root = tmp_path_factory.mktemp("inside")
    for name in (line.DIGITS, line.WAVES):
        (root / "out" / "dist" / name).mkdir(parents=True)
        source = line.made() / "out" / "dist" / name / "model.onnx"
        (root / "out" / "dist" / name / "model.onnx").symlink_to(source)
    operators.write(root / "out" / "dist" / "operators" / "model.onnx")
    return root


def view(root: Path, name: str) -> dict[str, Any]:
    return unit_view.view(read_model_file(root / "out" / "dist" / name / "model.onnx"))


def run(graph: bytes, given: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, given), strict=True))


@pytest.mark.parametrize("name", [line.DIGITS, line.WAVES, "operators"])
def test_the_graph_answers_as_the_packaged_file_and_has_every_tensor(name: str, root: Path) -> None:
    file, given = read_model_file(root / "out" / "dist" / name / "model.onnx"), view(root, name)
    x = unpack_array(file.json["golden"]["input"])
    content = gzip.decompress(base64.b64decode(given["onnx"]))
    outputs = run(content, {given["inputs"][0]: x})
    for output, right in run(file.prediction_graph, {given["inputs"][0]: x}).items():
        np.testing.assert_allclose(outputs[output], right, rtol=0, atol=1e-6)
    nodes = onnx.load_from_string(file.prediction_graph).graph.node
    assert outputs.keys() == {name for node in nodes for name in node.output if name}
    layers = given["layers"]
    assert {layer["output"] for layer in layers} == {
        name for name, array in outputs.items() if array.dtype in (np.float32, np.uint8)
    }
    if name == "operators":  # what ONNX's shape inference says is what onnxruntime computes
        one = run(content, {given["inputs"][0]: x[:1]})
        assert all(tuple(at["dims"]) == one[at["output"]].shape for at in layers)


@pytest.mark.parametrize("name", [line.DIGITS, "operators"])
def test_weights_are_read_from_the_graph_itself(name: str, root: Path) -> None:
    """Stored once: the page reads them from the bytes that onnxruntime runs."""
    given = view(root, name)
    content = gzip.decompress(base64.b64decode(given["onnx"]))
    packaged = read_model_file(root / "out" / "dist" / name / "model.onnx").prediction_graph
    weights = onnx.load_from_string(packaged).graph.initializer
    assert given["weights"].keys() == {tensor.name for tensor in weights}
    for tensor in weights:
        right, at = numpy_helper.to_array(tensor), given["weights"][tensor.name]
        found = np.frombuffer(content, at["dtype"], right.size, at["offset"])
        np.testing.assert_array_equal(found.reshape(at["dims"]), right)


@pytest.mark.parametrize(
    ("weights", "name"),
    [
        (["net.features.c1.weight", "net.features.c1.bias"], "features.c1"),
        (["view", "net.features.c3.bias"], "features.c3"),
        (["0.net.net.features.0.weight"], "features.0"),
        (["net.net.stages.2.weight"], "stages.2"),
        (["mean"], "normalization"),
        (["0.net.scale"], "normalization"),
        (["net.offsets"], "offsets"),
        (["val_1"], ""),
        ([], ""),
    ],
)
def test_a_layer_has_its_name_in_the_network(weights: list[str], name: str) -> None:
    assert unit_view.layer_name(weights) == name


def test_a_window_has_all_its_attributes(root: Path) -> None:
    """ONNX leaves defaults out; the page needs each stride, dilation and padding."""
    node = onnx.helper.make_node("Conv", ["x", "w"], ["y"], strides=[2])
    found = unit_view.attributes(node, {"w": [4, 3, 5]})
    right = {"strides": [2], "dilations": [1], "pads": [0, 0], "kernel_shape": [5]}
    assert found == right


def test_a_file_that_is_too_large_is_named_and_not_written(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entries = [Entry(name, RECIPES[CLASSIFIER], root) for name in (line.DIGITS, "operators", "new")]
    sizes = [unit_view.package_path(entry).stat().st_size for entry in entries[:2]]
    monkeypatch.setattr(browser_demo, "MAX_BYTES", min(sizes))
    large = entries[int(np.argmax(sizes))].name
    context = unit_view.write_unit_views(entries, tmp_path, "")
    assert context["refused"] == [f"{large} ({max(sizes) / 1e6:.1f} MB)"]
    assert [f"{name}.js" for name in context["models"]] == [
        path.name for path in (tmp_path / "inside").iterdir()
    ]
    assert len(context["models"]) == 1 and context["missing"] == ""
    assert [entry.name for entry in entries if browser_demo.is_small(entry)] == context["models"]


def test_without_a_package_or_a_runtime_the_page_says_why(root: Path, tmp_path: Path) -> None:
    entry = Entry("new", RECIPES[CLASSIFIER], root)
    assert "packaged yet" in unit_view.write_unit_views([entry], tmp_path, "")["missing"]
    there = Entry(line.DIGITS, RECIPES[CLASSIFIER], root)
    assert unit_view.write_unit_views([there], tmp_path, "no npm")["missing"] == "no npm"
    assert not list(tmp_path.iterdir())


def test_the_script_is_one_assignment_of_json(root: Path, tmp_path: Path) -> None:
    """Names of the file are inside JSON strings, so no name can end the script's string."""
    entry = Entry("operators", RECIPES[CLASSIFIER], root)
    unit_view.write_unit_views([entry], tmp_path, "")
    text = (tmp_path / "inside" / "operators.js").read_text(encoding="utf-8")
    assert text.startswith('INSIDE["operators"] = ') and text.endswith(";\n")
    content = json.loads(text.removeprefix('INSIDE["operators"] = ').removesuffix(";\n"))
    assert content["labels"][0] == operators.MARKUP
    assert any(layer["name"] == operators.MARKUP for layer in content["layers"])
