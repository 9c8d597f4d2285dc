"""What stage check measures for detection, segmentation and captioning, on made-up arrays."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from pipeline.check import entry_results, limits, summary
from pipeline.check.tasks import TASKS, captioning, segmentation
from pipeline.core.errors import StageError

RNG = np.random.default_rng(0)


def softmax(logits: np.ndarray) -> np.ndarray:
    exponent = np.exp(logits - logits.max(1, keepdims=True))
    return (exponent / exponent.sum(1, keepdims=True)).astype(np.float32)


def masks_of(probabilities: np.ndarray) -> list[np.ndarray]:
    return [probabilities.argmax(1).astype(np.uint8), probabilities]


@pytest.fixture
def scenes() -> SimpleNamespace:
    """Six images of 5 x 4 pixels and three classes, some pixels void."""
    y = RNG.integers(0, 3, (6, 5, 4)).astype(np.uint8)
    y[0, 0] = 255
    return SimpleNamespace(y={"test": y}, about={"labels": ["background", "cat", "dog"]})


def test_a_tied_pixel_is_named_and_a_wrong_one_is_a_difference() -> None:
    """In image 1 two classes differ by 2e-6 and change places: half of it. Then by .3: .15."""
    torch = softmax(RNG.normal(size=(3, 3, 5, 4)))
    torch[1, :, 2, 2] = [0.400001, 0.399999, 0.2]
    found = torch.copy()
    found[1, :, 2, 2] = [0.3999995, 0.4000005, 0.2]
    facts = segmentation.compare(None, masks_of(found), masks_of(torch), 3, 1e-4)
    assert facts["beyond"] == 1 and facts["top1_agreement"] == 59 / 60
    assert facts["max_difference"] == pytest.approx(1.5e-6, rel=0.1) and facts["worst_row"] == 1
    assert "1 pixels have another class" in segmentation.BEYOND.format(count=1, atol=1e-4)
    torch[2, :, 0, 0] = [0.6, 0.3, 0.1]
    expected, wrong = masks_of(torch), masks_of(torch)
    wrong[0] = wrong[0].copy()
    wrong[0][2, 0, 0] = 1  # its probabilities are torch's
    facts = segmentation.compare(None, wrong, expected, 3, 1e-4)
    assert facts["max_difference"] == pytest.approx(0.15) and facts["worst_row"] == 2
    nothing = [one[:0] for one in expected]
    assert segmentation.compare(None, nothing, expected, 0, 1e-4)["top1_agreement"] == 1
    with pytest.raises(StageError, match="expected outputs of shape"):
        segmentation.compare(None, [wrong[0][:, :4], wrong[1]], expected, 3, 1e-4)


def test_what_a_segmenter_is_judged_by(scenes: SimpleNamespace) -> None:
    """All right but two of its 116 pixels; the baseline is the largest class in every pixel."""
    y = scenes.y["test"]
    masks = np.where(y == 255, 0, y).astype(np.uint8)
    masks[1, 0, :2] = (masks[1, 0, :2] + 1) % 3
    metric, arrays = segmentation.measure([masks, None], [masks, None], scenes)
    assert metric["name"] == "mean_iou" and metric["torch"] == metric["value"] < 1
    assert metric["pixel_accuracy"] == pytest.approx(114 / 116) and metric["n"] == 6
    assert metric["low"] < metric["value"] <= metric["high"] <= 1
    assert set(arrays) == {"masks", "y"}
    share = np.bincount(y[y != 255]).max() / 116
    assert metric["baseline"]["value"] == pytest.approx(share / 3)
    beside = segmentation.compare_with_baseline(metric, scenes)
    assert beside["better"] and beside["sentence"].startswith("better than always answering '")
    loss = segmentation.lose([y % 255], [masks], scenes)
    assert loss.lost == pytest.approx(1 - metric["value"]) and not loss.counted
    assert loss.agreement == pytest.approx(118 / 120) and loss.low < loss.lost < loss.high


WORDS = ["<start>", "<end>", "<unknown>", "a", "3", "7", "left", "of"]
CAPTIONS = ["a 3", "a 7", "a 3 left of a 7", "a"]


@pytest.fixture
def captioned() -> SimpleNamespace:
    """Four images with one or two references; one has a word that training never saw."""
    ids = [[[3, 4, 1]], [[3, 5, 1], [3, 4, 1]], [[3, 4, 6, 7, 3, 5, 1]], [[3, 2, 1]]]
    y = np.full((4, 2, 7), -1)
    for row, references in zip(y, ids, strict=True):
        for target, words in zip(row, references, strict=False):
            target[: len(words)] = words
    return SimpleNamespace(y={"test": y}, about={"words": WORDS})


def test_what_a_captioner_is_judged_by(captioned: SimpleNamespace) -> None:
    """Three of four are right; "a <unknown>" does not equal the reference with the unseen word."""
    found = [np.array(["a 3", "a 3", "a 3 left of a 7", "a <unknown>"])]
    metric, arrays = captioning.measure(found, [np.array(CAPTIONS)], captioned)
    assert (metric["name"], metric["value"], metric["torch"]) == ("exact_match", 0.75, 0.75)
    assert metric["grades"] == {
        "no errors": 3, "minor errors": 0, "somewhat related": 0, "unrelated": 1,
    }  # fmt: skip
    assert metric["cider_low"] <= metric["cider"] <= metric["cider_high"]
    assert arrays["references"].tolist()[1:3] == [["a 7", "a 3"], ["a 3 left of a 7", ""]]
    assert captioning.record(found).tolist() == found[0].tolist()
    assert metric["baseline"] == {
        "name": "always answering 'a 3', the most frequent caption", "value": 0.5,
    }  # fmt: skip
    loss = captioning.lose([np.array(CAPTIONS)], found, captioned)
    assert (loss.lost, loss.value, loss.agreement, loss.counted) == (0, 0.75, 0.5, True)
    assert loss.high > 0.2  # of four images


def test_torch_s_own_captions_are_its_answers(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where export saved answers they are judged, else torch's outputs for the test split."""
    monkeypatch.setattr(entry_results, "OUT", tmp_path)
    folder = tmp_path / "x" / "export"
    folder.mkdir(parents=True)
    outputs = {f"{kind}_{i}": np.full(2, i) for kind in ("test", "random") for i in (0, 1)}
    source = SimpleNamespace(served=lambda split: np.zeros(2))
    np.savez(folder / "torch.npz", random=np.zeros(3), **outputs)
    x, found = entry_results.read_torch_outputs("x", source)
    assert [one[0] for one in found["answers"]] == [0, 1] and len(x["random"]) == 3
    np.savez(folder / "torch.npz", random=np.zeros(3), answers_0=np.array(["a 3"]), **outputs)
    assert entry_results.read_torch_outputs("x", source)[1]["answers"][0].tolist() == ["a 3"]


