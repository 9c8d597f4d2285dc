"""The report: every state of the line, no removed entries, everything escaped, no dead link.

The results are written here in the form that the stages write them.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import psutil
import pytest
from finished import (
    CLASSIFIER,
    FORECASTER,
    HOSTILE,
    RECIPES,
    STUDIES,
    write_all,
    write_check,
    write_data,
    write_train,
)

from pipeline.core.errors import StageError
from pipeline.params import schema
from pipeline.plots import style
from pipeline.report import error_analysis, mistakes, tradeoff_plots
from pipeline.report import pages as report
from pipeline.report.result_files import Entry

LIBRARY = {"src": "vega.js", "defer": None}


def build(root: Path, line: tuple[str, ...] = tuple(RECIPES)) -> str:
    """Make the report; return its table of entries as text."""
    page = report.build_report(list(line), RECIPES, STUDIES, root)
    return page.with_name("table.txt").read_text(encoding="utf-8")


def page(root: Path, name: str = "index") -> str:
    return (root / "out" / "report" / f"{name}.html").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A root in which everything is made, with the report of it. Tests do not change it."""
    root = tmp_path_factory.mktemp("whole")
    write_all(root)
    (root / "table.txt").write_text(build(root), encoding="utf-8")
    return root


# Charts that are drawn in this process have started threads, so tests of the pool fork from another.
FORKING = """
import os, signal, subprocess, time
from datetime import datetime
from pathlib import Path
from types import SimpleNamespace

import psutil
from finished import RECIPES, STUDIES
from pipeline.core.errors import StageError
from pipeline.report import pages
from pipeline.report.__main__ import in_processes

def cores(count):
    os.sched_getaffinity = lambda process: set(range(count))

def build(root, each):
    return pages.build_report(list(RECIPES), RECIPES, STUDIES, Path(root), "small", each).parent

cores(2)
pages.datetime = SimpleNamespace(now=lambda: datetime(2026, 1, 2))  # the bytes of pages repeat
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it
"""


def start(code: str) -> subprocess.Popen[str]:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", FORKING + code]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env=environment, start_new_session=True
    )


def printed(code: str) -> str:
    process = start(code)
    output = process.communicate(timeout=300)[0]
    assert process.returncode == 0
    return output


def test_parts_are_written_in_processes_as_in_one(tmp_path: Path) -> None:
    write_all(tmp_path)
    code = f"""
def files(each):
    folders = build({str(tmp_path)!r}, each), Path({str(tmp_path)!r}, "results")
    paths = [path for folder in folders for path in folder.rglob("*") if path.is_file()]
    return {{str(path): path.read_bytes() for path in paths}}

ours, expected = files(in_processes), files(map)
assert len(ours) > 20 and ours.keys() == expected.keys()
print([path for path in ours if ours[path] != expected[path]])
"""
    assert printed(code) == "[]\n"


def test_there_are_no_more_processes_than_cores_and_parts() -> None:
    """A core or a part alone has none but the first, which has read the entries' files already."""
    code = """
def count(cores_, parts):
    cores(cores_)
    first = next(running := in_processes(process, range(parts)))
    print(len(psutil.Process().children()), first == os.getpid())
    list(running)

def process(part):
    return os.getpid()

count(2, 3), count(8, 2), count(1, 3), count(8, 1)
"""
    assert printed(code) == "2 False\n2 False\n0 True\n0 True\n"


def test_an_error_in_a_process_is_that_of_the_report(tmp_path: Path) -> None:
    """And a process that ends without a word is one sentence."""
    damaged_file = tmp_path / "results" / FORECASTER / "train.json"
    damaged_file.parent.mkdir(parents=True)
    damaged_file.write_text("{")
    code = f"""
def fail(work):
    try:
        work()
    except StageError as error:
        print(error)

fail(lambda: build({str(tmp_path)!r}, in_processes))
fail(lambda: list(in_processes(os._exit, [1, 1])))
"""
    damaged, ended = printed(code).splitlines()
    assert "train.json: expected JSON, got " in damaged
    assert damaged.endswith(f"`dvc repro train@{FORECASTER}`")
    assert ended == (
        "report: a process that writes pages was ended by a signal (out of memory?);"
        " free some memory, and run it again"
    )


