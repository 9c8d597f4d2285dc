"""The report in a browser: Debian's Chromium opens every page from disk, light and dark, wide and
narrow.
"""

from __future__ import annotations

import io
import shutil
from pathlib import Path
from typing import Any

import convline
import line
import numpy as np
import onnx
import onnxruntime
import operators
import pytest
import scene_entries
from browser import Tab, see_all
from convline.model_file.onnx_file import read_model_file
from finished import CLASSIFIER, FORECASTER, HOSTILE, RECIPES, STUDIES, write_all
from PIL import Image

from pipeline.report import browser_demo, pages, unit_view

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[3]
SHIPPED = [line.DIGITS, line.WAVES, "operators"]
PAGES = (
    *("index", "model_files", "explanation_quality", "compare", "studies", "study_dilation"),
    *("claims", "metrics", "live", "inside", *RECIPES),
    *(f"{name}.explain" for name in RECIPES),
)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of two entries and a study, all of whose labels are hostile."""
    root = tmp_path_factory.mktemp("the site")
    write_all(root)
    pages.build_report(list(RECIPES), RECIPES, STUDIES, root)
    return root / "out" / "report"


def serious_findings(page: Any) -> list[tuple[str, str]]:
    """Return axe's serious findings on a page: the rule, and the first element that breaks it."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    found = axe.run(page).response["violations"]
    serious = [v for v in found if v["impact"] in ("serious", "critical")]
    return [(v["id"], v["nodes"][0]["html"]) for v in serious]


@pytest.fixture(scope="module")
def scenes_site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of a detector, a segmenter and a captioner."""
    if isinstance(missing := line.downloads(), str):
        pytest.skip(missing)
    root = tmp_path_factory.mktemp("scenes")
    scene_entries.write_all(root)
    scene_entries.write_packages(root)
    line.share_downloads(root)
    pages.build_report(list(scene_entries.RECIPES), scene_entries.RECIPES, {}, root)
    return root / "out" / "report"


@pytest.mark.parametrize("name", PAGES)
def test_every_page_is_accessible_and_without_errors(name: str, chromium: Any, site: Path) -> None:
    check_page(chromium, site, name)


@pytest.mark.parametrize(
    "name", ["index", "compare", "model_files", "live", *scene_entries.RECIPES]
)
def test_pages_of_scenes_are_accessible(name: str, chromium: Any, scenes_site: Path) -> None:
    check_page(chromium, scenes_site, name)


def check_page(chromium: Any, site: Path, name: str) -> None:
    """No error, no serious finding of axe, no sideways scrolling on a phone, in both schemes;
    charts are drawn.
    """
    for width, scheme in ((1280, "light"), (375, "dark")):
        with Tab(chromium, site / f"{name}.html", width, scheme) as page:
            see_all(page)
            assert page.evaluate("document.documentElement.scrollWidth") <= width
            assert serious_findings(page) == []
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
    """Each group of rows by itself: fp32 and int8 of the classifier, then the forecaster's fp32."""
    with Tab(chromium, site / "model_files.html") as page:
        table = page.locator("table.entries")
        order = lambda: table.locator("tbody tr td:nth-child(3)").all_inner_texts()  # noqa: E731
        assert order() == ["fp32", "int8", "fp32"]
        table.get_by_role("button", name="p50").press("Enter")
        assert order() == ["int8", "fp32", "fp32"]
        assert table.locator("[aria-sort=ascending]").inner_text().startswith("p50")
        rows = table.locator("tbody tr:not(.group):visible")
        page.get_by_label("Find files").fill(f"{CLASSIFIER} INT8")
        assert rows.count() == 1 and page.locator("#found").inner_text() == "1 found"
        assert table.locator("tr.group:visible").count() == 1
        page.get_by_label("Find files").fill(
            "waves (2 columns, 6 steps ahead)"
        )  # the title of a group
        assert rows.count() == 1 and FORECASTER in rows.first.inner_text()


def test_a_phone_shows_the_metric_beside_the_name(chromium: Any, site: Path) -> None:
    """Without scrolling sideways; a shadow at the edge shows that there is more."""
    with Tab(chromium, site / "index.html", 390) as page:
        for table in page.locator("table.entries").all():
            for cell in table.locator("tbody td:nth-child(2)").all():
                box = cell.bounding_box()
                assert box and box["x"] >= 0 and box["x"] + box["width"] <= 390
            scroll = table.locator("xpath=..")
            assert scroll.evaluate("box => box.scrollWidth > box.clientWidth")
            assert "local" in scroll.evaluate("b => getComputedStyle(b).backgroundAttachment")


