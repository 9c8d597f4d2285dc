"""A captioner's file: encoder and step equal torch's at any batch, and so do its captions."""

from __future__ import annotations

from pathlib import Path

import captions
import numpy as np
import onnxruntime
import pytest
import torch
from convline.errors import ModelFileError
from convline.images.captioner import Captioner, probe_words
from convline.loading import load_file
from convline.model_file.document import ImageRule
from convline.model_file.golden import pack_array
from convline.model_file.onnx_file import read_model_file, seal

from pipeline.export.graph import torch_outputs
from pipeline.export.tasks import captioning
from pipeline.network.tasks.captioning import Captioner as Network


@pytest.fixture(scope="module", params=["first", "every"])
def net(request: pytest.FixtureRequest) -> Network:
    """Networks that get the image at their first step, and at each."""
    torch.manual_seed(0)
    return captions.network(request.param).eval()


@pytest.fixture(scope="module")
def model(net: Network, tmp_path_factory: pytest.TempPathFactory) -> Captioner:
    x = captions.data().x["train"]
    outputs = dict(zip(captioning.OUTPUT_NAMES, torch_outputs(net, x[:3]), strict=True))
    golden = {"input": pack_array(x[:3]), "atol": 1e-5}
    golden["outputs"] = {name: pack_array(array) for name, array in outputs.items()}
    document = {"format": 2, "name": "squares", "task": "captioning", "golden": golden}
    document |= {"input": ImageRule((16, 16), "grey").to_dict(), "provenance": {}}
    document |= captioning.document_fields(captions.data().about)
    path = tmp_path_factory.mktemp("captioner") / "squares.onnx"
    path.write_bytes(seal(captioning.export(net, x).SerializeToString(), document))
    loaded = load_file(path, "cpu")
    assert isinstance(loaded, Captioner)
    return loaded


@pytest.mark.parametrize("count", [1, 3, 16])
def test_encoder_and_steps_equal_those_of_torch(net: Network, model: Captioner, count: int) -> None:
    x = captions.data().x["train"][:count]
    expected = torch_outputs(net, x)
    for got, wanted in zip(model.parity_outputs(x), expected, strict=True):
        np.testing.assert_allclose(got, wanted, rtol=1e-4, atol=1e-5)
    assert captioning.difference(list(model.parity_outputs(x)), expected) < 1e-5


def test_captions_equal_those_of_torch(net: Network, model: Captioner) -> None:
    """By the same search, over onnxruntime's step and over torch's; greedy search differs."""
    x = captions.data().x["train"]
    (expected,) = captioning.answers(net, x, captions.data().about)
    found = model.caption(x, beams=captioning.BEAMS)
    assert [caption.text for caption in found] == expected.tolist()
    assert all(0 < caption.score <= 1 for caption in found)
    assert [caption.text for caption in model.caption(x, beams=1)] != expected.tolist()


def test_golden_samples_and_the_table(model: Captioner) -> None:
    assert model.replay_golden() < model.golden_atol
    row = model.predict_table(captions.data().x["test"][0])[0]
    assert [*row] == ["path", "caption", "score", "status", "error"]
    assert row["status"] == "ok" and model.caption([]) == []


def test_the_whole_file_runs_without_the_inputs_of_the_step(model: Captioner) -> None:
    x = captions.data().x["test"]
    whole = onnxruntime.InferenceSession(Path(model.file.path).read_bytes())
    outputs = whole.run(["first_hidden", "first_cell"], {"images": x})
    for got, expected in zip(model.run(x), outputs, strict=True):
        np.testing.assert_array_equal(got, expected)
    assert len(model.file.prediction_graph) < len(model.file.content)


def test_probe_words_are_the_same_for_every_image_of_any_batch() -> None:
    """From <start> to the last of nine words; what is said of an image is so whatever its batch."""
    assert probe_words(2, 20, 9).tolist() == [[0, 1, 2, 3, 4, 5, 6, 8]] * 2
    assert probe_words(1, 5, 9).tolist() == [[0, 2, 4, 6, 8]]


def test_parity_outputs_do_not_depend_on_the_batch(model: Captioner) -> None:
    x = captions.data().x["test"]
    whole = model.parity_outputs(x)
    for rows in (slice(0, 0), slice(2, 3), slice(1, 6)):
        for got, expected in zip(model.parity_outputs(x[rows]), whole, strict=True):
            np.testing.assert_allclose(got, expected[rows], atol=1e-5, rtol=0)


def test_a_file_whose_step_does_not_fit_is_refused(model: Captioner, tmp_path: Path) -> None:
    document = {key: value for key, value in model.file.json.items() if key != "digest"}
    fewer = document | {"words": document["words"][:-1]}
    path = tmp_path / "fewer.onnx"
    path.write_bytes(seal(model.file.content, fewer))
    other = load_file(path, "cpu")
    with pytest.raises(
        ModelFileError, match=r"'log_probabilities': expected \(3, 9\), got \(3, 10\)"
    ):
        other.replay_golden()
    assert read_model_file(path).task == "captioning"
