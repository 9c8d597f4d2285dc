"""The table of classes: precision, recall, F1 and average precision, the worst class first."""

from pathlib import Path

import numpy as np
import pytest

from pipeline.report import class_metrics
from pipeline.report.error_analysis import confusion_matrix

# Classes a, b, c; c has no test image. Of four a one is taken for b, one for c; of two b none.
TRUTH = np.array([0, 0, 0, 0, 1, 1])
PROBABILITIES = np.array(
    [[0.8, 0.1, 0.1], [0.7, 0.2, 0.1], [0.3, 0.6, 0.1], [0.3, 0.1, 0.6], [0.1, 0.9, 0], [0, 1, 0]]
)
LABELS = ["a", "b", "c"]


@pytest.fixture
def rows() -> list[dict[str, object]]:
    counts = confusion_matrix(TRUTH, PROBABILITIES)
    return class_metrics.measure_classes(TRUTH, PROBABILITIES, counts)


def test_metrics_by_hand(rows: list[dict[str, object]]) -> None:
    """a: precision 2/2, recall 2/4, F1 2/3; b: precision 2/3, recall 2/2, F1 4/5."""
    a, b, c = rows
    assert [row["class"] for row in rows] == [0, 1, 2]
    assert (a["precision"], a["recall"], a["f1"]) == (1, 0.5, pytest.approx(2 / 3))
    assert (b["precision"], b["recall"], b["f1"]) == (pytest.approx(2 / 3), 1, pytest.approx(0.8))
    assert (a["taken_for"], b["taken_for"]) == ((1, 1), None)
    # the scores of a rank its four images first; the ones of b its two, before any a
    assert a["average_precision"] == b["average_precision"] == 1
    assert (c["images"], c["predicted"], c["precision"], c["f1"]) == (0, 1, 0, None)


def test_metrics_are_those_of_scikit_learn() -> None:
    """precision_recall_fscore_support of 300 random predictions of 7 classes."""
    from sklearn.metrics import precision_recall_fscore_support

    rng = np.random.default_rng(0)
    truth, probabilities = rng.integers(0, 7, 300), rng.dirichlet(np.ones(7), 300)
    counts = confusion_matrix(truth, probabilities)
    rows = class_metrics.measure_classes(truth, probabilities, counts)
    expected = precision_recall_fscore_support(truth, probabilities.argmax(1))
    for row in rows:
        ours = [row[key] for key in ("precision", "recall", "f1", "images")]
        assert ours == pytest.approx([values[row["class"]] for values in expected])
    assert [row["f1"] for row in rows] == sorted(expected[2])


def test_the_first_sentence_names_the_worst_class(rows: list[dict[str, object]]) -> None:
    assert class_metrics.describe_worst_class(rows, LABELS) == (
        "The worst class is a (F1 0.667): 2 of its 4 test images are classified correctly, and no"
        " image of another is taken for it; it is most often taken for b (1 image)."
        " 1 class has no test image: c."
    )


def test_no_worst_class_without_a_mistake() -> None:
    truth = np.array([0, 1])
    rows = class_metrics.measure_classes(truth, np.eye(2), confusion_matrix(truth, np.eye(2)))
    found = class_metrics.describe_worst_class(rows, LABELS)
    assert found == "Each class has all its test images right."


def test_the_table_says_what_is_missing(rows: list[dict[str, object]]) -> None:
    """A class without test images is last and has no number that could be read as a result."""
    table = class_metrics.class_table(rows, LABELS)
    cells = [[cell.text for cell in row] for row in table.rows]
    assert cells[0][:2] == ["a", "4"] and cells[0][3] == "0.500 [0.150, 0.850]"
    assert cells[2] == ["c", "no test image", "0.000", "–", "–", "–", "–"]
    never = class_metrics.measure_classes(
        np.array([0, 1]), np.eye(2)[[0, 0]], np.array([[1, 0], [1, 0]])
    )
    assert never[0]["precision"] is None and never[0]["f1"] == 0


@pytest.mark.parametrize(("classes", "drawn"), [(2, 2), (10, 10), (11, 5)])
def test_many_classes_draw_the_worst_curves(tmp_path: Path, classes: int, drawn: int) -> None:
    truth = np.arange(classes).repeat(2)
    probabilities = np.eye(classes)[truth]
    rows = class_metrics.measure_classes(
        truth, probabilities, confusion_matrix(truth, probabilities)
    )
    labels = [f"$class_{k}" for k in range(classes)]  # $ is no formula
    path = tmp_path / "a.png"
    picture = class_metrics.precision_recall_curves(rows, truth, probabilities, labels, path)
    assert picture and f"{drawn} classes" in picture.alt and path.stat().st_size > 1000
