"""Mean IoU, pixel and class accuracy: held to scikit-learn on random masks, and counted by hand."""

from __future__ import annotations

import numpy as np
import pytest
from convline.metrics import segmentation
from sklearn.metrics import accuracy_score, balanced_accuracy_score, confusion_matrix, jaccard_score


def made_up(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return masks and truth uint8 (5, 8, 9) of classes 0 to 3, of which 3 is true nowhere."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 3, (5, 8, 9)).astype(np.uint8)
    masks = np.where(rng.random(y.shape) < 0.7, y, rng.integers(0, 4, y.shape)).astype(np.uint8)
    y[rng.random(y.shape) < 0.1] = segmentation.VOID
    return masks, y


@pytest.mark.parametrize("seed", range(3))
def test_the_metrics_are_those_of_scikit_learn(seed: int) -> None:
    masks, y = made_up(seed)
    judged = y != segmentation.VOID
    true, answered = y[judged], masks[judged]
    counts = segmentation.confusions(masks, y, 4)
    np.testing.assert_array_equal(counts.sum(0), confusion_matrix(true, answered, labels=range(4)))
    expected = jaccard_score(true, answered, labels=range(3), average=None)
    found = segmentation.class_overlaps(counts.sum(0))
    np.testing.assert_allclose(found, [*expected, np.nan], rtol=1e-12)
    assert segmentation.mean_overlap(counts) == pytest.approx(expected.mean())
    pixel, classes = segmentation.pixel_accuracies(counts.sum(0))
    assert pixel == pytest.approx(accuracy_score(true, answered))
    recalls = [(answered[true == k] == k).mean() for k in range(3)]
    assert classes == pytest.approx(np.mean(recalls))
    answered[answered == 3] = 0  # scikit-learn warns about classes that are true nowhere
    confusion = segmentation.confusions(answered[None], true[None], 4)[0]
    expected_classes = balanced_accuracy_score(true, answered)
    assert segmentation.pixel_accuracies(confusion)[1] == pytest.approx(expected_classes)


def test_by_hand() -> None:
    """Of six pixels one is void; class 0 has 2 of 3 in the union, class 1 has 2 of 3."""
    y, mask = np.uint8([[0, 0, 0], [1, 1, 255]]), np.uint8([[0, 0, 1], [1, 1, 0]])
    counts = segmentation.confusions([mask], [y], 2)
    assert counts.tolist() == [[[2, 1], [0, 2]]]
    assert segmentation.mean_overlap(counts) == pytest.approx(2 / 3)
    assert segmentation.pixel_accuracies(counts[0]) == (0.8, pytest.approx((2 / 3 + 1) / 2))


def test_nothing_is_judged_where_all_is_void() -> None:
    counts = segmentation.confusions(np.zeros((1, 2, 2), np.uint8), np.full((1, 2, 2), 255), 2)
    assert segmentation.mean_overlap(counts) == 0 and segmentation.pixel_accuracies(counts[0]) == (
        0,
        0,
    )
