"""Explanations of a network whose gradient is known: scores = pixels @ W, so d score / d pixel is
W's column.
"""

import csv
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import tiny
from click.testing import CliRunner, Result
from convline.cli.main import main
from convline.colours import NEGATIVE, POSITIVE, rgb
from convline.errors import ModelFileError
from convline.explain import heatmap, methods
from convline.explain.job import output_stem
from convline.explain.methods import METHODS, Options, explainer
from convline.loading import load_file
from convline.model_file.onnx_file import read_model_file, seal
from convline.model_file.prune import keep_outputs
from PIL import Image

SQUARE = np.s_[2:4, 5:7]  # the pixels that class "bright" looks at


def weight() -> np.ndarray:
    """Weights (64, 3): class 2 counts the square, the others a little of everything."""
    found = np.random.default_rng(1).normal(0, 1e-5, (tiny.SIDE, tiny.SIDE, 3))
    found[SQUARE][..., 2] += 0.004
    return found.reshape(-1, 3)


IMAGE = np.full((tiny.SIDE, tiny.SIDE, 1), 200, np.uint8)
COLUMN = weight()[:, 2].reshape(tiny.SIDE, tiny.SIDE, 1)


@pytest.fixture
def linear(tmp_path: Path) -> Path:
    path = tmp_path / "linear.onnx"
    path.write_bytes(
        seal(tiny.linear_graph(weight()).SerializeToString(), tiny.linear_document(weight()))
    )
    return path


def map_of(path: Path, method: str, **options: Any) -> tuple[np.ndarray, float | None]:
    model = explainer(read_model_file(path), method, "cpu")
    return METHODS[method](model, IMAGE, 2, Options(**options))


def explain(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["explain", *map(str, arguments), "--device", "cpu"])


def rows_in(folder: Path) -> list[dict[str, str]]:
    return list(csv.DictReader((folder / "explanations.csv").read_text().splitlines()))


@pytest.mark.parametrize("method", ["saliency", "smoothgrad"])
def test_gradients_of_a_linear_model_are_its_weights(linear: Path, method: str) -> None:
    """d (x @ W) / dx = W, whatever noise is added to x, and for any class, not only the most
    probable one.
    """
    np.testing.assert_allclose(map_of(linear, method)[0], COLUMN, rtol=1e-6)
    model = explainer(read_model_file(linear), method, "cpu")
    other = METHODS[method](model, IMAGE, 0, Options())[0]
    np.testing.assert_allclose(other[..., 0].ravel(), weight()[:, 0], rtol=1e-6)


@pytest.mark.parametrize(("baseline", "grey"), [("black", 0), ("grey", 128), (None, 0)])
@pytest.mark.parametrize("batch", [1, 7])
def test_integrated_gradients_of_a_linear_model(
    linear: Path, baseline: str | None, grey: int, batch: int
) -> None:
    """W * (x - baseline), whose sum is the difference of the scores, so the gap is 0."""
    found, gap = map_of(linear, "integrated-gradients", baseline=baseline, steps=10, batch=batch)
    np.testing.assert_allclose(found, COLUMN * (200.0 - grey), rtol=1e-5)
    assert gap is not None and gap < 1e-5


class Square:
    """Stands for a model: the sum of the squares."""

    def gradients(self, images: np.ndarray, target: int) -> tuple[np.ndarray, np.ndarray]:
        values = images.astype(np.float64)
        return (values**2).sum(axis=(1, 2, 3)), 2 * values


@pytest.mark.parametrize("batch", [1, 3, 4])
def test_the_integral_uses_the_midpoint_rule(batch: int) -> None:
    """It is exact for a gradient that is linear along the path: x ** 2 - baseline ** 2, from four
    grey levels.
    """
    options = Options(steps=4, batch=batch)
    found, gap = methods.integrated_gradients(Square(), IMAGE, 2, options)  # type: ignore[arg-type]
    np.testing.assert_allclose(found, np.full(IMAGE.shape, 200.0**2))
    assert gap == pytest.approx(0, abs=1e-12)


