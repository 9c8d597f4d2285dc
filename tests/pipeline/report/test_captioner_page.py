"""A captioner's page: captions of drawn scenes by grade."""

from __future__ import annotations

import csv
from pathlib import Path

import scene_entries
from scene_entries import RECIPES, name_of

from pipeline.report import captioner_page
from pipeline.report.result_files import Entry

NAME = name_of("captioning")


def test_captions_are_listed_by_grade_the_worst_first(tmp_path: Path) -> None:
    drawn = scene_entries.draw()
    scene_entries.write_data(tmp_path, "captioning", drawn)
    scene_entries.write_check(tmp_path, "captioning", drawn)
    (tmp_path / "site" / "img").mkdir(parents=True)
    entry = Entry(NAME, RECIPES[NAME], tmp_path)
    context = captioner_page.captioner_context(entry, tmp_path / "site" / "img")
    assert context is not None and entry.metric is not None
    assert {row[0]: int(row[1]) for row in context["grades"]} == entry.metric["grades"]
    assert [*context["groups"]][-1] == "no errors"
    wrong = [card for group in [*context["groups"].values()][:-1] for card in group]
    assert {card["file"] for card in wrong} == {f"00000{k}.png" for k in range(3)}
    assert len(context["groups"]["no errors"]) == captioner_page.MAX_PICTURES
    with (tmp_path / "site" / context["csv"]).open(encoding="utf-8-sig") as file:
        rows = [*csv.DictReader(file)]
    assert [row["file"] for row in rows] == [card["file"] for card in wrong]
    assert rows[-1]["references"] == drawn[0].caption != rows[-1]["caption"]
