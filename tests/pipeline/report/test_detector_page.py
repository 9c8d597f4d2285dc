"""A detector's page: right, false and missed boxes of drawn scenes whose mistakes are known."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
import scene_entries
from scene_entries import RECIPES, name_of

from pipeline.report import detector_page
from pipeline.report.detector_page import JudgedFinds
from pipeline.report.result_files import Entry

NAME = name_of("detection")


@pytest.fixture(scope="module")
def entry(tmp_path_factory: pytest.TempPathFactory) -> Entry:
    root = tmp_path_factory.mktemp("detector")
    drawn = scene_entries.draw()
    scene_entries.write_data(root, "detection", drawn)
    scene_entries.write_check(root, "detection", drawn)
    (root / "site" / "img").mkdir(parents=True)
    return Entry(NAME, RECIPES[NAME], root)


@pytest.fixture(scope="module")
def found(entry: Entry) -> JudgedFinds:
    names = ("boxes", "labels", "scores", "count", "y")
    return JudgedFinds(*(entry.prediction(name) for name in names))


def test_each_find_and_each_missed_box_is_judged(found: JudgedFinds) -> None:
    """Scene 0 has one digit of another class, scene 1 lacks one, scene 2 has one too many, and in
    scene 3 one find is below the threshold; the others have no mistake.
    """
    assert found.false.sum(1).tolist() == [1, 0, 1, *[0] * 13]
    assert np.argwhere(found.missed).tolist() == [[0, 0], [1, 0], [3, 0]]
    truths = (found.y[..., 4] >= 0).sum(1)
    assert (found.right.sum(1) + found.missed.sum(1) == truths).all()
    assert found.mistaken_for(0, 0) == int(found.y[0, 0, 4])
    extra = int(np.flatnonzero(found.false[2])[0])
    assert found.mistaken_for(2, extra) is None


def test_the_context_counts_and_lists_the_mistakes(entry: Entry) -> None:
    context = detector_page.detector_context(entry, entry.root / "site" / "img")
    assert context is not None
    assert context["counts"] == [context["truths"] - 3, 3, 2] and context["n"] == 16
    assert [row[1] for row in context["mistakes"]] == ["wrong class", "false", *["missed"] * 3]
    with (entry.root / "site" / context["csv"]).open(encoding="utf-8-sig") as file:
        rows = [*csv.DictReader(file)]
    assert [row["file"] for row in rows] == [f"00000{k}.png" for k in (0, 2, 0, 1, 3)]
    assert rows[0]["true"] == rows[2]["true"] != rows[0]["predicted"]
    assert (rows[1]["x_min"], rows[1]["y_max"], rows[1]["score"]) == ("1.0000", "12.0000", "0.8000")
    first = context["pictures"][0]
    assert first["name"] == "000000.png" and f"missed {rows[0]['true']}" in first["text"]
    assert first["text"] in first["picture"].alt
    assert (entry.root / "site" / "img" / first["picture"].file).is_file()


def test_classes_have_the_average_precision_of_the_metric(entry: Entry) -> None:
    context = detector_page.detector_context(entry, entry.root / "site" / "img")
    assert context is not None and entry.metric is not None
    column = [column.title for column in context["classes"].columns].index("AP50")
    shown = {row[0].text: row[column].value for row in context["classes"].rows}
    expected = dict(zip(scene_entries.DIGITS, entry.metric["class_map50"], strict=True))
    assert shown == pytest.approx(expected)
    assert [*shown.values()] == sorted(shown.values())
    above = {row[0]: int(row[1]) for row in context["thresholds"]}
    assert above["0.1"] - above["0.5"] == 1 and above["0.7"] - above["0.9"] == 1


def test_finds_of_other_data_are_pending(entry: Entry, tmp_path: Path) -> None:
    """Stage data has run again with fewer classes, or with another number of images."""
    about = entry.results["data"]
    for change in ({"labels": ["0", "1"]}, {"test": 17}):
        other = Entry(NAME, entry.recipe, entry.root)
        other.results["data"] = about | change
        assert detector_page.detector_context(other, tmp_path) is None