@pytest.mark.parametrize(
    ("end", "work", "count"),
    [
        (signal.SIGKILL, "time.sleep, [0, 600]", 2),  # one of them waits at the queue
        (signal.SIGINT, "subprocess.run, [['sleep', '600']] * 2", 4),  # as npm may wait
    ],
)
def test_processes_end_with_the_report(end: signal.Signals, work: str, count: int) -> None:
    """After the first one is killed, and at Ctrl-C, which its group hears, with what they run."""
    process = start(f"list(in_processes({work}))")
    ours, deadline = list[psutil.Process](), time.monotonic() + 60
    try:
        while len(ours) < count and time.monotonic() < deadline:
            time.sleep(0.05)
            ours = psutil.Process(process.pid).children(recursive=True)
        assert len(ours) == count
        (os.kill if end == signal.SIGKILL else os.killpg)(process.pid, end)
        assert process.wait(60) != 0
        assert not psutil.wait_procs(ours, timeout=20)[1]
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


class Links(HTMLParser):
    """Collects the targets, tags, ids and text of a page."""

    def __init__(self, html: str):
        super().__init__()
        self.targets: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self.targets += [value for key, value in attrs if key in ("href", "src") and value]

    def handle_data(self, data: str) -> None:
        self.text += data


def test_a_line_that_was_checked_on_a_gpu_alone(tmp_path: Path) -> None:
    """With `check.devices: [cuda]` the files' rows and the latency are CUDA's; the CPU's picture is
    not drawn.
    """
    write_all(tmp_path)
    for name in RECIPES:
        for file in ("check", "speed"):
            path = tmp_path / "results" / name / f"{file}.json"
            found = json.loads(path.read_text().replace('"cpu"', '"cuda"'))
            if file == "speed":
                found["machine"] = {"cpu": "test CPU", "gpu": "test GPU"}
                placed = {"CUDAExecutionProvider": 18, "CPUExecutionProvider": 2}
                found["files"][0] |= {
                    "placement": placed,
                    "on_cpu": ["SVMClassifier"],
                    "cuda_graph": False,
                }
            path.write_text(json.dumps(found))
    assert "CUDA\u00a0p50, batch\u00a01" in build(tmp_path)
    files = page(tmp_path, "model_files")
    assert ">CUDA</td>" in files and ">CPU</td>" not in files
    assert not (tmp_path / "out" / "report" / "img" / "verdict.fronts.png").exists()
    assert "18 by CUDA, 2 by CPU (SVMClassifier); no CUDA graph" in page(tmp_path, CLASSIFIER)


def check_links(site: Path) -> int:
    """Assert that every target is a file of the folder, an anchor of the page, or data; return how
    many there are.
    """
    pages = {path.name: Links(path.read_text(encoding="utf-8")) for path in site.glob("*.html")}
    ids = {
        name: {attributes.get("id") for _, attributes in page.tags} for name, page in pages.items()
    }
    ids["compare.html"] |= {name.removesuffix(".html") for name in pages}  # its script reads them
    followed = 0
    for name, page in pages.items():
        for target in page.targets:
            file, _, anchor = unquote(target).partition("#")
            assert target.startswith("data:") or (site / (file or name)).is_file(), (name, target)
            assert not anchor or anchor in ids[file or name], (name, target)
            followed += 1
    return followed


def test_nothing_made_shows_every_entry_pending_with_its_command(tmp_path: Path) -> None:
    text = build(tmp_path)
    for name in RECIPES:
        for stage in ("data", "train", "export", "check", "explain", "infer"):
            assert f">dvc repro {stage}@{name}</code>" in page(tmp_path, name)
        assert f">dvc repro explain@{name} infer@{name}</code>" in page(tmp_path)
        assert name in text
    for name in ("studies", "study_dilation"):
        assert "make study NAME=dilation" in page(tmp_path, name)
    assert check_links(tmp_path / "out" / "report") >= 4


def test_half_made_shows_what_is_there_and_asks_for_the_rest(tmp_path: Path) -> None:
    write_data(tmp_path, CLASSIFIER, "classification", ["a", "b", "c"])
    write_train(tmp_path, CLASSIFIER)
    build(tmp_path)
    index, entry = page(tmp_path), page(tmp_path, CLASSIFIER)
    assert "61,706" in index and "423 k" in index
    assert f"dvc repro explain@{CLASSIFIER} infer@{CLASSIFIER}</code>" in index
    assert '<span class="quiet">(export, check, explain, infer)' in index
    assert f"{CLASSIFIER}.curve-accuracy.png" in entry and f"dvc repro check@{CLASSIFIER}" in entry
    check_links(tmp_path / "out" / "report")


