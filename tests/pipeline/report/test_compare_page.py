"""The compare page in a browser: choice, address, differences, and the images on which entries
disagree.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import pytest
from browser import Tab
from finished import HOSTILE, write_train
from statsmodels.stats.multitest import multipletests
from test_comparison import change, classifier, forecaster

from pipeline.evaluate import paired
from pipeline.plots import vega
from pipeline.report import comparison
from pipeline.report.pages import page_writer
from pipeline.report.result_files import Entry

pytestmark = pytest.mark.slow
BEST, MIDDLE, WORST = "best-digits", "middle-digits", "<img src=x onerror=alert(1)>,&"
WRONG = {BEST: [1], MIDDLE: [1, 1, 1, 2], WORST: [0, 1, 1, 1, 1, 1, 1, 1, 2]}  # of 20 of class 0
OTHERS = {"fourth-digits": [1] * 10, "fifth-digits": [1] * 10}
APART, FORECASTS, WORSE = "other-digits", "causal-waves", "worse-waves"
UNCHECKED, MOVED = "unchecked", "moved"  # of the data set of the five


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """compare.html of five classifiers of one data set, whose first class and files have hostile
    names, one of another data set, one that was not checked, and two forecasters.
    """
    root = tmp_path_factory.mktemp("compare")
    entries = []
    for name, predicted in (WRONG | OTHERS).items():
        entry = classifier(root, name, predicted)
        write_train(root, name)
        entries.append(change(entry, "data", labels=[HOSTILE, "dog", "owl"]))
    entries.append(classifier(root, APART, [], "digits-high"))
    entries.append(forecaster(root, FORECASTS, np.ones(6)))
    entries.append(forecaster(root, WORSE, 4 * np.ones(6)))
    entries.append(Entry(UNCHECKED, entries[0].recipe, root))
    entries.append(change(classifier(root, MOVED, []), "test", y=np.arange(20) % 2))
    site = root / "site"
    (site / "img").mkdir(parents=True)
    (site / vega.LIBRARY).write_text(vega.javascript_library(), encoding="utf-8")
    page_writer(site)("compare", "compare", comparison.write_comparison(entries, site))
    return site / "compare.html"


def row(page: Any, title: str) -> list[str]:
    """The cells of a row of the table of chosen entries."""
    found = page.locator(
        "table.side-by-side tbody tr", has=page.get_by_role("rowheader", name=title)
    )
    return [text.strip() for text in found.locator("td").all_inner_texts()]


def columns(page: Any) -> list[str]:
    return page.locator("table.side-by-side thead a").all_inner_texts()


def cards(page: Any) -> list[str]:
    return page.locator("ul.apart > li").all_inner_texts()


def test_without_an_address_the_two_best_of_the_largest_data_set_are_compared(
    chromium: Any, page: Path
) -> None:
    with Tab(chromium, page) as tab:
        assert columns(tab) == [BEST, MIDDLE]
        assert tab.url.endswith(f"#{BEST},{MIDDLE}")
        tab.wait_for_selector("#compared svg")


def test_the_address_is_kept_and_unknown_names_are_named(chromium: Any, page: Path) -> None:
    """One name, as in the links of entries' pages, is compared with the best of its data set."""
    for address, expected in (
        (f"#{MIDDLE}", [MIDDLE, BEST]),
        (f"#{APART}", [APART]),
        (f"#{MIDDLE},{APART},{BEST},{MIDDLE}", [MIDDLE, APART, BEST]),
        ("#%3Cimg%20src%3Dx%20onerror%3Dalert(1)%3E%2C%26," + BEST, [WORST, BEST]),
    ):
        with Tab(chromium, page, address=address) as tab:
            assert columns(tab) == expected and tab.locator("#unknown").inner_text() == ""
            again = tab.url
        with Tab(chromium, Path(page), address="#" + again.partition("#")[2]) as tab:
            assert columns(tab)[0] == expected[0] and set(expected) <= set(columns(tab))
    with Tab(chromium, page, address=f"#gone,{BEST},100%,{MIDDLE}") as tab:
        assert columns(tab) == [BEST, MIDDLE]
        said = tab.get_by_role("alert").inner_text()
        assert "no entry gone," in said and "no entry 100%," in said


