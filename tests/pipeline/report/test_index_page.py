"""The index page: one name and one rounding for each metric, groups of one data set, pages of
studies.
"""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from finished import (
    CLASSIFIER,
    FORECASTER,
    RECIPES,
    STUDIES,
    write_all,
    write_check,
    write_data,
    write_study,
    write_train,
)

from pipeline.evaluate.metric_catalogue import CATALOGUE, main_metrics
from pipeline.params import load as params
from pipeline.report import entry_tables, pages, study_pages
from pipeline.report.result_files import Entry, Study

ROOT = Path(__file__).parents[3]
Rows = dict[str, dict[str, str]]  # entry -> column title -> text of the cell


class TableText(HTMLParser):
    """Collects the tables of entries of a page: rows, each a list of the cells' texts."""

    def __init__(self, html: str):
        super().__init__()
        self.tables: list[list[list[str]]] = []
        self.inside = self.skipped = False
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        kind = dict(attrs).get("class") or ""
        if tag == "table" and "entries" in kind:
            self.tables.append([])
            self.inside = True
        elif tag == "tr" and self.inside:
            self.tables[-1].append([])
        elif tag in ("th", "td") and self.inside:
            self.tables[-1][-1].append("")
        elif tag == "br" and self.inside:
            self.tables[-1][-1][-1] += ", "
        self.skipped = tag == "a" and kind == "what"

    def handle_endtag(self, tag: str) -> None:
        self.inside = self.inside and tag != "table"
        self.skipped = False

    def handle_data(self, data: str) -> None:
        if self.inside and self.tables[-1] and self.tables[-1][-1] and not self.skipped:
            self.tables[-1][-1][-1] += data.strip("\n").replace("\u00a0", " ")


def rows_of_page(html: str) -> Rows:
    found: Rows = {}
    for head, *rows in TableText(html).tables:
        found |= {row[0]: dict(zip(head, row, strict=True)) for row in rows if len(row) > 1}
    return found


def rows_of_markdown(text: str) -> Rows:
    found: Rows = {}
    for block in re.findall(r"(?:^\|.*\n)+", text, re.M):
        lines = [line.strip("| ").split(" | ") for line in block.splitlines()]
        head, _, *rows = [[cell.replace("\u00a0", " ") for cell in line] for line in lines]
        found |= {row[0]: dict(zip(head, row, strict=True)) for row in rows}
    return found


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Everything is made, with metrics that need rounding; metrics.json is as stage check writes
    it.
    """
    folder = tmp_path_factory.mktemp("index")
    write_all(folder)
    changes: dict[str, dict[str, Any]] = {
        CLASSIFIER: {"value": 0.991667, "low": 0.975789, "calibration_error": 0.00035},
        FORECASTER: {"value": 1324.26, "low": 682.64, "high": 2065.51},
    }
    for name, change in changes.items():
        path = folder / "results" / name / "check.json"
        checked = json.loads(path.read_text())
        checked["metric"] |= change
        if name == FORECASTER:
            checked["metric"]["baselines"]["ETS"]["mase_ratio"] = [1.66667, 1.23456, 2.5]
            checked["metric"]["intervals"][0] |= {"measured": 0.95, "low": 0.90005, "high": 0.97}
        path.write_text(json.dumps(checked))
        metrics = json.dumps(main_metrics(checked))
        (folder / "results" / name / "metrics.json").write_text(metrics)
    pages.build_report(list(RECIPES), RECIPES, STUDIES, folder)
    return folder


@pytest.mark.parametrize(
    ("name", "keys"),
    [
        (CLASSIFIER, ["accuracy", "int8_accuracy", "calibration_error"]),
        (FORECASTER, ["mse", "ratio_to_best_baseline", "coverage"]),
    ],
)
def test_readme_index_and_metrics_json_agree(root: Path, name: str, keys: list[str]) -> None:
    """Text by text: the same column titles, which are the keys, and the same digits."""
    metrics = json.loads((root / "results" / name / "metrics.json").read_text())
    readme = rows_of_markdown((root / "results" / "README.md").read_text())[name]
    index = rows_of_page((root / "out" / "report" / "index.html").read_text())[name]
    terminal = (root / "out" / "report" / "table.txt").read_text()
    shown = [key for key in metrics if any(column_key(title) == key for title in index)]
    assert sorted(shown) == sorted(keys)
    for key in keys:
        title = next(title for title in index if column_key(title) == key)
        assert readme[title] == index[title] and index[title] in terminal
        text = re.sub(r"^[✗?] ", "", index[title]).split("]")[0]
        numbers = re.findall(r"[\d.e-]+", text)
        assert [float(number) for number in numbers] == [
            metrics[known] for known in (key, f"{key}_low", f"{key}_high") if known in metrics
        ]
        if CATALOGUE[key].unit == "proportion":
            assert all(re.fullmatch(r"[01]\.\d{4}", number) for number in numbers)


def column_key(title: str) -> str:
    return title.removesuffix(" [95 %]").lower().replace(" ", "_")


def test_what_stands_beside_a_metric(root: Path) -> None:
    """The best baseline's name, and an interval that holds too much, marked."""
    index = rows_of_page((root / "out" / "report" / "index.html").read_text())
    assert index[FORECASTER]["Ratio to best baseline [95 %]"] == "1.667 [1.235, 2.500], to ETS"
    coverage = index[FORECASTER]["Coverage [95 %]"]
    assert coverage == "✗ 0.9500 [0.9001, 0.9700], too wide for 0.8"
    assert index[CLASSIFIER]["Served = trained"] == "✓ yes"


