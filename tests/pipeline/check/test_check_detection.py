"""What stage check measures for detection, with a real file of the tiny detector."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import tiny
from convline.images.detector import Detector
from convline.loading import load_file

from pipeline.check.parity import ROWS_AT_BATCH, measure_parity
from pipeline.check.predictions import predict
from pipeline.check.tasks import TASKS, detection


@pytest.fixture
def model(tmp_path: Path) -> Detector:
    path = tmp_path / "model.onnx"
    path.write_bytes(tiny.reseal(tiny.detector_document(), tiny.detector_graph()))
    found = load_file(path, "cpu")
    assert isinstance(found, Detector)
    return found


@pytest.fixture
def images() -> np.ndarray:
    """30 dark images with a bright patch in some halves; one has none."""
    rng = np.random.default_rng(0)
    x = np.zeros((30, *tiny.WIDE, 1), np.uint8)
    for k, image in enumerate(x[1:]):
        for half in range(1 + k % 2):
            top, left = 4 * half + rng.integers(0, 2), rng.integers(0, 10)
            image[top : top + 3, left : left + 5] = rng.integers(150, 256)
    return x


def test_parity_at_every_batch(model: Detector, images: np.ndarray) -> None:
    """Finds of one batch of all images, against batches of 1, 7 and 256, and none."""
    expected = predict(model, images, len(images))
    rows = measure_parity(model, {}, {"test": images}, {"test": expected}, 1e-4, 1e-5)
    assert [row["batch"] for row in rows] == [*ROWS_AT_BATCH]
    assert all(row["passed"] and row["max_difference"] == row["beyond"] == 0 for row in rows)
    assert expected[3].tolist()[:3] == [0, 1, 2]


def change(outputs: list[np.ndarray]) -> list[np.ndarray]:
    return [output.copy() for output in outputs]


def test_differences_of_finds(model: Detector, images: np.ndarray) -> None:
    """A score off by .001; a box by one of 16 pixels; a find lost, and one at the edge of K."""
    expected = predict(model, images, 30)
    found = change(expected)
    found[2][2, 1] -= 1e-3
    facts = detection.compare(model, found, expected, 30, 1e-4)
    assert facts["max_difference"] == pytest.approx(1e-3, rel=1e-3) and facts["worst_row"] == 2
    found[0][4, 0, 2] += 1
    facts = detection.compare(model, found, expected, 30, 1e-4)
    assert facts["max_difference"] == 1 / 16 and facts["worst_row"] == 4
    assert facts["mean_difference"] == pytest.approx((1e-3 + 1 / 16) / 30, rel=1e-3)
    first = [output[:4] for output in found]
    assert detection.compare(model, first, expected, 4, 1e-4)["worst_row"] == 2
    lost = change(expected)
    lost[3][1] = 0  # of a score that `infer` shows
    assert expected[2][1, 0] > 0.5
    facts = detection.compare(model, lost, expected, 30, 1e-4)
    assert (facts["max_difference"], facts["worst_row"], facts["beyond"]) == (1, 1, 0)
    edge = change(expected)
    edge[1][2, 1] = 0  # of K = 2 finds, all that there is room for, the last is another one
    facts = detection.compare(model, edge, expected, 30, 1e-4)
    assert (facts["max_difference"], facts["beyond"]) == (0, 2)
    score = f"{expected[2][2, 1]:.4f}"
    assert f"image 2: label 1, score {score}, in one run alone" in facts["edge"]
    assert detection.BEYOND.format(count=2, atol=1e-4).startswith("2 finds are on one side alone")
    low = change(expected)
    low[2][1, 0] = 0.1  # its only find, the lowest score of all: at the edge of the network's own
    without = change(low)
    without[3][1] = 0
    facts = detection.compare(model, without, low, 30, 1e-4)
    assert facts["edge"] == ["image 1: label 0, score 0.1000, in one run alone"]
    assert facts["max_difference"] == 0 and facts["beyond"] == 1
    low[2][:] = np.minimum(low[2], 0.4)  # a second find of .4, below the score that is shown
    low[2][5, 0] = 0.2
    without[2], without[3] = low[2].copy(), expected[3].copy()
    without[3][2] = 1
    without[0][9] += 0.5
    facts = detection.compare(model, without, low, 30, 1e-4)
    assert facts["edge"] == ["image 2: label 1, score 0.4000, in one run alone"]
    assert facts["max_difference"] == 0.5 / 16  # other images are measured on all their finds
    broken = change(expected)
    broken[0][1, 0, 0] = np.nan
    assert not detection.compare(model, broken, expected, 30, 1e-4)["finite"]


def test_a_pair_in_a_hundred_may_be_of_two_boxes(model: Detector, images: np.ndarray) -> None:
    """Of 180 pairs one box may be off and is named; two are a difference, as a lost find is."""
    x = np.concatenate([images] * 4)
    expected = predict(model, x, len(x))
    pairs = int(expected[3].sum())
    assert 100 <= pairs < 200
    found = change(expected)
    found[0][4, 0, 2] += 1
    found[2][7, 0] -= 1e-5
    facts = detection.compare(model, found, expected, len(x), 1e-4)
    assert facts["max_difference"] == pytest.approx(1e-5, rel=0.01) and facts["beyond"] == 1
    assert facts["edge"] == ["image 4: another box of the same score, 0.0625 apart"]
    assert facts["worst_row"] == 7
    found[0][5, 0, 2] += 1
    facts = detection.compare(model, found, expected, len(x), 1e-4)
    assert facts["max_difference"] == 1 / 16 and facts["beyond"] == 1
    found = change(expected)
    found[2][4, 0] -= 0.4  # a score is no tie
    facts = detection.compare(model, found, expected, len(x), 1e-4)
    assert facts["max_difference"] == pytest.approx(0.4, rel=1e-3) and not facts["beyond"]
    found = change(expected)
    found[3][1] = 0
    assert detection.compare(model, found, expected, len(x), 1e-4)["max_difference"] == 1


def test_what_a_detector_is_judged_by(model: Detector, images: np.ndarray) -> None:
    """Its own finds are the truth; a variant that misses the second find of each image loses."""
    found = predict(model, images, 30)
    boxes, labels, scores, count = found
    y = np.full((30, 2, 5), -1, np.float32)
    valid = np.arange(2) < count[:, None]
    y[valid] = np.concatenate([boxes, labels[..., None]], 2)[valid]
    source = SimpleNamespace(y={"test": y}, about={"labels": tiny.HALVES})
    metric, arrays = detection.measure(found, found, source)
    assert (metric["name"], metric["value"], metric["torch"], metric["map"]) == ("map50", 1, 1, 1)
    assert metric["low"] == pytest.approx(30 / 33.84, abs=1e-3) and metric["high"] == 1  # Wilson's
    assert metric["boxes"] == count.sum() and metric["class_map50"] == [1, 1]
    beside = TASKS["detection"].compare_with_baseline(metric, source)
    assert beside["better"] and "the mean box of 'top', the most frequent" in beside["sentence"]
    assert set(arrays) == {"boxes", "labels", "scores", "count", "y"}
    recorded = detection.record(found)
    assert recorded.dtype == np.float32 and recorded[:3, :, 4].tolist() == [
        [-1, -1], [0, -1], [0, 1],
    ]  # fmt: skip
    np.testing.assert_array_equal(recorded[..., 5], scores)
    fewer = change(found)
    fewer[3] = np.minimum(count, 1)
    loss = detection.lose(found, fewer, source)
    assert loss.value == pytest.approx(1 - loss.lost) and 0.3 < loss.lost < 0.7
    assert loss.low < loss.lost <= loss.high
    assert loss.agreement == ((count < 2) | (scores[:, 1] < 0.5)).mean() < 1