def test_the_gap_is_the_missing_share_of_the_difference(
    linear: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A gradient of half its size leaves half of the difference."""
    right = methods.Explainer.gradients

    def halved(
        self: methods.Explainer, images: np.ndarray, target: int
    ) -> tuple[np.ndarray, np.ndarray]:
        scores, found = right(self, images, target)
        return scores, found / 2

    monkeypatch.setattr(methods.Explainer, "gradients", halved)
    assert map_of(linear, "integrated-gradients")[1] == pytest.approx(0.5, rel=1e-4)


@pytest.mark.parametrize("method", ["occlusion", "rise"])
@pytest.mark.parametrize("batch", [5, 64])
def test_black_box_methods_find_the_square(linear: Path, method: str, batch: int) -> None:
    """Only the square matters, so its pixels are the four largest of the map, and the smallest is
    outside it.
    """
    found, _ = map_of(linear, method, patch=2, stride=1, batch=batch, samples=600)
    values = heatmap.reduce_channels(found, method)
    inside = np.zeros(values.shape, bool)
    inside[SQUARE] = True
    assert values[inside].min() > values[~inside].max()


def test_occlusion_is_the_fall_of_the_probability(linear: Path) -> None:
    """The corner that only one patch hides, computed here; a patch as large as the image hides all."""
    model = load_file(linear, "cpu")
    hidden = IMAGE.copy()
    hidden[:2, :2] = 128
    before, after = model.predict_proba(np.stack([IMAGE, hidden]))[:, 2]
    found, _ = map_of(linear, "occlusion", patch=2, stride=2)
    assert found[0, 0] == pytest.approx(before - after, abs=1e-9) and found.shape == (8, 8)
    assert np.ptp(map_of(linear, "occlusion", patch=99)[0]) == 0
    assert (map_of(linear, "occlusion", patch=1, stride=3)[0][1] == 0).all()  # never hidden


def test_equal_seeds_give_equal_maps(linear: Path) -> None:
    """Bit-equal with one seed at any place in a list, different with another seed."""
    first, again, other = (map_of(linear, "rise", samples=20, seed=seed)[0] for seed in (3, 3, 4))
    np.testing.assert_array_equal(first, again)
    assert np.abs(first - other).max() > 0


def test_masks_have_the_mean_one_half() -> None:
    """Petsiuk et al.

    2018: values in [0, 1], mean 1/2; within 4 standard errors over 2,000 masks of about 49 draws.
    """
    rng = np.random.default_rng(0)
    masks = np.stack([methods.random_mask(rng, 9, 14) for _ in range(2000)])
    assert masks.shape == (2000, 9, 14) and masks.min() >= 0 and masks.max() <= 1
    assert abs(masks.mean() - 0.5) < 4 * 0.5 / np.sqrt(2000 * 49 / 4)


def test_predictions_run_without_the_gradient(linear: Path) -> None:
    """The probabilities are the softmax.

    The served graph has one output and only the four nodes that lead to it.
    """
    model = load_file(linear, "cpu")
    assert [o.name for o in model.session.get_outputs()] == ["probabilities"]
    exponent = np.exp(IMAGE.reshape(1, -1) @ weight())
    np.testing.assert_allclose(
        model.predict_proba(IMAGE[None]), exponent / exponent.sum(), rtol=1e-5
    )
    assert model.replay_golden() < 1e-5
    graph = onnx.load_from_string(model.file.prediction_graph).graph
    assert [node.op_type for node in graph.node] == ["Cast", "Reshape", "MatMul", "Softmax"]
    assert {i.name for i in graph.initializer} == {"flat", "weight"} and [
        i.name for i in graph.input
    ] == ["images"]


def test_pruning_keeps_tensors_that_inner_graphs_read() -> None:
    """The branch of an If reads a tensor from outside; the result equals that of the whole graph."""
    helper, floats = onnx.helper, onnx.TensorProto.FLOAT
    value = [helper.make_tensor_value_info("y", floats, ["N"])]
    branches = [
        helper.make_graph([helper.make_node(op, ["twice"], ["y"])], op, [], value)
        for op in ("Neg", "Abs")
    ]
    nodes = [
        helper.make_node("Add", ["x", "x"], ["twice"]),
        helper.make_node("Sin", ["x"], ["unused"]),
        helper.make_node("If", ["so"], ["y"], then_branch=branches[0], else_branch=branches[1]),
    ]
    inputs = [helper.make_tensor_value_info("x", floats, ["N"])]
    outputs = [helper.make_tensor_value_info(name, floats, ["N"]) for name in ("y", "unused")]
    whole = tiny.finish_graph(nodes, inputs, outputs, {"so": np.array(True)}).SerializeToString()
    part, x = keep_outputs(whole, ["y"]), np.array([1, 2], np.float32)
    assert [n.op_type for n in onnx.load_from_string(part).graph.node] == ["Add", "If"]
    session = onnxruntime.InferenceSession(part, providers=["CPUExecutionProvider"])
    np.testing.assert_array_equal(session.run(None, {"x": x})[0], -2 * x)


def test_a_graph_without_the_stated_gradient_is_refused(tmp_path: Path, linear: Path) -> None:
    """One document states saliency over a graph without it; in another one the target has no
    default.
    """
    path = tmp_path / "liar.onnx"
    document = tiny.classifier_document() | {"explain": {"saliency": True}}
    path.write_bytes(seal(tiny.classifier_graph().SerializeToString(), document))
    with pytest.raises(ModelFileError, match="expected graph output 'scores', got probabilities"):
        map_of(path, "saliency")
    graph = tiny.linear_graph(weight())
    for place in [k for k, i in enumerate(graph.graph.initializer) if i.name == "target"]:
        del graph.graph.initializer[place]
    path.write_bytes(seal(graph.SerializeToString(), tiny.linear_document(weight())))
    with pytest.raises(ModelFileError, match="'target'"):
        map_of(path, "saliency")
    with pytest.raises(
        ModelFileError, match=r"metadata key 'explain\.saliency': expected one of True, got False"
    ):
        seal(graph.SerializeToString(), document | {"explain": {"saliency": False}})


def test_the_default_method_needs_no_gradient(classifier: Path, tmp_path: Path) -> None:
    """For a file without a gradient it is occlusion.

    A method that needs the gradient is an error with its cure.
    """
    Image.new("L", (20, 20), 255).save(tmp_path / "a.png")
    result = explain(classifier, tmp_path / "a.png", "-o", tmp_path / "maps")
    assert result.exit_code == 0 and "method: occlusion" in result.stderr
    result = explain(
        classifier, tmp_path / "a.png", "-o", tmp_path / "maps", "--method", "smoothgrad"
    )
    assert result.exit_code == 1 and "got none; export it with `saliency: true`" in result.stderr


def test_explain_writes_a_row_a_picture_and_an_array_per_image(
    linear: Path, tmp_path: Path
) -> None:
    """One row per input in order, also for bad ones; the arrays are those of the method itself; a
    link keeps its name.
    """
    for name in ("a/1.png", "b/1.png", "b/A 1.png", "b/..png.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.fromarray(IMAGE[..., 0]).save(tmp_path / name)
    (tmp_path / "b" / "0.png").write_bytes(b"no image")
    folder, other = tmp_path / "maps", tmp_path / "other.txt"
    other.write_text("mine")
    folder.mkdir()
    (folder / "1.npy").symlink_to(other)
    result = explain(
        linear,
        tmp_path / "a",
        tmp_path / "b/1.png",
        tmp_path / "b/0.png",
        tmp_path / "b/A 1.png",
        tmp_path / "gone.png",
        "-o",
        folder,
        "--method",
        "integrated-gradients",
        "--strict",
    )
    assert (
        result.exit_code == 3
        and "3 ok, 2 error" in result.stderr
        and "completeness gap: median" in result.stderr
    )
    rows = rows_in(folder)
    assert [*rows[0]] == ["path", "label", "score", "method", "gap", "file", "status", "error"]
    assert [row["file"] for row in rows] == ["1-2.png", "1-3.png", "", "A_1.png", ""]
    assert [row["status"] for row in rows] == ["ok", "ok", "error", "ok", "error"]
    assert (
        rows[0]["label"] == "bright"
        and "no known image" in rows[2]["error"]
        and "no such" in rows[4]["error"]
    )
    assert other.read_text() == "mine" and (folder / "1.npy").is_symlink()
    found = np.load(folder / "1-3.npy")
    assert found.dtype == np.float32 and found.shape == (8, 8, 1)
    np.testing.assert_allclose(found, COLUMN * 200, rtol=1e-5)
    assert {p.name for p in folder.iterdir()} == {
        "1.npy",
        "explanations.csv",
        *(f"{n}.{s}" for n in ("1-2", "1-3", "A_1") for s in ("png", "npy")),
    }


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/x/../../etc/passwd", "passwd"),
        ("..", "image"),
        (".hidden.png", "hidden"),
        ("a\n\x1b/..\\c.png", "_c"),
        ("\u00e9\udcff.png", "__"),
        ("x" * 300 + ".png", "x" * 100),
        ("B.png", "B-3"),
    ],
)
def test_output_names_are_plain_and_unused(tmp_path: Path, path: str, name: str) -> None:
    """Plain characters of the last part of the path, without a leading dot. b and b-2 are taken, in
    upper and lower case.
    """
    assert output_stem(path, {"b": 2, "b-2": 1}, tmp_path) == name


def test_naming_thousands_of_equal_stems_takes_linear_time(tmp_path: Path) -> None:
    """The names differ, and the clock is bounded: 20,000 equal stems once took 200 million tries."""
    taken: dict[str, int] = {}
    started = time.perf_counter()
    names = [output_stem(f"{k}/a.png", taken, tmp_path) for k in range(20_000)]
    assert len({*names}) == 20_000 and names[:3] == ["a", "a-2", "a-3"]
    assert time.perf_counter() - started < 10


def test_the_picture_shows_image_map_and_scale(linear: Path, tmp_path: Path) -> None:
    """On the left the enlarged image; on the right red where the map is largest and grey where it
    is 0.
    """
    values = np.zeros((8, 8))
    values[0, 0], values[7, 7] = 2.0, -2.0
    (tmp_path / "p.png").write_bytes(heatmap.draw_heatmap(IMAGE, values, ["caf\u00e9 \U0001f600"]))
    picture = Image.open(tmp_path / "p.png")
    assert (
        picture.text["Description"] == "caf? ?; full colour from 2 on"
    )  # 2 of 64 pixels: the 99th percentile
    pixels = np.asarray(picture)
    assert pixels.shape[1] == 2 * 224 + heatmap.GAP_PX
    assert (pixels[10, 10] == 200).all() and (pixels[100, 332] == 200).all()
    assert (pixels[10, 240] == rgb(POSITIVE)).all() and (pixels[220, 450] == rgb(NEGATIVE)).all()
    assert heatmap.full_colour_value(np.zeros((8, 8))) == 1.0
