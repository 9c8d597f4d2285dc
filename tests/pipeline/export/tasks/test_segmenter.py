"""A segmenter from its recipe to a file: outputs, a training that learns, parity in onnxruntime."""

import numpy as np
import onnxruntime
import pytest
import torch

from pipeline.core.errors import StageError
from pipeline.data.dataset import Data
from pipeline.export.graph_analysis import node_outputs
from pipeline.export.quantize import convert_to_fp16, prepare_graph
from pipeline.export.tasks import TASKS as EXPORT
from pipeline.network.build import build
from pipeline.params.schema import Training
from pipeline.train.loop import fit

LABELS = ["background", "square", "cross"]


def shapes(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return images uint8 (N, 16, 24, 3) of a bright square and a bright cross, and their masks."""
    rng = np.random.default_rng(seed)
    y = np.zeros((count, 16, 24), np.uint8)
    for mask in y:
        (top, bottom), left, right = rng.integers(1, 9, 2), rng.integers(1, 5), rng.integers(13, 17)
        mask[top : top + 6, left : left + 6] = 1
        mask[bottom + 2 : bottom + 4, right : right + 6] = 2
        mask[bottom : bottom + 6, right + 2 : right + 4] = 2
    x = rng.normal(80 + 120.0 * (y > 0)[..., None], 10, (*y.shape, 3)).clip(0, 255)
    return x.astype(np.uint8), y


@pytest.fixture(scope="module")
def source() -> Data:
    parts = {split: shapes(n, n) for split, n in (("train", 64), ("validation", 16), ("test", 17))}
    x, y = ({split: part[k] for split, part in parts.items()} for k in (0, 1))
    about = {
        "task": "segmentation",
        "labels": LABELS,
        "input": {"size": [16, 24], "colour": "rgb"},
    }
    mean = np.full((3, 1, 1), 100, np.float32)
    return Data(x, y, mean, np.full((3, 1, 1), 1 / 50, np.float32), about)


def recipe(**net: object) -> Training:
    small = {"maps": [8, 8], "pools": 1, "scales": 2, "kernel_size": 5, "activation": "relu"}
    train = {"epochs": 6, "batch": 8, "lr": 0.01, "balance": 0.5}
    return Training.model_validate({"arch": "farabet", "net": small | net, "train": train})


def test_a_mask_is_the_most_probable_class(source: Data) -> None:
    net = build(recipe(), source).eval()
    masks, probabilities = net(torch.from_numpy(source.x["test"]))
    assert masks.dtype == torch.uint8 and masks.shape == (17, 16, 24)
    assert probabilities.dtype == torch.float32 and probabilities.shape == (17, 3, 16, 24)
    torch.testing.assert_close(probabilities.sum(1), torch.ones(17, 16, 24), rtol=1e-5, atol=0)
    assert torch.equal(probabilities.argmax(1), masks.long())


def test_an_architecture_without_a_map_is_refused(source: Data) -> None:
    wrong = Training.model_validate({"arch": "cnn1", "train": {}})
    expected = r"models/cnn1.py: expected logits \(N, K, H, W\) of shape \(1, 3, 16, 24\)"
    with pytest.raises(StageError, match=expected):
        build(wrong, source)


@pytest.mark.parametrize("batch_norm", [False, True])
def test_training_learns_and_the_file_computes_the_same(source: Data, batch_norm: bool) -> None:
    """Squares and crosses from noise in six epochs; then torch's outputs from the file, by batch."""
    net, state = fit(recipe(batch_norm=batch_norm), source, on=torch.device("cpu"), label="shapes")
    assert state.history[-1]["validation_accuracy"] > 0.95
    task = EXPORT["segmentation"]
    graph = task.export(net, source.served("test"))
    session = onnxruntime.InferenceSession(graph.SerializeToString())
    assert [output.name for output in session.get_outputs()] == ["masks", "probabilities"]
    noise = np.random.default_rng(0).integers(0, 256, (3, 16, 24, 3), np.uint8)
    for x in (source.x["test"][:1], noise, source.x["test"][:16]):
        got = session.run(None, {"images": x})
        with torch.no_grad():
            expected = [output.numpy() for output in net(torch.from_numpy(x))]
        assert [output.dtype for output in got] == [output.dtype for output in expected]
        assert task.difference(got, expected) < task.parity_limit(expected, 1e-5)
    assert task.count_correct is not None
    masks = session.run(["masks"], {"images": source.x["test"]})
    reached = task.count_correct(masks, source.y["test"])
    assert 0.7 * 17 < reached <= 17
    prepared = prepare_graph(graph)
    half = convert_to_fp16(prepared, node_outputs(prepared, source.x["train"][:8])).graph
    masks = onnxruntime.InferenceSession(half.SerializeToString()).run(
        ["masks"], {"images": source.x["test"]}
    )
    assert task.count_correct(masks, source.y["test"]) == pytest.approx(reached, rel=0.02)