def test_differences_are_those_of_python_and_p_values_are_adjusted(
    chromium: Any, page: Path
) -> None:
    """The oracles are paired.accuracy_difference, scipy through it, and statsmodels' Holm. Each
    entry's row of counts is seen from the reference, whichever that is.
    """
    right = {name: np.array([*c, *[0] * (20 - len(c))]) == 0 for name, c in WRONG.items()}
    for chosen in ([BEST, MIDDLE, WORST], [WORST, BEST, MIDDLE]):
        address = "#" + ",".join(map(quote, chosen))
        with Tab(chromium, page, address=address) as tab:
            ours = [right[name] for name in chosen]
            counts = [
                [int(np.sum(x & y)) for x in (a, ~a) for y in (ours[0], ~ours[0])] for a in ours[1:]
            ]
            found = row(tab, "Difference of accuracy")
            assert found[0] == "–"
            for text, table in zip(found[1:], counts, strict=True):
                numbers = [float(n.replace("−", "-")) for n in re.findall(r"[−+]?\d+\.\d", text)]
                expected = [100 * value for value in paired.accuracy_difference(*table)]
                assert numbers == pytest.approx(expected, abs=0.0501)
                excludes = expected[1] > 0 or expected[2] < 0
                assert ("includes 0" in text) != excludes
            p = [paired.mcnemar_p_value(*table[1:3]) for table in counts]
            adjusted = multipletests(p, method="holm")[1]
            assert [float(t.split()[0]) for t in row(tab, "McNemar p")[1:]] == pytest.approx(
                adjusted, abs=5.1e-4
            )
            assert "Holm-adjusted for 2" in tab.locator("table.side-by-side").inner_text()
            only = [f"{table[1]} image" for table in counts]
            for text, count in zip(
                row(tab, "Right where the reference is wrong")[1:], only, strict=True
            ):
                assert text.startswith(count)


def test_boxes_search_and_reference_work_by_keyboard(chromium: Any, page: Path) -> None:
    with Tab(chromium, page, address=f"#{BEST},{MIDDLE}") as tab:
        tab.get_by_label("Find entries").fill("digits-HIGH")
        assert tab.locator(".choice label:visible", has=tab.get_by_role("checkbox")).count() == 1
        box = tab.get_by_role("checkbox", name=APART)
        box.focus()
        tab.keyboard.press("Space")
        assert columns(tab) == [BEST, MIDDLE, APART]
        assert tab.evaluate("document.activeElement.value") == APART  # the focus stays
        tab.keyboard.press("Space")
        assert columns(tab) == [BEST, MIDDLE] and tab.url.endswith(f"#{BEST},{MIDDLE}")
        tab.get_by_label("Compare with").focus()
        tab.keyboard.press("ArrowDown")
        assert columns(tab) == [MIDDLE, BEST]
        tab.get_by_label("Find entries").fill("nothing of this name")
        assert tab.get_by_text("No entry has these words.").is_visible()
        tab.get_by_label("Find entries").fill("set digits digits")
        tab.get_by_role("button", name="Choose all shown").press("Enter")
        assert columns(tab) == [MIDDLE, BEST, WORST, *OTHERS, UNCHECKED, MOVED, APART]
        tab.get_by_role("button", name="Choose none").press("Enter")
        assert "Choose two or more entries." in tab.locator("#compared").inner_text()


def test_images_of_most_disagreement_come_first_and_are_filtered(chromium: Any, page: Path) -> None:
    """Row 3 has three answers, so all three pairs differ. Rows 0, 1 and 2 and 4 to 8 have two. BEST is
    right and MIDDLE wrong on rows 1, 2 and 3.
    """
    address = "#" + ",".join(map(quote, WRONG))
    with Tab(chromium, page, address=address) as tab:
        status = tab.locator("#compared p[role=status]")
        assert "differ on 9 test images of 20" in status.inner_text()
        assert len(cards(tab)) == 9 and f"{HOSTILE}/3.png" in cards(tab)[0]
        assert f"✓ {HOSTILE} (70\u00a0%) {BEST}" in cards(tab)[0]
        assert f"✗ owl (70\u00a0%) {MIDDLE}" in cards(tab)[0]
        tab.locator("#right").select_option(BEST)
        tab.locator("#wrong").select_option(MIDDLE)
        assert "3 of these are as chosen here." in status.inner_text()
        rows = [re.search(r"/(\d+)\.png", text)[1] for text in cards(tab)]  # type: ignore[index]
        assert rows == ["3", "1", "2"]
        tile = tab.locator("ul.apart .tile").first
        assert tile.get_attribute("aria-label") == f"Test image 3, class {HOSTILE}"
        assert "compare.0.png" in tile.evaluate("e => getComputedStyle(e).backgroundImage")