def test_a_heading_links_to_what_it_means(chromium: Any, site: Path) -> None:
    """The link is beside the button that sorts, not in it."""
    with Tab(chromium, site / "index.html") as page:
        assert page.locator("thead button a").count() == 0
        page.get_by_role("link", name="What Accuracy [95\u00a0%] means").click()
        assert page.url.endswith("metrics.html#accuracy")
        assert page.locator(":target").inner_text() == "Accuracy"


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
    """The report of the tests' own line and of a file of all operators; its pages run them."""
    if isinstance(missing := line.downloads(), str):
        pytest.skip(missing)
    root = tmp_path_factory.mktemp("alive")
    shutil.copytree(line.made() / "out" / "dist", root / "out" / "dist")
    operators.write(root / "out" / "dist" / "operators" / "model.onnx")
    line.share_downloads(root)
    pages.build_report(SHIPPED, dict.fromkeys(SHIPPED, RECIPES[CLASSIFIER]), {}, root)
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


def test_a_picture_of_ones_own_is_answered_as_onnxruntime_does(
    chromium: Any, scenes_site: Path, tmp_path: Path
) -> None:
    """The detector, with NonMaxSuppression and RoiAlign, the segmenter and the captioner, greedy, on
    Pillow's resize of a picture; the finds of a score of .05 or more are listed.
    """
    rng = np.random.default_rng(0)
    picture = rng.integers(0, 256, (50, 90, 3), np.uint8)
    Image.fromarray(picture).save(tmp_path / "picture.png")
    small = Image.fromarray(picture).resize((64, 64), Image.Resampling.BILINEAR)
    expected = {}
    for task in ("detection", "segmentation"):
        name = scene_entries.name_of(task)
        file = read_model_file(scenes_site.parent / "dist" / name / "model.onnx")
        session = onnxruntime.InferenceSession(file.content, providers=["CPUExecutionProvider"])
        outputs = session.run(None, {"images": np.asarray(small)[None]})
        expected[task] = dict(zip([o.name for o in session.get_outputs()], outputs, strict=True))
    with Tab(chromium, scenes_site / "live.html") as page:
        page.evaluate("live.ready")
        for task in expected:
            section = page.locator(f"section[data-task={task}]")
            assert float(section.get_attribute("data-difference")) < 1e-3
            section.locator("[type=file]").set_input_files(tmp_path / "picture.png")
            section.get_by_text("Your picture:").wait_for()
        detector, segmenter = (page.locator(f"section[data-task={task}]") for task in expected)
        assert detector.locator(".said").inner_text() == "Your picture: nothing."
        detector.locator(".least input").fill("0.05")
        found = expected["detection"]
        shown = [
            f"{score:.3f}" for score in found["scores"][0, : found["count"][0]] if score >= 0.05
        ]
        detector.locator(".finds tbody tr").nth(len(shown) - 1).wait_for()
        assert detector.locator(".finds td:nth-child(2)").all_inner_texts() == shown
        shares = np.bincount(expected["segmentation"]["masks"].ravel(), minlength=11) / 64**2
        listed = dict(
            zip(
                *[
                    segmenter.locator(
                        f".finds :is(th[scope=row], td):nth-child({k})"
                    ).all_inner_texts()
                    for k in (1, 2)
                ],
                strict=True,
            )
        )
        assert listed == {
            label: f"{100 * share:.1f} %"
            for label, share in zip(scene_entries.CLASSES, shares, strict=True)
            if share
        }
        captioner = convline.load(scenes_site.parent / "dist" / scene_entries.name_of("captioning"))
        [caption] = captioner.caption([tmp_path / "picture.png"], beams=1)
        section = page.locator("section[data-task=captioning]")
        section.locator("[type=file]").set_input_files(tmp_path / "picture.png")
        said = f"Your picture: “{caption.text}”, probability {caption.score:.3f}."
        section.get_by_text(said).wait_for()
        segmenter.locator("[type=file]").set_input_files(Path(__file__))
        segmenter.get_by_text("is no picture").wait_for()


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


def test_the_pad_shows_what_is_classified(chromium: Any, alive: Path) -> None:
    """A test image, and then the drawing: the page says which, and hands it to the page Inside."""
    pixels = """(k) => { const pen = new OffscreenCanvas(8, 8).getContext('2d', {willReadFrequently: true});
        pen.imageSmoothingEnabled = false;
        pen.drawImage(document.querySelectorAll('canvas')[k], 0, 0, 8, 8);
        return Array.from(pen.getImageData(0, 0, 8, 8).data); }"""
    with Tab(chromium, alive / "out" / "report" / "live.html") as page:
        page.evaluate("live.ready")
        first = page.evaluate(pixels, 0)
        assert first == page.evaluate(pixels, 1) and max(first[::4]) > 200
        assert "test image 1" in page.locator(".shown").inner_text()
        page.get_by_role("button", name="Test image 2").click()
        page.wait_for_function(
            "document.querySelector('.shown').innerText.includes('test image 2')"
        )
        second = page.evaluate(pixels, 0)
        assert first != second == page.evaluate(pixels, 1)
        page.locator(".pad").focus()
        page.keyboard.press("ArrowDown")  # draws nothing, and begins an own drawing
        page.wait_for_function(
            "document.querySelector('.shown').innerText.includes('your drawing')"
        )
        assert "your drawing" in page.locator(".pad").get_attribute("aria-label")
        page.locator(".look").first.click()
        page.wait_for_function(
            "document.querySelector('#answer')?.innerText.startsWith('Your input')"
        )
        assert page.locator("#model").input_value() == line.DIGITS


