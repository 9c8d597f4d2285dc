"""The report in a browser: Debian's Chromium opens every page from disk, light and dark, wide and
narrow.
"""

from __future__ import annotations

import io
import shutil
from pathlib import Path
from typing import Any

import line
import numpy as np
import onnxruntime
import pytest
from browser import Tab, see_all
from convline.model_file.onnx_file import read_model_file
from finished import CLASSIFIER, HOSTILE, RECIPES, STUDIES, write_all
from PIL import Image

from pipeline.report import browser_demo, pages

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[3]
PAGES = ("index", "compare", "claims", "live", *RECIPES, *(f"{name}.explain" for name in RECIPES))


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of two entries and a study, all of whose labels are hostile."""
    root = tmp_path_factory.mktemp("the site")
    write_all(root)
    pages.build_report(list(RECIPES), RECIPES, STUDIES, root)
    return root / "out" / "report"


@pytest.mark.parametrize("name", PAGES)
def test_every_page_is_accessible_and_without_errors(name: str, chromium: Any, site: Path) -> None:
    """No error, no serious finding of axe, no sideways scrolling on a phone, in both schemes;
    charts are drawn.
    """
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    for width, scheme in ((1280, "light"), (375, "dark")):
        with Tab(chromium, site / f"{name}.html", width, scheme) as page:
            see_all(page)
            assert page.evaluate("document.documentElement.scrollWidth") <= width
            found = axe.run(page).response["violations"]
            assert [
                (v["id"], v["nodes"][0]["html"])
                for v in found
                if v["impact"] in ("serious", "critical")
            ] == []
            ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
            assert (sum(map(int, ground[4:-1].split(","))) > 384) == (scheme == "light")
    assert (site / f"{name}.html").stat().st_size < 1e6


def test_on_a_phone_metric_and_command_are_read_without_scrolling_sideways(
    chromium: Any, site: Path
) -> None:
    for name in RECIPES:
        with Tab(chromium, site / f"{name}.html", 390) as page:
            metric = page.locator("#result ~ dl dd").first.bounding_box()
            assert metric["x"] >= 0 and metric["x"] + metric["width"] <= 390
            assert metric["y"] < 900  # on the first screen
            command = page.locator("#serve-it ~ pre")
            assert command.inner_text().startswith("infer ")
            assert command.evaluate("(e) => e.scrollWidth <= e.clientWidth")


def test_an_entrys_page_is_short_and_its_contents_lead_to_its_sections(
    chromium: Any, site: Path
) -> None:
    for name in RECIPES:
        with Tab(chromium, site / f"{name}.html") as page:
            assert page.evaluate("document.documentElement.scrollHeight") < 6000
            page.get_by_role("navigation", name="On this page").get_by_text("Serve it").click()
            assert page.url.endswith("#serve-it")
            page.locator("a.teaser").click()
            assert page.locator("h1").inner_text() == f"How {name} sees"


def test_the_table_sorts_and_is_searched(chromium: Any, site: Path) -> None:
    with Tab(chromium, site / "index.html") as page:
        table = page.locator("table.entries").nth(
            2
        )  # the verdict: fp32, int8, and the forecaster's fp32
        order = lambda: table.locator("tbody tr td:nth-child(3)").all_inner_texts()  # noqa: E731
        assert order() == ["fp32", "int8", "fp32"]
        table.get_by_role("button", name="p50").press("Enter")
        assert order() == ["int8", "fp32", "fp32"]
        assert table.locator("[aria-sort=ascending]").inner_text().startswith("p50")
        page.get_by_label("Find entries").fill(f"{CLASSIFIER} INT8")
        assert (
            table.locator("tbody tr:visible").count() == 1
            and page.locator("#found").inner_text() == "1 found"
        )


def test_charts_have_tooltips_and_zoom(chromium: Any, site: Path) -> None:
    with Tab(chromium, site / f"{CLASSIFIER}.html") as page:
        see_all(page)
        chart = page.locator("figure.read").first
        chart.locator(".role-mark path").last.hover(force=True)
        assert "epoch" in page.locator("#vg-tooltip-element").inner_text()
        axis = chart.locator(".role-axis-label").first.text_content()
        page.mouse.wheel(0, -800)
        other = "([f, before]) => f.querySelector('.role-axis-label').textContent !== before"
        page.wait_for_function(other, arg=[chart.element_handle(), axis])


def test_hostile_labels_stay_text(chromium: Any, site: Path) -> None:
    with Tab(chromium, site / f"{CLASSIFIER}.html") as page:
        assert HOSTILE in page.locator("main").inner_text()
        assert page.evaluate("document.querySelectorAll('main script:not([type])').length") == 0


@pytest.fixture(scope="module")
def alive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of the tests' own line, whose live page runs its two files."""
    if isinstance(missing := browser_demo.onnxruntime_web(ROOT / "out" / "downloads"), str):
        pytest.skip(missing)
    root = tmp_path_factory.mktemp("alive")
    shutil.copytree(line.made() / "out" / "dist", root / "out" / "dist")
    (root / "out" / "downloads").symlink_to(ROOT / "out" / "downloads")
    pages.build_report(
        [line.DIGITS, line.WAVES],
        dict.fromkeys((line.DIGITS, line.WAVES), RECIPES[CLASSIFIER]),
        {},
        root,
    )
    return root


