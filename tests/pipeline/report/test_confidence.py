"""What a classifier's page says of its probabilities."""

from pathlib import Path

import numpy as np
import pytest

from pipeline.report import confidence

SURE, RIGHT = np.array([0.9, 0.9, 0.86, 0.9, 0.5]), np.array([True, True, False, True, False])


def test_is_nine_in_ten_right() -> None:
    """Of 20 predictions of .9, 18 are right: Wilson's interval of .9 is [.70, .97]."""
    right = np.array([True] * 18 + [False] * 2)
    said = confidence.describe_nine_in_ten(np.full(20, 0.9), right)
    expected = "Of 20 predictions with a probability between .85 and .95, 18 are right"
    assert said == f"{expected} (90\u00a0% [70, 97])."
    few = confidence.describe_nine_in_ten(SURE, RIGHT)
    assert few.startswith("Of 4 predictions") and few.endswith("; these are too few to judge.")
    none = confidence.describe_nine_in_ten(np.array([0.99]), np.array([True]))
    assert none == "No prediction has a probability between .85 and .95."


def test_the_direction_is_said_only_beyond_chance() -> None:
    """Of 50 predictions 30 are right: Wilson's interval of .6 is [.46, .72]."""
    sure, right = np.tile(SURE, 10), np.tile(RIGHT, 10)
    said = [confidence.describe_direction(sure, right, beyond) for beyond in (False, True)]
    shares = "(mean probability 0.8120, accuracy 0.6000)."
    assert said[0] == f"50 test images show no fault of the probabilities {shares}"
    assert said[1] == f"The probabilities are too high on average {shares}"
    low = confidence.describe_direction(sure / 2, right, True)
    assert low.startswith("The probabilities are too low")
    both = confidence.describe_direction(np.where(right, 0.5, 0.7), right, True)
    assert both.startswith("The probabilities are off in places, but not on average")


def test_the_curve_of_what_is_sent_to_a_person() -> None:
    """12 predictions; the two least confident are wrong. The last ten of the rest are left out."""
    sure = np.linspace(0.4, 0.95, 12)
    right = np.arange(12) >= 2
    sent, accuracy = confidence.coverage_curve(sure, right)
    np.testing.assert_allclose(sent, [0, 1 / 12, 2 / 12])
    np.testing.assert_allclose(accuracy, [10 / 12, 10 / 11, 1])
    sent, accuracy = confidence.coverage_curve(
        np.ones(30), np.arange(30) < 27
    )  # equal: all or none
    assert sent.tolist() == [0] and accuracy.tolist() == [0.9]
    many = confidence.coverage_curve(np.linspace(0, 1, 5000), np.ones(5000, bool))
    assert len(many[0]) == confidence.CURVE_POINTS and many[1].min() == 1


@pytest.mark.parametrize("classes", [2, 10])
@pytest.mark.parametrize("wrong", [0, 3])
def test_the_context(tmp_path: Path, classes: int, wrong: int) -> None:
    """Also without any mistake, and where nothing is left above a threshold."""
    truth = np.zeros(40, np.int64)
    probabilities = np.full((40, classes), 0.1 / (classes - 1), np.float32)
    probabilities[:, 0] = 0.9
    probabilities[:wrong] = probabilities[:wrong, ::-1]
    found = confidence.confidence_context(truth, probabilities, "e", tmp_path)
    assert found["bins"] == 5
    assert found["error"] == {0: "0.1000", 3: "0.0250"}[wrong]
    assert found["thresholds"][0] == [
        ".5",
        "0.0\u00a0% (0)",
        {0: "1.0000 [0.9124, 1.0000]", 3: "0.9250 [0.8014, 0.9742]"}[wrong],
        f"{wrong} of 40",
    ]
    assert found["thresholds"][-1] == [".99", "100.0\u00a0% (40)", "nothing is left", "0 of 0"]
    for kind in ("reliability", "histogram", "coverage"):
        assert (tmp_path / found[kind].file).is_file() and found[kind].alt
