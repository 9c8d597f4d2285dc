"""Wrong predictions by file name, in a CSV file, and beside right images."""

import csv
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from finished import CLASSIFIER, HOSTILE, RECIPES, write, write_check, write_data

from pipeline.report import error_analysis, mistakes
from pipeline.report.result_files import Entry

LABELS = [HOSTILE, "+two", "three"]


@pytest.fixture
def entry(tmp_path: Path) -> Entry:
    """A classifier of 20 test images, of which rows 5 and 3 are wrong."""
    write_data(tmp_path, CLASSIFIER, "classification", LABELS)
    write_check(tmp_path, CLASSIFIER)
    (tmp_path / "site" / "img").mkdir(parents=True)
    return Entry(CLASSIFIER, RECIPES[CLASSIFIER], tmp_path)


def name_files(entry: Entry, names: list[str]) -> None:
    write(entry.root / "out" / entry.name / "data" / "test_names.json", names)


def context(entry: Entry) -> dict[str, Any]:
    return mistakes.mistakes_context(entry, entry.root / "site" / "img")


def test_mistakes_are_listed_by_file_the_most_confident_first(entry: Entry) -> None:
    name_files(entry, [f"photos/hat/IMG_{row}.jpg" for row in range(20)])
    assert context(entry)["rows"] == [
        ["photos/hat/IMG_5.jpg", HOSTILE, "three", "0.900", "0.050"],
        ["photos/hat/IMG_3.jpg", HOSTILE, "+two", "0.600", "0.400"],
    ]


def test_the_csv_has_all_of_them_and_no_formula(entry: Entry) -> None:
    """A name or a class that begins with = + - @ would run in a spreadsheet; a quote, a comma and
    a line break in a name come back as they are.
    """
    names = [f"{row}.png" for row in range(20)]
    names[3], names[5] = '=HYPERLINK("http://x","y").png', 'a, "b"\nc.png'
    name_files(entry, names)
    found = context(entry)
    with (entry.root / "site" / found["csv"]).open(encoding="utf-8-sig", newline="") as file:
        rows = list(csv.reader(file))
    assert rows == [
        ["file", "true", "predicted", "probability", "probability_of_true"],
        ['a, "b"\nc.png', HOSTILE, "three", "0.9000", "0.0500"],
        ['\'=HYPERLINK("http://x","y").png', HOSTILE, "'+two", "0.6000", "0.4000"],
    ]
    assert [mistakes.guard_formula(f"{sign}1") for sign in "=+-@\t\r"] == [
        f"'{sign}1" for sign in "=+-@\t\r"
    ]
    assert mistakes.guard_formula("a-1.png") == "a-1.png"


def test_without_names_the_number_of_the_image_is_shown(entry: Entry) -> None:
    """Outputs of an earlier version have no names."""
    (entry.root / "out" / entry.name / "data" / "test_names.json").unlink()
    assert [row[0] for row in context(entry)["rows"]] == ["test image 5", "test image 3"]


def test_no_mistake_writes_no_csv(entry: Entry) -> None:
    path = entry.root / "out" / entry.name / "check" / "test.npz"
    truth = np.arange(20) % 3
    np.savez(path, y=truth, probabilities=np.eye(3, dtype=np.float32)[truth])
    found = context(entry)
    assert found["rows"] == found["pictures"] == []
    assert list((entry.root / "site").glob("*.csv")) == []


def test_a_table_of_very_many_mistakes_is_cut(
    entry: Entry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mistakes, "MAX_ROWS", 1)
    found = context(entry)
    assert len(found["rows"]) == 1
    lines = (entry.root / "site" / found["csv"]).read_text(encoding="utf-8-sig").splitlines()
    assert len(lines) == 1 + 2


def test_each_mistake_stands_beside_right_images(entry: Entry) -> None:
    """Only class 0 has right images, so the predicted class has none; every pixel of image i has
    the value i. Image 7 is the most confident one.
    """
    path = entry.root / "out" / entry.name / "check" / "test.npz"
    with np.load(path) as arrays:
        y, probabilities = arrays["y"], arrays["probabilities"].copy()
    probabilities[7] = [0.9, 0.05, 0.05]
    np.savez(path, y=y, probabilities=probabilities)
    first = context(entry)["pictures"][0]
    assert (first["true"], first["predicted"], first["probability"]) == (
        HOSTILE,
        "three",
        pytest.approx(0.9),
    )
    assert [(other["label"], other["name"]) for other in first["beside"]] == [
        (HOSTILE, f"{HOSTILE}/7.png")
    ]
    assert (entry.root / "site" / "img" / f"{CLASSIFIER}.test7.png").is_file()