def test_the_live_page_computes_what_onnxruntime_computes(chromium: Any, alive: Path) -> None:
    """onnxruntime's outputs for random input, and those that the file recorded; and Pillow's
    resize.
    """
    rng = np.random.default_rng(0)
    site = alive / "out" / "report"
    assert (site / "live-data.js").stat().st_size < 20e6
    with Tab(chromium, site / "live.html") as page:
        page.evaluate("live.ready")
        for name in (line.DIGITS, line.WAVES):
            model = alive / "out" / "dist" / name / "model.onnx"
            size = read_model_file(model).json["input"].get("size")
            given = (
                rng.integers(0, 256, (7, *size, 1), np.uint8)
                if size
                else rng.normal(size=(7, 20, 1)).astype("f4")
            )
            served = read_model_file(model).prediction_graph  # without the steps of a stream
            session = onnxruntime.InferenceSession(served, providers=["CPUExecutionProvider"])
            expected = session.run(None, {session.get_inputs()[0].name: given})
            kind = "Uint8Array" if size else "Float32Array"
            call = f"async ([name, x, shape]) => (await live.run(name, {kind}.from(x), shape))"
            answers = page.evaluate(call, [name, given.ravel().tolist(), list(given.shape)])
            for output, right in zip(session.get_outputs(), expected, strict=True):
                got = np.array(answers[output.name], np.float32).reshape(right.shape)
                np.testing.assert_allclose(got, right, rtol=0, atol=1e-4)
            section = page.locator(f"section[data-name={name}]")
            assert float(section.get_attribute("data-difference")) < 1e-4
        for side, to in ((8, 32), (8, 8), (14, 9), (9, 40), (28, 5)):
            image = rng.integers(0, 256, (side, side), np.uint8)
            found = page.evaluate(
                "(a) => Array.from(live.resize(...a))", [image.ravel().tolist(), side, to]
            )
            right = Image.fromarray(image).resize((to, to), Image.Resampling.BILINEAR)
            assert found == np.asarray(right).ravel().tolist(), (side, to)


def test_drawing_a_digit_and_dragging_a_series(chromium: Any, alive: Path) -> None:
    """The drawing is classified as `infer` classifies its file of 8 x 8; dragging moves the
    forecast.
    """
    with Tab(chromium, alive / "out" / "report" / "live.html") as page:
        page.evaluate("live.ready")
        pad, series = page.locator(".pad"), page.locator("svg.series")
        before = page.locator(".bars td").all_inner_texts()
        box = pad.bounding_box()
        page.mouse.move(box["x"] + 144, box["y"] + 40)
        page.mouse.down()
        page.mouse.move(box["x"] + 144, box["y"] + 250)
        page.mouse.up()
        other = (
            "(b) => [...document.querySelectorAll('.bars td')].some((c, k) => c.innerText !== b[k])"
        )
        page.wait_for_function(other, arg=before)
        said = page.locator(".said").inner_text()
        series.focus()
        for _ in range(4):
            page.keyboard.press("ArrowUp")
        page.wait_for_function("(b) => document.querySelector('.said').innerText !== b", arg=said)


def test_a_runtime_that_is_not_the_one_named_is_refused(tmp_path: Path) -> None:
    (tmp_path / f"{browser_demo.PACKAGE}-{browser_demo.VERSION}.tgz").write_bytes(
        io.BytesIO(b"other").getvalue()
    )
    with pytest.raises(browser_demo.StageError, match="expected sha512"):
        browser_demo.onnxruntime_web(tmp_path)


def test_without_npm_the_page_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "npm is not installed" in browser_demo.onnxruntime_web(tmp_path)