def test_all_made_shows_every_measurement(whole: Path) -> None:
    text = (whole / "table.txt").read_text(encoding="utf-8")
    index, classifier, forecaster = (
        page(whole, name) for name in ("index", CLASSIFIER, FORECASTER)
    )
    assert ">0.9000 [0.6990,\u00a00.9720]</td>" in index and "0.123 ms" in index
    assert "dvc repro infer@" not in index
    study, files = page(whole, "study_dilation"), page(whole, "model_files")
    assert "1.0 ± .1" in study and "It holds." in study and "2 runs" in study
    assert "img/study_dilation.png" in study
    assert "test CPU" in files and "? undecided" not in files and "✓ recommended" in files
    assert "2 of 20 test images are classified wrongly" in classifier and "3.0e-07" in classifier
    assert (
        "infer images lenet5-digits out/lenet5-digits/data/raw" in classifier
        and "6 × 28 × 28" in classifier
    )
    assert (
        "infer series tcn-waves out/tcn-waves/data/raw/*.csv" in forecaster
        and "7 (0.990)" in classifier
    )
    assert "Accuracy 0.9000 [0.6990, 0.9720]" in classifier
    assert "79 % [70, 88] of the test targets in the 80 % interval" in forecaster
    assert (
        "Other precisions" in classifier and "Other precisions" not in forecaster
    )  # there are none
    assert (
        "ETS (A,N,N)" in forecaster
        and "2.000 [1.500, 2.500]" in forecaster
        and "79.0 % [70.0, 88.0]" in forecaster
    )
    assert "0.9000 [0.6990, 0.9720]" in text and "0.123 ms" in text
    assert check_links(whole / "out" / "report") > 20


def test_explanations_are_shown_and_what_fails_its_check_is_marked(whole: Path) -> None:
    classifier, forecaster = (page(whole, f"{name}.explain") for name in (CLASSIFIER, FORECASTER))
    assert "1.00 → 0.90 → 0.50</td>" in classifier and "✗ fails its sanity check" in classifier
    assert (
        "0.20 (+0.30 [+0.10, +0.50])" in classifier
        and "4 images of which one half is replaced by noise" in classifier
    )
    quality = page(whole, "explanation_quality")
    assert ">guided backpropagation</td>" in quality and ">0.80</td>" in quality
    assert "3.1 %" in quality
    for name, text in ((CLASSIFIER, classifier), (FORECASTER, forecaster)):
        assert f"img/{name}.attribution.png" in text
        assert "<figcaption>&lt;script&gt;" in text


def test_a_missing_picture_of_explain_is_pending(tmp_path: Path) -> None:
    """A clone has results/ from git and no out/: the page asks for the stage and has no dead link."""
    write_all(tmp_path)
    (tmp_path / "out" / CLASSIFIER / "explain" / "attribution.png").unlink()
    build(tmp_path)
    for name in (CLASSIFIER, f"{CLASSIFIER}.explain"):
        assert f"dvc repro explain@{CLASSIFIER}" in page(tmp_path, name)
    check_links(tmp_path / "out" / "report")


def test_pages_take_nothing_from_elsewhere_and_pictures_are_lazy_sized_and_described(
    whole: Path,
) -> None:
    pages = ("index", "model_files", "explanation_quality", "studies", "study_dilation", "metrics")
    for name in (*pages, "compare", "claims", "live", "inside", *RECIPES):
        assert "http:" not in page(whole, name) and "https:" not in page(whole, name)
    images = [
        tag
        for name in (*pages, *RECIPES)
        for kind, tag in Links(page(whole, name)).tags
        if kind == "img"
    ]
    # small curves, study twice, verdict, landscape; of entries curves, noise, four charts of a classifier,
    # two mistakes each beside a right image, four of the backtest, one of explain
    assert len(images) == 2 + 2 + 2 + 4 + 3 + 1 + 4 + 2 * 2 + 4 + 2
    for image in images:
        assert (
            image["loading"] == "lazy"
            and int(image["width"]) > 0
            and int(image["height"]) > 0
            and image["alt"]
        )


def test_the_most_wrong_sample_comes_first_with_its_own_image(whole: Path) -> None:
    """Row 5 is wrong with .9, row 3 with .6; every pixel of image i has the value i."""
    answers = Entry(CLASSIFIER, RECIPES[CLASSIFIER], whole).predictions
    assert mistakes.most_confident_errors(answers["y"], answers["probabilities"]).tolist() == [5, 3]
    for row in (5, 3):
        with style.Image.open(
            whole / "out" / "report" / "img" / f"{CLASSIFIER}.test{row}.png"
        ) as image:
            assert image.size == (112, 112) and np.unique(np.asarray(image)).tolist() == [row]


