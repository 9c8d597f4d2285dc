"""Expected calibration error, reliability by bin, and accuracy above a threshold."""

import numpy as np
import pytest

from pipeline.evaluate import calibration, metrics

# Six predictions in 5 bins of width .2: (.6, .8] holds .7, .8, .8 of which 2 are right,
# (.8, 1] holds .9, 1, 1 of which 3 are right.
CONFIDENCE = np.array([0.7, 0.8, 0.8, 0.9, 1.0, 1.0])
RIGHT = np.array([True, False, True, True, True, True])


def test_the_error_of_six_predictions() -> None:
    """By hand: 3/6 |2/3 - 2.3/3| + 3/6 |1 - 2.9/3| = .05 + .1/6."""
    error = calibration.calibration_error(CONFIDENCE, RIGHT, 5)
    assert error == pytest.approx(0.05 + 0.1 / 6, abs=1e-12)


def test_the_bins_of_six_predictions() -> None:
    """An edge belongs to the bin below it; empty bins are left out; Wilson's interval of 2 / 3."""
    low, high = calibration.reliability_bins(CONFIDENCE, RIGHT, 5)
    assert (low["n"], low["right"], high["n"], high["right"]) == (3, 2, 3, 3)
    assert (low["from"], low["to"]) == pytest.approx((0.6, 0.8))
    assert low["confidence"] == pytest.approx(2.3 / 3) and low["accuracy"] == pytest.approx(2 / 3)
    assert (low["low"], low["high"]) == metrics.wilson_interval(2, 3)


def test_bins_equal_those_of_scikit_learn() -> None:
    """sklearn.calibration.calibration_curve of "the prediction is right"; its bins are the same."""
    from sklearn.calibration import calibration_curve

    rng = np.random.default_rng(0)
    confidence = rng.random(500)
    right = rng.random(500) < confidence**2
    rows = calibration.reliability_bins(confidence, right, 15)
    accuracy, mean = calibration_curve(right, confidence, n_bins=15)
    np.testing.assert_allclose([row["accuracy"] for row in rows], accuracy, rtol=1e-12)
    np.testing.assert_allclose([row["confidence"] for row in rows], mean, rtol=1e-12)
    weighted = sum(row["n"] * abs(row["accuracy"] - row["confidence"]) for row in rows) / 500
    assert calibration.calibration_error(confidence, right, 15) == pytest.approx(weighted)


def test_exact_probabilities_are_within_chance_and_overconfidence_is_not() -> None:
    rng = np.random.default_rng(1)
    confidence = 0.5 + rng.random(400) / 2
    by_chance = calibration.calibration_error_by_chance(confidence, 15)
    exact = calibration.calibration_error(confidence, rng.random(400) < confidence, 15)
    wrong = calibration.calibration_error(confidence, rng.random(400) < confidence - 0.2, 15)
    assert 0 < exact < by_chance < wrong
    assert calibration.calibration_error_by_chance(np.ones(50), 5) == 0


def test_few_images_have_few_bins() -> None:
    numbers = [calibration.number_of_bins(n) for n in (1, 99, 100, 299, 300, 10_000)]
    assert numbers == [5, 5, 10, 10, 15, 15]


def test_stage_check_measures_it() -> None:
    """The class that is predicted counts: probabilities .8 of which one of two is right."""
    probabilities = np.array([[0.8, 0.2], [0.2, 0.8]], np.float32)
    measured = metrics.measure_classification(probabilities, probabilities, np.array([0, 0]))
    assert measured["calibration_error"] == pytest.approx(0.3, abs=1e-6)
    assert measured["calibration_bins"] == 5


def test_accuracy_above_a_threshold() -> None:
    """From .8 on five predictions are left, four of them right; one of six is sent to a person."""
    row = calibration.accuracy_above(CONFIDENCE, RIGHT, 0.8)
    assert (row["n"], row["right"], row["accuracy"]) == (5, 4, 0.8)
    assert row["sent"] == pytest.approx(1 / 6)
    none = calibration.accuracy_above(CONFIDENCE[:5] * 0.9, RIGHT[:5], 0.99)
    assert none["sent"] == 1 and none["n"] == 0 and none["accuracy"] is None