@pytest.mark.parametrize("name", ["map50", "mean_iou", "exact_match"])
def test_the_metric_may_change_by_half_a_point(name: str) -> None:
    checked = {"rows": [], "golden": [], "metric": {"name": name, "torch": 0.9, "value": 0.8951}}
    assert limits.broken_limit("x", checked) is None
    checked["metric"]["value"] = 0.8949
    sentence = f"x: {name} is 0.8949 under onnxruntime, 0.9 under torch (limit 5.0e-03)"
    assert sentence in (limits.broken_limit("x", checked) or "")


def test_values_far_from_the_others_break_no_golden_sample() -> None:
    """They are a cause of what the network answers under onnxruntime alone."""
    row = {"variant": "fp32", "provider": "cpu", "difference": 1.0, "limit": 0.1}
    metric = {"name": "map50", "torch": 0.9, "value": 0.8}
    checked = {"rows": [], "golden": [], "metric": metric}
    assert "; it may be that y; see" in (limits.broken_limit("x", checked, "y") or "")
    golden = limits.broken_limit("x", checked | {"golden": [row]}, "y")
    assert golden and "golden samples" in golden and "may be" not in golden


def test_the_line_of_a_stage_names_metric_baseline_and_int8() -> None:
    metric = {"name": "mean_iou", "value": 0.8123, "low": 0.79, "high": 0.83, "n": 200}
    beside = {"better": True, "sentence": "better than always answering 'background'"}
    verdict = {"lost": 0.001, "undecided": False, "accepted": True, "why": "x: int8 loses"}
    checked = {
        "metric": metric,
        "against_baseline": beside,
        "rows": [{"variant": "fp32", "max_difference": 2e-6, "beyond": 3}],
        "variants": {"int8": {"cpu": verdict}},
    }
    speed = {"rows": [{"p50_ms": 1.5}]}
    assert summary.describe_result(checked, speed) == (
        "Mean IoU 0.8123 [0.7900, 0.8300] on 200; better than always answering 'background'; "
        "parity 2.0e-06, p50 1.50 ms; int8 loses 0.10 points"
    )
    passed = entry_results.describe_pass(checked, 1e-4, segmentation.BEYOND)
    assert passed.endswith(
        "; 3 pixels have another class than torch's: " + ("two classes are equally probable there")
    )


def test_words_of_another_vocabulary_are_an_error() -> None:
    document = {"name": "x", "task": "captioning", "words": WORDS, "input": {}}
    about = {"task": "captioning", "words": WORDS, "input": {}}
    assert limits.document_mismatch("x", document, about) is None
    other = about | {"words": WORDS[::-1]}
    assert "expected words" in (limits.document_mismatch("x", document, other) or "")


def test_every_task_has_a_module() -> None:
    assert {*TASKS} >= {"classification", "forecasting", "segmentation", "captioning"}