def test_confusion_counts_by_true_row_and_predicted_column() -> None:
    counts = error_analysis.confusion_matrix(np.array([0, 0, 1]), np.eye(3)[[0, 2, 1]])
    assert counts.tolist() == [[1, 0, 1], [0, 1, 0], [0, 0, 0]]
    assert error_analysis.frequent_confusions(counts, ["a", "b", "c"]) == [("a", "c", 1)]


def test_hostile_labels_stay_text(whole: Path) -> None:
    for name in RECIPES:
        html = Links(page(whole, name))
        assert (
            HOSTILE in html.text or name == FORECASTER
        )  # its column names stand in a picture only
        assert f"{HOSTILE}/5.png" in html.text or name == FORECASTER  # the name of a file
        scripts = [attributes for tag, attributes in html.tags if tag == "script"]
        assert [found for found in scripts if found.get("type") != "application/json"] == [
            LIBRARY,
            {},
        ]


@pytest.mark.slow
def test_a_removed_entry_is_gone(tmp_path: Path) -> None:
    write_all(tmp_path)
    build(tmp_path)
    text = build(tmp_path, (CLASSIFIER,))
    site = tmp_path / "out" / "report"
    assert FORECASTER not in text + page(tmp_path) + (tmp_path / "results" / "README.md").read_text(
        encoding="utf-8"
    )
    assert not [path for path in site.rglob("*") if FORECASTER in path.name]


@pytest.mark.slow
def test_readme_of_results_holds_only_what_repeats(whole: Path) -> None:
    readme = (whole / "results" / "README.md").read_text(encoding="utf-8")
    facts = "0.9000 [0.6990, 0.9720] | digits | lenet5 | 61,706 | 250 kB | 0.8500 | –"
    assert f"| lenet5-digits | {facts} |\n" in readme
    assert " ms" not in readme and "✗" not in readme.partition("| Entry")[2]
    build(whole)
    assert (whole / "results" / "README.md").read_text(encoding="utf-8") == readme


def test_an_entry_that_failed_its_check_is_marked(tmp_path: Path) -> None:
    write_data(tmp_path, CLASSIFIER, "classification", ["a", "b", "c"])
    write_check(tmp_path, CLASSIFIER, passed=False)
    build(tmp_path)
    assert "✗ check failed" in page(
        tmp_path
    ) and "Stage check refuses this entry: differs by 3e-07" in page(tmp_path, CLASSIFIER)


def test_an_entry_worse_than_its_baseline_says_so_on_the_index_and_on_its_page(
    tmp_path: Path,
) -> None:
    """The sentence of check.json is shown, escaped; the other entry, which is better, has no mark."""
    write_all(tmp_path)
    sentences = {
        FORECASTER: (False, "worse than <ETS>: ship the baseline? MASE 2 against 1, 2.00 times"),
        CLASSIFIER: (True, "better than always predicting 'one'"),
    }
    for name, (better, sentence) in sentences.items():
        path = tmp_path / "results" / name / "check.json"
        found = json.loads(path.read_text())
        found["against_baseline"] = {"better": better, "sentence": sentence}
        path.write_text(json.dumps(found))
    text = build(tmp_path)
    index, entry = Links(page(tmp_path)), Links(page(tmp_path, FORECASTER))
    assert f"{FORECASTER}: {sentences[FORECASTER][1]}" in index.text
    head = entry.text.partition("Test metric")[0]
    assert "✗ Worse than <ETS>: ship the baseline? MASE 2 against 1, 2.00 times." in head
    assert (
        "✗ 0.9000" in text and "✗ 0.9000" in index.text and "✗ 0.9000" not in text.split("\n\n")[0]
    )
    assert sentences[CLASSIFIER][1] not in index.text + page(tmp_path, CLASSIFIER)
    readme = (tmp_path / "results" / "README.md").read_text(encoding="utf-8")
    assert "| tcn-waves | ✗ 0.9000 [" in readme and "✗: a metric that is no better" in readme


def test_the_page_shows_the_season_that_was_taken(tmp_path: Path) -> None:
    """The season is that of data.json; the recipe leaves it open."""
    write_all(tmp_path)
    path = tmp_path / "results" / FORECASTER / "data.json"
    reason = {"season": 12, "season_from": "a year, as there is a row every month"}
    path.write_text(json.dumps(json.loads(path.read_text()) | reason))
    spec = schema.CsvSet(source="csv", path="air.csv", licence="own")
    recipe = RECIPES[FORECASTER].updated(data={"spec": spec})
    report.build_report([FORECASTER], {FORECASTER: recipe}, {}, tmp_path)
    text = Links(page(tmp_path, FORECASTER)).text
    assert "12 rows: a year, as there is a row every month" in text
    assert '"season": 12' in text and '"season": null' not in text