def test_a_group_for_each_data_set_and_the_best_entry_first(tmp_path: Path) -> None:
    """Five classes and ten are not ranked together; an unchecked entry is last, in its group."""
    entries = []
    for name, classes, accuracy in (
        ("a", 10, 0.7),
        ("small", 5, 0.99),
        ("b", 10, 0.9),
        ("unchecked", 10, None),
    ):
        entries.append(Entry(name, RECIPES[CLASSIFIER], tmp_path))
        labels = [str(k) for k in range(classes)]
        write_data(tmp_path, name, "classification", labels)
        if accuracy is not None:
            write_check(tmp_path, name)
            path = tmp_path / "results" / name / "check.json"
            checked = json.loads(path.read_text())
            metric = {"name": "accuracy", "value": accuracy, "low": 0.699, "high": 0.972}
            checked |= {"metric": metric, "variants": {}}
            path.write_text(json.dumps(checked))
    entries.append(Entry("nothing", RECIPES[CLASSIFIER], tmp_path))
    made = entry_tables.entry_tables(entries, timings=False)
    table = made["Classification"]
    assert [row[0].text for row in table.rows] == ["b", "a", "unchecked", "small", "nothing"]
    ten, five = (f"digits ({k} classes, 20 test images)" for k in (10, 5))
    assert table.groups == {0: ten, 3: five, 4: "digits"}
    assert [row[1].text for row in table.rows[1:3]] == ["0.7000 [0.6990, 0.9720]", "pending"]


def test_the_page_in_the_navigation(root: Path) -> None:
    """A page below another one marks it: entries and model files below Entries."""
    for name, current in {
        "index": ("index", "page"),
        CLASSIFIER: ("index", "true"),
        "model_files": ("index", "true"),
        "explanation_quality": ("index", "true"),
        "studies": ("studies", "page"),
        "study_dilation": ("studies", "true"),
        "claims": ("claims", "page"),
        "metrics": ("metrics", "page"),
        "compare": ("compare", "page"),
        "live": ("live", "page"),
    }.items():
        html = (root / "out" / "report" / f"{name}.html").read_text()
        site = html.partition('<nav class="site"')[2].partition("</nav>")[0]
        assert re.findall(r'href="(\w+)\.html" aria-current="(\w+)"', site) == [current], name


def test_every_metric_is_explained(root: Path) -> None:
    html = (root / "out" / "report" / "metrics.html").read_text()
    for metric in CATALOGUE.values():
        assert f"<code>{metric.key}</code>" in html and metric.meaning[1:20] in html
    anchors = set(
        re.findall(r'metrics\.html#([\w-]+)"', (root / "out/report/index.html").read_text())
    )
    assert anchors >= {"accuracy", "mse", "ratio-to-best-baseline", "coverage", "served-trained"}
    assert anchors <= set(re.findall(r'id="([\w-]+)"', html))


def test_a_study_shows_the_verdicts_of_its_claims(tmp_path: Path) -> None:
    """H6 and O20 of docs/claims.yaml rest on the study waves; a study of one's own has no claim."""
    waves, own = study_pages.study_contexts(
        [Study("waves", tmp_path), Study("own", tmp_path)], tmp_path
    )
    assert [(claim["id"], claim["verdict"]) for claim in waves["claims"]] == [
        ("H6", "reproduced"),
        ("O20", "reproduced"),
    ]
    assert own["claims"] == [] and own["picture"] is None


def test_a_study_whose_table_lacks_a_setting_has_no_plot(tmp_path: Path) -> None:
    """The recipe has got a second setting since stage study ran."""
    write_study(tmp_path)
    recipe = STUDIES["dilation"]
    changed = recipe.model_copy(update={"settings": {**recipe.settings, "wide": {}}})
    assert study_pages.draw_plot(Study("dilation", tmp_path, recipe), tmp_path)
    assert study_pages.draw_plot(Study("dilation", tmp_path, changed), tmp_path) is None


def test_every_study_in_git_has_a_page_with_its_plot(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its recipe is in params.yaml, and its table has all that the recipe asks for."""
    drawn: list[str] = []
    monkeypatch.setattr(study_pages, "draw_study", lambda recipe, *_: drawn.append(recipe.claim))
    recipes = params.load(ROOT / "params.yaml").studies
    names = sorted(file.stem for file in (ROOT / "results" / "studies").glob("*.csv"))
    studies = [Study(name, ROOT, recipes[name]) for name in names]
    study_pages.study_contexts(studies, tmp_path)
    assert len(names) > 20 and drawn == [study.claim for study in studies]
    assert all(study.runs and study.text for study in studies)


def test_an_entry_that_is_trained_alone_is_pending(tmp_path: Path) -> None:
    """Its metric, its file and whether it is served as trained; what is known is shown."""
    write_data(tmp_path, CLASSIFIER, "classification", ["a", "b"])
    write_train(tmp_path, CLASSIFIER)
    entry = Entry(CLASSIFIER, RECIPES[CLASSIFIER], tmp_path)
    table = entry_tables.entry_table([entry], timings=True)
    cells = dict(zip([c.title for c in table.columns], table.rows[0], strict=True))
    pending = {title for title, cell in cells.items() if cell.state == "pending"}
    assert pending == {
        "Accuracy [95\u00a0%]",
        "Served = trained",
        "File",
        "int8 accuracy",
        "Calibration error",
    }