def test_the_nearest_right_image_by_features() -> None:
    """Row 3 is nearest to the wrong row 0, but wrong itself; row 2 is next, and of class 1."""
    truth = np.array([0, 1, 1, 1, 0])
    probabilities = np.array([[0.4, 0.6], [0, 1.0], [0.4, 0.6], [0.9, 0.1], [0.7, 0.3]])
    features = np.array([[0.0], [5], [-2], [0.1], [9]])
    nearest = mistakes.nearest_right_image
    assert nearest(0, 1, truth, probabilities, features) == 2
    assert nearest(0, 1, truth, probabilities, None) == 1
    assert nearest(0, 0, truth, probabilities, features) == 4
    assert nearest(0, 1, truth[:1], probabilities[:1], None) is None


def test_long_names_are_shortened_in_the_middle() -> None:
    short = mistakes.shorten_name("clothes/dress/" + "x" * 40 + "_12.jpg")
    assert len(short) == mistakes.MAX_NAME
    assert short.startswith("clothes/dr") and short.endswith("x_12.jpg") and "…" in short
    assert mistakes.shorten_name("dress/IMG_12.jpg") == "dress/IMG_12.jpg"


def test_missing_test_images_are_pending(entry: Entry) -> None:
    (entry.root / "out" / entry.name / "data" / "test_x.npy").unlink()
    assert context(entry)["pictures"] is None and len(context(entry)["rows"]) == 2


def test_the_whole_context_of_two_classes(entry: Entry) -> None:
    path = entry.root / "out" / entry.name / "check" / "test.npz"
    np.savez(
        path, y=np.arange(20) % 2, probabilities=np.eye(2, dtype=np.float32)[np.zeros(20, int)]
    )
    entry.results["data"]["labels"] = ["no", "yes"]
    found = error_analysis.error_context(entry, entry.root / "site" / "img")
    assert found and found["errors"] == 10 and found["matrix"] == [[10, 0], [10, 0]]
    assert found["worst"].startswith("The worst class is yes (F1 0.000): 0 of its 10 test images")


def test_the_queries_of_nearest_neighbours_are_named(entry: Entry) -> None:
    """One test image of each class that has any, beside training images, by file name."""
    folder = entry.root / "out" / entry.name
    np.save(folder / "data" / "train_x.npy", np.zeros((4, 8, 8, 1), np.uint8))
    np.save(folder / "data" / "train_y.npy", np.array([0, 1, 2, 0]))
    truth = np.array([0] * 12 + [2] * 8)
    probabilities = np.eye(3, dtype=np.float32)[truth]
    nearest = np.tile([0, 3], (20, 1))
    np.savez(folder / "check" / "test.npz", y=truth, probabilities=probabilities, nearest=nearest)
    entry.results["check"]["retrieval"] = {"precision": 1.0}
    found = error_analysis.nearest_neighbours(entry, entry.root / "site" / "img")
    assert found and found["files"] == [f"{HOSTILE}/0.png", f"{HOSTILE}/12.png"]
    assert (entry.root / "site" / "img" / found["picture"].file).is_file()


def test_predictions_for_other_data_are_pending(entry: Entry) -> None:
    """Stage data has run again, and stage check has not: rows and classes are not those of before."""
    img = entry.root / "site" / "img"
    assert error_analysis.error_context(entry, img)
    path = entry.root / "results" / entry.name / "data.json"
    before = json.loads(path.read_text())
    for change in ({"test": 21}, {"labels": LABELS[:2]}):
        path.write_text(json.dumps(before | change))
        assert error_analysis.error_context(replace(entry), img) is None
    entry.results["check"]["metric"] = None  # a check that was refused measured nothing
    assert error_analysis.error_context(entry, img) is None