def test_a_failed_test_is_a_line_below_the_table_of_the_readme(tmp_path: Path) -> None:
    """README.md has no column of the two tests, so a failure must be a sentence; `make readme`
    copies it with the table.
    """
    write_all(tmp_path)
    for name, stage, failed in (
        (CLASSIFIER, "check", {"passed": False}),
        (FORECASTER, "infer", {"equal": False}),
    ):
        path = tmp_path / "results" / name / f"{stage}.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | failed))
    build(tmp_path)
    (tmp_path / "docs").mkdir()
    for name, marks in (
        ("README.md", report.README_MARKS),
        ("docs/lecture-notes.md", report.CLAIMS_MARKS),
    ):
        (tmp_path / name).write_text(f"before\n\n{marks[0]}\nold\n{marks[1]}\n\nafter\n")
    report.update_docs(tmp_path)
    readme = (tmp_path / "README.md").read_text(encoding="utf-8")
    before, *tables, one, other, after = readme.split("\n\n")[1:-1]
    assert (before, after) == report.README_MARKS
    sentences, titles = [one, other], ["### Classification", "### Forecasting"]
    assert tables[::2] == titles and all(table.startswith("| Entry |") for table in tables[1::2])
    assert sentences == [
        "**✗ lenet5-digits**: stage check refused it: differs by 3e-07.",
        "**✗ tcn-waves** (Served = trained): the packaged command does not reach the checked"
        " metric.",
    ]


def test_a_damaged_file_is_an_error_with_its_cure(tmp_path: Path) -> None:
    write_all(tmp_path)
    (tmp_path / "results" / CLASSIFIER / "train.json").write_text("{")
    with pytest.raises(
        StageError, match=r"train.json: expected JSON, .*dvc repro train@lenet5-digits"
    ):
        build(tmp_path)
    write_train(tmp_path, CLASSIFIER)
    (tmp_path / "out" / CLASSIFIER / "check" / "test.npz").write_bytes(b"PK\3\4 half")
    with pytest.raises(
        StageError, match=r"test.npz: expected arrays .*dvc repro check@lenet5-digits"
    ):
        build(tmp_path)


def test_forty_entries_and_forty_one_classes(tmp_path: Path) -> None:
    """Many names and classes, at which layouts break; 41 classes list confusions in place of a
    matrix.
    """
    labels = [f"class {i}" for i in range(41)]
    write_data(tmp_path, CLASSIFIER, "classification", labels)
    write_check(tmp_path, CLASSIFIER)
    path = tmp_path / "out" / CLASSIFIER / "check" / "test.npz"
    np.savez(path, y=np.arange(20), probabilities=np.eye(41, dtype=np.float32)[np.arange(20) + 1])
    names = [
        CLASSIFIER,
        *[f"a-rather-long-architecture-name-{i:02d}-with-a-long-set" for i in range(39)],
    ]
    report.build_report(names, {name: RECIPES[CLASSIFIER] for name in names}, {}, tmp_path)
    assert page(tmp_path).count('<th scope="row"') == 40
    assert page(tmp_path, "model_files").count('<th scope="row"') == 2  # of the one that is checked
    assert "Most frequent confusions" in page(tmp_path, CLASSIFIER)
    assert '<table class="confusion' not in page(tmp_path, CLASSIFIER)


@pytest.mark.slow
def test_report_imports_neither_torch_nor_onnxruntime() -> None:
    """The report is made on machines where they are not installed."""
    blocked = "import sys; sys.modules.update(torch=None, onnxruntime=None, onnx=None); import pipeline.report"
    subprocess.run([sys.executable, "-c", blocked], check=True, cwd=Path(__file__).parents[3])


def test_nodes_that_a_precision_merges_have_a_place_between() -> None:
    """int8 has conv_q where fp16 has conv and relu; each order rises along the axis."""
    graphs = [
        {"a": 1.0, "conv": 1.0, "relu": 1.0, "end": 1.0},
        {"a": 1.0, "conv_q": 1.0, "end": 1.0},
    ]
    assert tradeoff_plots.node_positions(graphs) == {
        "a": 0,
        "conv": 1,
        "relu": 2,
        "end": 3,
        "conv_q": 0.5,
    }