def tensors_of(root: Path, name: str) -> dict[str, np.ndarray]:
    """Return every inner tensor of a packaged file for its first sample, by onnxruntime."""
    file = read_model_file(root / "out" / "dist" / name / "model.onnx")
    graph = unit_view.expose_tensors(onnx.load_from_string(file.prediction_graph))
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(
        graph.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    given = {session.get_inputs()[0].name: file.document.golden.input[:1]}
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, given), strict=True)) | given


@pytest.mark.parametrize("name", SHIPPED)
def test_random_units_are_computed_as_onnxruntime_computes_them(
    name: str, chromium: Any, alive: Path
) -> None:
    """Fifty units over all layers, offline: the products of the page add up to the number that the
    file computes in the browser and in Python, to 1e-5 of numbers up to 1 in size.
    """
    tensors, rng = tensors_of(alive, name), np.random.default_rng(1)
    address = f"#model={name}"
    with Tab(chromium, alive / "out" / "report" / "inside.html", address=address) as page:
        page.evaluate("inside.ready")
        layers = page.evaluate("inside.layers().map(({op, output}) => [op, output])")
        assert {output for _, output in layers} == {
            tensor for tensor, array in tensors.items() if array.dtype in (np.float32, np.uint8)
        }
        choices = [
            (k, int(rng.integers(tensors[output].size)))
            for k, (_, output) in list(enumerate(layers)) * max(1, -(-50 // len(layers)))
        ]
        call = "async (all) => { const done = []; for (const [k, unit] of all) { const { value, file } = await inside.choose(k, unit); done.push([value ?? null, file]); } return done; }"
        for (k, unit), (value, file) in zip(choices, page.evaluate(call, choices), strict=True):
            operator, output = layers[k]
            right = float(tensors[output].ravel()[unit])
            allowed = 1e-5 * max(1, abs(right))
            assert abs(file - right) <= allowed, (operator, output, unit)
            if operator in ("Input", operators.NOT_EXPLAINED):
                assert value is None
            else:
                assert abs(value - file) <= allowed, (operator, output, unit, value, file)
        if name == "operators":  # each operator that the page explains is among them
            known = set(page.evaluate("Object.keys(inside.operators)"))
            assert known == {op for op, _ in layers} - {"Input", operators.NOT_EXPLAINED}


def test_a_unit_is_chosen_by_pointer_and_by_keyboard(chromium: Any, alive: Path) -> None:
    """The page says position and value, and shows window, filter, products and what follows."""
    address = "#model=operators&layer=c1&unit=9"  # the first convolution: map 0, row 1, column 1
    with Tab(chromium, alive / "out" / "report" / "inside.html", address=address) as page:
        page.evaluate("inside.ready")
        value = tensors_of(alive, "operators")["c1"][0]
        said = page.locator("#said")
        position = lambda: said.inner_text().split(":")[0]  # noqa: E731
        shown = lambda: float(said.inner_text().split(":")[1].replace("−", "-"))  # noqa: E731
        assert position() == "Map 0, row 1, column 1"
        assert shown() == pytest.approx(value[0, 1, 1], rel=0.01)
        page.locator("#maps").focus()
        for key, place in (
            ("ArrowRight", (0, 1, 2)),
            ("ArrowDown", (0, 2, 2)),
            ("PageDown", (1, 2, 2)),
            ("PageUp", (0, 2, 2)),
            ("PageUp", (0, 2, 2)),  # there is none before the first
        ):
            page.keyboard.press(key)
            text = "Map {}, row {}, column {}".format(*place)
            page.wait_for_function(
                "(t) => document.querySelector('#said').innerText.startsWith(t)", arg=text
            )
            assert shown() == pytest.approx(value[place], rel=0.01)
        page.get_by_role("spinbutton", name="Map").fill("3")
        page.keyboard.press("Enter")
        page.wait_for_function(
            "document.querySelector('#said').innerText.startsWith('Map 3, row 2')"
        )
        box = page.locator("#maps canvas").nth(2).bounding_box()
        page.mouse.click(box["x"] + box["width"] * 7.5 / 8, box["y"] + box["height"] * 0.5 / 8)
        page.wait_for_function(
            "document.querySelector('#said').innerText.startsWith('Map 2, row 0, column 7')"
        )
        assert shown() == pytest.approx(value[2, 0, 7], rel=0.01)
        assert page.locator("#how .cells").count() == 3  # window, filter, products
        assert page.locator("#how .cells").first.locator(".outside").count() == 5  # in the padding
        assert "Sum of 9 products" in page.locator("#how .equation").inner_text()
        page.locator("#layer").focus()
        page.keyboard.press("ArrowUp")
        page.wait_for_function(
            "document.querySelector('#layer-title').innerText === 'multiplication'"
        )
        page.locator("#then").get_by_role("button").first.click()
        page.wait_for_function("document.activeElement.id === 'layer-title'")
        assert "convolution 3 × 3" in page.locator("#layer-title").inner_text()


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (390, "dark")])
def test_the_page_inside_is_accessible(width: int, scheme: str, chromium: Any, alive: Path) -> None:
    """With products, a table of weights, a window, a formula, a copy and an operator unknown."""
    with Tab(chromium, alive / "out" / "report" / "inside.html", width, scheme) as page:
        page.evaluate("inside.ready")
        page.evaluate("inside.open('operators')")
        operators_shown = page.evaluate("inside.layers().map(({ op }) => op)")
        for operator in ("Conv", "Gemm", "AveragePool", "BatchNormalization", "Slice", "Softmax"):
            page.evaluate("(k) => inside.choose(k)", operators_shown.index(operator))
            assert serious_findings(page) == [], operator
            assert page.evaluate("document.documentElement.scrollWidth") <= width
            assert page.evaluate("document.documentElement.scrollHeight") <= 6000
        page.evaluate("(k) => inside.choose(k)", operators_shown.index(operators.NOT_EXPLAINED))
        assert (
            f"does not explain the operator {operators.NOT_EXPLAINED}"
            in page.locator("#how").inner_text()
        )