def test_of_many_entries_equal_predictions_are_one_line_that_opens(
    chromium: Any, page: Path
) -> None:
    """On row 3 WORST, which is not alone, and the other two predict dog; MIDDLE alone owl."""
    address = "#" + ",".join(map(quote, [*WRONG, *OTHERS]))
    with Tab(chromium, page, address=address) as tab:
        assert "differ on 10 test images of 20" in tab.locator("#compared").inner_text()
        (first,) = [
            card for card in tab.locator("ul.apart > li").all() if "/3.png" in card.inner_text()
        ]
        assert first.locator("summary").all_inner_texts() == ["✗ dog 3 entries"]
        assert f"✗ owl (70\u00a0%) {MIDDLE}" in first.inner_text()
        assert "fifth-digits" not in first.inner_text()
        first.locator("summary").press("Enter")
        assert "✗ dog (70\u00a0%) fifth-digits" in first.inner_text()


def test_two_entries_have_a_table_of_counts(chromium: Any, page: Path) -> None:
    """BEST is wrong on row 0, MIDDLE on rows 0 to 3: 16 both right, 3 only BEST, none only MIDDLE."""
    with Tab(chromium, page, address=f"#{BEST},{MIDDLE}") as tab:
        counts = tab.get_by_role("region", name="Right and wrong").locator("tbody td")
        assert counts.all_inner_texts() == ["16", "3", "0", "1"]


def test_other_data_are_not_compared_but_costs_are(chromium: Any, page: Path) -> None:
    with Tab(chromium, page, address=f"#{BEST},{MIDDLE},{APART},{FORECASTS}") as tab:
        assert row(tab, "Difference of accuracy")[2:] == ["other data set"] * 2
        assert row(tab, "McNemar p")[2:] == ["–", "–"]
        assert row(tab, "p50")[1].endswith("1 ×") and row(tab, "p50")[3].endswith("1 ×")
        said = f"{APART}, {FORECASTS}: other data than {BEST}"
        assert said in tab.locator("#compared").inner_text()


def test_forecasters_of_the_same_windows_have_a_ratio_of_errors(chromium: Any, page: Path) -> None:
    """Four times the error on every window: the ratio is 4 in each draw, and 1 / 4 the other way."""
    with Tab(chromium, page, address=f"#{FORECASTS},{WORSE}") as tab:
        assert row(tab, "Ratio of MSE")[1].split() == ["4", "×", "[4,", "4]", "✗", "worse"]
        assert tab.locator("ul.apart").count() == 0
        tab.get_by_label("Compare with").select_option(WORSE)
        assert row(tab, "Ratio of MSE")[1].split()[:4] == ["0.25", "×", "[0.25,", "0.25]"]


def test_what_is_not_paired_is_said_with_its_reason(chromium: Any, page: Path) -> None:
    """An entry that was not checked, and one whose test images of the same data set are others."""
    with Tab(chromium, page, address=f"#{BEST},{UNCHECKED},{MOVED}") as tab:
        said = tab.locator("#compared").inner_text()
        assert f"{UNCHECKED}: not compared yet, pending: dvc repro check@{UNCHECKED}." in said
        assert f"{MOVED}: the data set of {BEST}, but not the same test samples" in said
        assert "Difference of accuracy" not in said


def test_names_and_labels_stay_text(chromium: Any, page: Path) -> None:
    with Tab(chromium, page, address=f"#{quote(WORST)},{BEST}") as tab:
        tab.wait_for_selector("#compared svg")
        assert WORST in tab.locator("#compared").inner_text()
        assert HOSTILE in tab.locator("#compared").inner_text()
        assert tab.evaluate("document.querySelectorAll('main :is(img, script)').length") == 0


def test_axe_finds_nothing_and_the_page_never_scrolls_sideways(chromium: Any, page: Path) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    address = "#" + ",".join(map(quote, [*WRONG, APART, FORECASTS]))
    for width, scheme in ((1280, "light"), (390, "dark")):
        with Tab(chromium, page, width, scheme, address) as tab:
            tab.wait_for_selector("#compared svg")
            assert tab.evaluate("document.documentElement.scrollWidth") <= width
            found = axe.run(tab).response["violations"]
            assert [(v["id"], v["nodes"][0]["html"]) for v in found] == []
            header = tab.get_by_role("rowheader", name="Parameters")
            left = header.bounding_box()["x"]
            tab.locator(".scroll").first.evaluate("e => e.scrollLeft = 200")
            assert header.bounding_box()["x"] == left  # the first column stays
