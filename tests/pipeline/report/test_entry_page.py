"""An entry's page: order, contents and headings; its page of how the network sees; no clashes."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from finished import CLASSIFIER, FORECASTER, RECIPES, STUDIES, write_all

from pipeline.core.errors import StageError
from pipeline.params import schema
from pipeline.report import browser_demo, pages


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of two entries and a study. Tests do not change it."""
    root = tmp_path_factory.mktemp("root")
    write_all(root)
    return build(root)


def build(root: Path) -> Path:
    return pages.build_report(list(RECIPES), RECIPES, STUDIES, root).parent


def headings(html: str, levels: str = "2") -> list[str]:
    return re.findall(rf"<h[{levels}][^>]*>([^<]+)</h", html)


def test_an_entrys_page_is_in_the_order_of_what_a_reader_asks(site: Path) -> None:
    """Result first, then mistakes, speed, the command to serve, and only then the rest."""
    last = ["Speed", "Serve it", "How it sees", "Training", "Provenance"]
    order = {
        CLASSIFIER: ["Result", "Classes", "Confidence", "Mistakes", *last],
        FORECASTER: [
            *("Result", "Forecasts", "Baselines", "Mistakes", "Prediction intervals"),
            *last,
        ],
    }
    for name, titles in order.items():
        html = (site / f"{name}.html").read_text(encoding="utf-8")
        assert headings(html) == titles
        contents = html.partition('<nav class="contents"')[2].partition("</nav>")[0]
        assert re.findall(r'href="#[^"]+">([^<]+)<', contents) == titles
        assert html.index('<nav class="contents"') < html.index("<h2")


def test_no_page_of_an_entry_has_two_headings_or_ids_of_one_name(site: Path) -> None:
    for name in [*RECIPES, *(f"{name}.explain" for name in RECIPES)]:
        html = (site / f"{name}.html").read_text(encoding="utf-8")
        for found in (headings(html, "23"), re.findall(r' id="([^"]*)"', html)):
            assert found and len(found) == len(set(found)), (name, found)


def test_how_it_sees_is_a_page_of_its_own_and_the_entrys_page_shows_one_picture(
    site: Path,
) -> None:
    for name in RECIPES:
        entry, seen = (
            (site / f"{name}{end}.html").read_text(encoding="utf-8") for end in ("", ".explain")
        )
        assert f'href="{name}.explain.html"' in entry and f'href="{name}.html"' in seen
        assert entry.count(f"img/{name}.attribution.png") == 1
        assert "fails its sanity check" not in entry and "<figcaption>" in seen
        assert '<nav class="contents"' in seen
    quality = 'href="#quality-of-the-attribution-maps"'
    assert quality in (site / f"{CLASSIFIER}.explain.html").read_text(encoding="utf-8")


def test_no_entry_can_have_the_name_of_another_page(site: Path) -> None:
    """Pages of the site are reserved names, or have a character that no entry's name has."""
    others = {path.stem for path in site.glob("*.html")} - set(RECIPES)
    assert f"{CLASSIFIER}.explain" in others and "index" in others
    for name in others:
        assert name in schema.RESERVED or not re.fullmatch(schema.NAME_PATTERN, name), name
    assert "metrics" in schema.RESERVED


def test_two_pages_of_one_name_are_an_error(tmp_path: Path) -> None:
    write = pages.page_writer(tmp_path)
    write("base", "twice", {})
    with pytest.raises(StageError, match=r"two pages are named twice.html; add 'twice' to "):
        write("base", "twice", {})


def test_the_page_says_which_part_of_the_test_split_was_served(tmp_path: Path) -> None:
    """All 20 of the classifier's images; 20 of 53 of the forecaster's windows."""
    write_all(tmp_path)
    path = tmp_path / "results" / FORECASTER / "data.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"test": 53}))
    site = build(tmp_path)
    for name, part in (
        (CLASSIFIER, "all 20 test images"),
        (FORECASTER, "20 of the 53 test windows, spread evenly over them"),
    ):
        html = (site / f"{name}.html").read_text(encoding="utf-8")
        assert f"reached the checked metric from {part}</dd>" in html
        assert f"From the raw files of {part} the command wrote" in html


def test_the_engine_is_recommended_beside_the_variant(tmp_path: Path, site: Path) -> None:
    """With its reason, and that of a variant that is refused; unless it was measured, neither."""
    assert "For many inputs on" not in (site / f"{CLASSIFIER}.html").read_text(encoding="utf-8")
    write_all(tmp_path)
    path = tmp_path / "results" / CLASSIFIER / "speed.json"
    files = {"fp32": {"accepted": True, "why": "a"}, "bf16": {"accepted": False, "why": "b < c"}}
    chosen = {"engine": "openvino", "variant": "fp32", "why": "1.5 times", "files": files}
    path.write_text(json.dumps(json.loads(path.read_text()) | {"engines": {"cpu": chosen}}))
    html = (build(tmp_path) / f"{CLASSIFIER}.html").read_text(encoding="utf-8")
    said = "<strong>openvino</strong> with fp32 is recommended: 1.5 times; b &lt; c.</p>"
    assert said in html and "For many inputs on" in html


def test_an_interval_at_fault_is_marked_in_words(tmp_path: Path, site: Path) -> None:
    write_all(tmp_path)
    path = tmp_path / "results" / FORECASTER / "check.json"
    check = json.loads(path.read_text())
    check["metric"]["intervals"][0] |= {"measured": 1.0, "low": 0.975, "high": 1.0}
    path.write_text(json.dumps(check))
    html = (build(tmp_path) / f"{FORECASTER}.html").read_text(encoding="utf-8")
    mark = "✗ Interval too wide: 100 % of the targets in the 80 % interval."
    assert mark in html.partition("<main")[0]
    assert "✗ too wide: 100 % [97.5, 100] of the test targets in the 80 % interval" in html
    assert (
        "too wide"
        not in (site / f"{FORECASTER}.html")
        .read_text(encoding="utf-8")
        .partition("An interval is too wide")[0]
    )


def test_a_difference_that_may_be_chance_is_said_to_be(tmp_path: Path) -> None:
    """The best baseline is ETS; the interval of the ratio of MASE holds 1, then it does not."""
    write_all(tmp_path)
    path = tmp_path / "results" / FORECASTER / "check.json"
    check = json.loads(path.read_text())
    check["against_baseline"] = {"better": False, "sentence": "worse than ETS"}
    for low, chance in ((0.94, True), (1.01, False)):
        check["metric"]["baselines"]["ETS"]["mase_ratio"] = [1.04, low, 1.16]
        path.write_text(json.dumps(check))
        html = (build(tmp_path) / f"{FORECASTER}.html").read_text(encoding="utf-8")
        head = html.partition("<main")[0]
        assert "✗ Worse than ETS." in head and ("This may be chance" in head) is chance
        verdict = "no clear difference" if chance else "worse"
        assert f"1.16] times the MASE of ETS: {verdict}</dd>" in html


def test_an_entry_with_a_unit_view_leads_to_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_all(tmp_path)
    monkeypatch.setattr(browser_demo, "is_small", lambda entry: entry.name == CLASSIFIER)
    site = build(tmp_path)
    for name in RECIPES:
        html = (site / f"{name}.html").read_text(encoding="utf-8")
        assert (f'href="inside.html#model={name}"' in html) is (name == CLASSIFIER)
