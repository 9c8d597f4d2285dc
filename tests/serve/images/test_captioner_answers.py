"""Captioners: sentences of a known network, in Python and in `infer images`."""

import math
from itertools import pairwise
from pathlib import Path

import numpy as np
import onnx
import pytest
import tiny
import tiny_captioner
from convline.errors import ModelFileError
from convline.images.captioner import MOST_BEAMS, Captioner, probe_words
from convline.images.image_model import Options
from convline.loading import load_file
from convline.model_file.onnx_file import seal
from infer_command import infer, rows_of
from onnx import TensorProto, helper
from PIL import Image

SENTENCES = ["a dark square", "a bright square"]  # of black and of white images


@pytest.fixture
def captioner(tmp_path: Path) -> Path:
    return write(tmp_path, tiny_captioner.graph())


def write(folder: Path, graph: onnx.ModelProto) -> Path:
    path = folder / "captioner.onnx"
    path.write_bytes(seal(graph.SerializeToString(), tiny_captioner.document()))
    return path


def load_captioner(path: Path) -> Captioner:
    model = load_file(path, "cpu")
    assert isinstance(model, Captioner)
    return model


@pytest.mark.parametrize("beams", [1, 3, 10])
def test_captions_of_a_known_network(captioner: Path, beams: int) -> None:
    """The probability is the product along the words, by softmax of the known logits."""
    images = np.zeros((2, *tiny.WIDE, 1), np.uint8)
    images[1] = 255
    captions = load_captioner(captioner).caption(images, beams=beams)
    assert [caption.text for caption in captions] == SENTENCES
    logits = tiny_captioner.NEXT + tiny_captioner.SHADES[0]
    chances = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    ids = [0, *captions[0].ids, 1]
    expected = math.prod(chances[a, b] for a, b in pairwise(ids))
    assert captions[0].score == pytest.approx(expected, rel=1e-5)


def test_the_table_has_one_row_per_image(captioner: Path, tmp_path: Path) -> None:
    """An earlier table of captions is replaced; --draw writes the pictures."""
    paths = [tmp_path / name for name in ("dark.png", "bright.png", "bad.png")]
    Image.new("L", (32, 16)).save(paths[0])
    Image.new("L", (32, 16), 255).save(paths[1])
    paths[2].write_bytes(b"no image")
    options = ("--beams", "2", "--draw", tmp_path / "drawn", "-o", tmp_path / "t.csv")
    for _ in range(2):
        assert infer("images", captioner, *paths, *options).exit_code == 0
    assert len([*(tmp_path / "drawn").rglob("*.png")]) == 2
    result = infer("images", captioner, *paths)
    assert (tmp_path / "t.csv").read_text() == result.stdout
    rows = rows_of(result)
    assert [*rows[0]] == ["path", "caption", "score", "status", "error"]
    assert [row["caption"] for row in rows] == [*SENTENCES, ""]
    assert [row["status"] for row in rows] == ["ok", "ok", "error"]
    refused = infer("images", captioner, *paths, "--top-k", "2")
    assert refused.exit_code == 2 and "--top-k is for classification" in refused.stderr


@pytest.mark.parametrize("beams", [0, MOST_BEAMS + 1])
def test_beams_have_the_bounds_of_the_command(captioner: Path, beams: int) -> None:
    """Python and `--beams` refuse the same numbers, before an image is read."""
    model = load_captioner(captioner)
    for answer in (model.caption, model.predict_table):
        with pytest.raises(ValueError, match=f"beams: expected 1 to 16, got {beams}"):
            answer("missing.png", beams=beams)
    refused = infer("images", captioner, "missing.png", "--beams", str(beams))
    assert refused.exit_code == 2 and f"1<=x<={MOST_BEAMS}" in refused.stderr


def test_parity_and_golden_samples_follow_the_probe_words(captioner: Path) -> None:
    """The document's golden outputs are zeros of another shape, which the sentence says."""
    model = load_captioner(captioner)
    hidden, cell, steps = model.parity_outputs(tiny.wide_images())
    assert hidden.shape == cell.shape == (3, 2)
    words = probe_words(3, tiny_captioner.LONGEST, len(tiny_captioner.WORDS))
    logits = tiny_captioner.NEXT[words] + (hidden @ tiny_captioner.SHADES)[:, None]
    expected = logits - np.log(np.exp(logits).sum(axis=2, keepdims=True))
    np.testing.assert_allclose(steps, expected, rtol=0, atol=1e-5)
    with pytest.raises(ModelFileError, match="'log_probabilities': expected shape"):
        model.replay_golden()


def test_probabilities_that_are_not_finite_are_an_error(captioner: Path) -> None:
    """A state that is not a number makes no sentence; the other image has its own."""
    state = np.array([[np.nan, 0], [1, 0]], np.float32)
    broken, good = load_captioner(captioner).answers((state, state), [(1, 1)] * 2, Options())
    assert broken == "the model answered probabilities that are not finite"
    assert not isinstance(good, str) and good.text == SENTENCES[0]


@pytest.mark.parametrize("beams", [1, 3])
def test_log_probabilities_above_zero_are_an_error(tmp_path: Path, beams: int) -> None:
    """Logits in their place give sums whose exponential overflows, or scores above 1."""
    graph = tiny_captioner.graph()
    node = next(node for node in graph.graph.node if node.output[0] == "log_probabilities")
    node.CopyFrom(helper.make_node("Mul", ["logits", "full"], ["log_probabilities"]))
    state, options = np.array([[1e3, 0], [0.1, 0]], np.float32), Options(beams=beams)
    model = load_captioner(write(tmp_path, graph))
    for answer in model.answers((state, state), [(1, 1)] * 2, options):
        assert answer == "the model answered a probability above 1"


def test_a_step_that_loses_rows_is_refused(tmp_path: Path) -> None:
    """A hostile graph may return the state of one sentence for all."""
    graph = tiny_captioner.graph()
    node = next(node for node in graph.graph.node if node.output[0] == "next_hidden")
    node.CopyFrom(helper.make_node("Slice", ["hidden", "zero", "first"], ["next_hidden"]))
    graph.graph.initializer.extend(
        helper.make_tensor(name, TensorProto.INT64, [1], [value])
        for name, value in (("zero", 0), ("first", 1))
    )
    with pytest.raises(ModelFileError, match="expected a state of each sentence"):
        load_captioner(write(tmp_path, graph)).caption(tiny.wide_images())
