"""`infer explain` of boxes, masks and captions: what each tiny network looks at, it looks at alone."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import tiny
import tiny_captioner
from click.testing import CliRunner
from convline.cli.main import main
from convline.errors import ModelFileError
from convline.explain.answers import ANSWERS
from convline.explain.methods import explainer
from convline.loading import load_file
from convline.model_file.onnx_file import seal
from PIL import Image

SPOT = np.s_[1:3, 4:8]  # bright pixels of the upper half


def image() -> np.ndarray:
    """Grey levels (8, 16): dark, a bright spot above, a less bright one below."""
    levels = np.full(tiny.WIDE, 40, np.uint8)
    levels[SPOT], levels[6, 12] = 250, 230
    return levels


def explain(
    tmp_path: Path, graph: onnx.ModelProto, document: dict[str, Any], levels: np.ndarray
) -> tuple[dict[str, str], np.ndarray | None]:
    """Return the row and the map of occlusion by black pixels, one at a time."""
    model, picture, folder = tmp_path / "m.onnx", tmp_path / "a.png", tmp_path / "maps"
    model.write_bytes(seal(graph.SerializeToString(), document))
    Image.fromarray(levels).save(picture)
    options = ["--baseline", "black", "--patch", "1", "--stride", "1", "--device", "cpu"]
    result = CliRunner().invoke(
        main, ["explain", str(model), str(picture), "-o", str(folder), *options]
    )
    assert result.exit_code == 0, result.output
    assert "method: occlusion" in result.stderr
    (row,) = csv.DictReader((folder / "explanations.csv").read_text().splitlines())
    return row, np.load(folder / "a.npy") if row["file"] else None


def test_a_find_rests_on_its_own_pixels(tmp_path: Path) -> None:
    """A hidden corner of the spot does not move its box, since each side has other bright pixels;
    of a spot of one row the ends do: 3 of 4 pixels overlap.
    """
    document = tiny.detector_document()
    row, found = explain(tmp_path, tiny.detector_graph(), document, image())
    assert row["label"] == "top" and float(row["score"]) == pytest.approx(250 / 255)
    assert found is not None and not found.any()
    line = image()
    line[2, 4:8] = 40
    _, found = explain(tmp_path, tiny.detector_graph(), document, line)
    expected = np.zeros(tiny.WIDE)
    expected[1, [4, 7]] = 250 / 255 / 4
    assert found is not None
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_an_image_without_a_find_has_no_map(tmp_path: Path) -> None:
    dark = np.zeros(tiny.WIDE, np.uint8)
    row, found = explain(tmp_path, tiny.detector_graph(), tiny.detector_document(), dark)
    assert row["status"] == "ok" and not row["label"] and not row["file"] and found is None
    assert [path.name for path in (tmp_path / "maps").iterdir()] == ["explanations.csv"]


def test_outputs_that_are_no_answer_fail_their_image_alone(tmp_path: Path) -> None:
    """A box that lies outside of the image is an error of the bright one; the dark one has none."""
    graph = tiny.detector_graph()
    for place, constant in enumerate(graph.graph.initializer):
        if constant.name == "offset":
            far = onnx.numpy_helper.to_array(constant) + 100
            graph.graph.initializer[place].CopyFrom(
                onnx.numpy_helper.from_array(far.astype(far.dtype), "offset")
            )
    (tmp_path / "m.onnx").write_bytes(seal(graph.SerializeToString(), tiny.detector_document()))
    Image.fromarray(image()).save(tmp_path / "a.png")
    Image.fromarray(np.zeros(tiny.WIDE, np.uint8)).save(tmp_path / "b.png")
    files = [str(tmp_path / name) for name in ("m.onnx", "a.png", "b.png")]
    CliRunner().invoke(main, ["explain", *files, "-o", str(tmp_path / "maps"), "--device", "cpu"])
    table = (tmp_path / "maps" / "explanations.csv").read_text().splitlines()
    first, second = csv.DictReader(table)
    assert first["status"] == "error" and "a box outside of the image" in first["error"]
    assert second["status"] == "ok"


def test_saliency_of_a_detector_is_refused_with_a_cure_that_helps(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(seal(tiny.detector_graph().SerializeToString(), tiny.detector_document()))
    with pytest.raises(ModelFileError, match="is for classifiers; take --method occlusion or rise"):
        explainer(load_file(path, "cpu").file, "saliency", "cpu")


def test_a_class_of_pixels_rests_on_these_pixels(tmp_path: Path) -> None:
    """The tiny network looks at each pixel alone: the mean falls by a pixel's share of its fall."""
    levels = image()
    row, found = explain(tmp_path, tiny.segmenter_graph(), tiny.segmenter_document(), levels)
    white = tiny.shade_probabilities(levels[None, ..., None])[0, 2]
    inside = tiny.shade_probabilities(levels[None, ..., None])[0].argmax(0) == 2
    black = tiny.shade_probabilities(np.zeros((1, 1, 1, 1)))[0, 2, 0, 0]
    assert row["label"] == "white" and inside.sum() == 9
    assert float(row["score"]) == pytest.approx(white[inside].mean(), abs=1e-6)
    assert found is not None
    np.testing.assert_allclose(found, np.where(inside, white - black, 0) / 9, atol=1e-6)


def test_a_caption_rests_on_every_bright_pixel(tmp_path: Path) -> None:
    """The tiny network looks at the mean: what takes more from it takes more from the caption."""
    levels = np.full(tiny.WIDE, 220, np.uint8)
    levels[SPOT] = 255
    row, found = explain(tmp_path, tiny_captioner.graph(), tiny_captioner.document(), levels)
    told = load_file(tmp_path / "m.onnx", "cpu").caption(levels[None, ..., None])[0]  # type: ignore[union-attr]
    assert row["label"] == told.text == "a bright square"
    assert float(row["score"]) == pytest.approx(told.score, abs=1e-6)
    assert found is not None and (found > 0).all()
    rest = np.ones(tiny.WIDE, bool)
    rest[SPOT] = False
    assert found[SPOT].min() > found[rest].max()


def test_every_task_of_images_has_an_answer() -> None:
    from convline.images.kinds import KINDS

    assert [*ANSWERS] == [*KINDS]