def test_markup_in_names_of_a_file_stays_text(chromium: Any, alive: Path) -> None:
    with Tab(
        chromium, alive / "out" / "report" / "inside.html", address="#model=operators"
    ) as page:
        page.evaluate("inside.ready")
        assert page.locator("#layer-title").inner_text().startswith(f"{operators.MARKUP}: conv")
        page.evaluate("inside.choose(inside.layers().length - 1, 0)")
        assert f"(class {operators.MARKUP})" in page.locator("#said").inner_text()
        assert operators.MARKUP in page.locator("#how table").inner_text()
        assert page.locator("main img").count() == 0


def test_an_address_that_means_nothing_opens_the_page_as_usual(chromium: Any, alive: Path) -> None:
    """Another network, an unknown layer, a unit beyond the layer, an input of another size."""
    inside = alive / "out" / "report" / "inside.html"
    for address in ("#model=gone&layer=x&unit=-5&input=AAAA", "#unit=1e9&input=%F0%9F", "#layer"):
        with Tab(chromium, inside, address=address) as page:
            page.evaluate("inside.ready")
            assert page.locator("#model").input_value() == line.DIGITS
            assert "Test image 1" in page.locator("#answer").inner_text()
            assert float(page.locator("#unit").get_attribute("data-difference")) < 1e-5


def test_a_script_that_is_gone_is_named(chromium: Any, alive: Path, tmp_path: Path) -> None:
    site = tmp_path / "site"
    shutil.copytree(alive / "out" / "report", site)
    (site / "inside" / f"{line.DIGITS}.js").unlink()
    page = chromium.new_page()
    page.goto((site / "inside.html").as_uri())
    page.wait_for_function("document.querySelector('#state').innerText.includes('missing beside')")
    page.close()


def test_layers_with_weights_of_the_line_are_explained(chromium: Any, alive: Path) -> None:
    """Of the networks in the lecture notes that are packaged in this checkout."""
    packages = sorted((ROOT / "out" / "dist").glob("*/model.onnx"))
    small = [path for path in packages if path.stat().st_size <= browser_demo.MAX_BYTES]
    if not small:
        pytest.skip("nothing is packaged here: run make")
    with Tab(chromium, alive / "out" / "report" / "inside.html") as page:
        known = set(page.evaluate("Object.keys(inside.operators)"))
    for path in small:
        layers = unit_view.view(read_model_file(path))["layers"]
        assert {layer["op"] for layer in layers if layer["name"]} <= known, path


def test_a_runtime_that_is_not_the_one_named_is_refused(tmp_path: Path) -> None:
    (tmp_path / f"{browser_demo.PACKAGE}-{browser_demo.VERSION}.tgz").write_bytes(
        io.BytesIO(b"other").getvalue()
    )
    with pytest.raises(browser_demo.StageError, match="expected sha512"):
        browser_demo.onnxruntime_web(tmp_path)


def test_without_npm_the_page_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "npm is not installed" in browser_demo.onnxruntime_web(tmp_path)
