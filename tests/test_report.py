"""The report: every state of the line, nothing of what is gone, nothing unescaped, no dead link.

Results are written here in the form that the stages write them; the oracle is what was written.
"""

from __future__ import annotations

import json
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np
import pytest

from pipeline import figures, report
from pipeline.evidence import Entry
from pipeline.stage import StageError

HOSTILE = "<script>alert('&')</script>|$x$"
CLASSIFIER, FORECASTER = "lenet5-digits", "tcn-waves"
RECIPES = {
    CLASSIFIER: {"arch": "lenet5", "data": {"set": "digits"}, "net": {}, "train": {"lr": 0.001}},
    FORECASTER: {"arch": "causal", "data": {"set": "waves"}, "net": {}, "train": {"lr": 0.01}},
}
STUDIES = {"dilation": {"claim": "The dilated stack sees < 100 steps."}}
STEPS = 6


def write(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content), encoding="utf-8")


def write_data(root: Path, name: str, task: str, labels: list[str]) -> None:
    """Counts by split; test images of which image i is filled with the grey value i."""
    data = {"task": task, "source": "digits", "train": 1137, "validation": 300, "test": 20, "hash": "ab12", "filled": 0}
    data |= {"licence": "CC0", "notes": []}
    if task == "classification":
        data |= {"labels": labels, "balance": {"train": {label: 7 for label in labels}}}
        (root / "out" / name / "data").mkdir(parents=True)
        images = np.broadcast_to(np.arange(20, dtype=np.uint8)[:, None, None, None], (20, 8, 8, 1))
        np.save(root / "out" / name / "data" / "test_x.npy", images)
    else:
        data["columns"] = labels
    write(root / "results" / name / "data.json", data)


def write_train(root: Path, name: str) -> None:
    rows = [{"epoch": e, "lr": 0.1, "train_loss": 1 / e, "validation_loss": 1.2 / e} for e in range(1, 6)]
    for row in rows if name == CLASSIFIER else []:
        row |= {"train_accuracy": 0.9, "validation_accuracy": 0.8}
    write(root / "out" / name / "train" / "history.json", rows)
    layers = [{"layer": "stem.conv", "type": "Conv2d", "output": [6, 28, 28], "parameters": 156}]
    write(root / "out" / name / "train" / "layers.json", layers)
    train = {"parameters": 61706, "macs": 423400, "epochs": 5, "best_epoch": 4}
    write(root / "results" / name / "train.json", train)


def write_check(root: Path, name: str, *, passed: bool = True) -> None:
    """The classifier's answers are right but for rows 3 and 5, wrong with probability .6 and .9."""
    rng = np.random.default_rng(0)
    (root / "out" / name / "check").mkdir(parents=True)
    row = {"provider": "CPUExecutionProvider", "input": "test", "batch": 1, "max_difference": 3e-7}
    row |= {"mean_difference": 1e-8, "limit": 1e-5, "passed": passed}
    metric = {"name": "accuracy", "value": 0.9, "low": 0.699, "high": 0.972, "n": 20, "torch": 0.9}
    if name == CLASSIFIER:
        row["top1_agreement"] = 1.0
        truth, probabilities = np.zeros(20, np.int64), np.tile(np.float32([0.8, 0.1, 0.1]), (20, 1))
        probabilities[3], probabilities[5] = [0.4, 0.6, 0], [0.05, 0.05, 0.9]
        arrays = {"y": truth, "probabilities": probabilities}
    else:
        metric |= {
            "name": "mse",
            "mae": 0.1,
            "mase": 0.5,
            "coverage": {"nominal": 0.8, "measured": 0.79},
            "by_step": [0.1] * STEPS,
        }
        metric["baselines"] = {"last value": 1.5, "seasonal naive": 0.7, "AR": 0.3}
        target = rng.normal(size=(5, STEPS, 2))
        arrays = {"context": rng.normal(size=(5, 60, 2)), "target": target, "forecast": target + 0.1}
        arrays["quantiles"] = target[..., None] + np.array([-1, 0, 1])
        arrays["quantile_levels"] = np.array([0.1, 0.5, 0.9])
    np.savez(root / "out" / name / "check" / "test.npz", **arrays)
    write(
        root / "results" / name / "check.json",
        {"passed": passed, "verdict": "differs by 3e-07", "rows": [row], "metric": metric},
    )
    speed = {"provider": row["provider"], "batch": 1, "p50_ms": 0.123, "p90_ms": 0.2, "p99_ms": 0.3}
    speed["per_second"] = 8130.1
    write(root / "results" / name / "speed.json", {"machine": {"cpu": "test CPU", "cores": 2}, "rows": [speed]})


def write_rest(root: Path, name: str) -> None:
    write(root / "results" / name / "export.json", {"bytes": 250_000, "nodes": 20, "opset": 20, "digest": "cd34"})
    infer = {"metric": "accuracy", "value": 0.9, "expected": 0.9, "n": 20, "rows_ok": 20, "rows_error": 0}
    infer["equal"] = True
    infer["example"] = {"input": "007/7.png", "output": "7 (0.990)"}
    write(root / "results" / name / "infer.json", infer)


def write_study(root: Path) -> None:
    (root / "results" / "studies").mkdir(parents=True)
    (root / "out" / "studies").mkdir(parents=True)
    csv = "study,setting,seed,measure,value\ndilation,plain,0,mse,1\ndilation,dilated,0,mse,2\n"
    (root / "results" / "studies" / "dilation.csv").write_text(csv)
    text = "# dilation\n\n| setting | mse |\n| --- | ---: |\n| plain | 1.0 ± .1 |\n| dilated | 2.0 |\n\nIt holds.\n"
    (root / "results" / "studies" / "dilation.md").write_text(text, encoding="utf-8")
    figures.enlarge(np.zeros((8, 8, 1), np.uint8), root / "out" / "studies" / "dilation.png", "")


def write_all(root: Path) -> None:
    """Both entries and the study, whole, each with a hostile label."""
    write_data(root, CLASSIFIER, "classification", [HOSTILE, "one", "two"])
    write_data(root, FORECASTER, "forecasting", ["y", HOSTILE])
    for name in RECIPES:
        write_train(root, name)
        write_check(root, name)
        write_rest(root, name)
    write_study(root)


def build(root: Path, line: tuple[str, ...] = tuple(RECIPES)) -> str:
    return report.build(list(line), RECIPES, STUDIES, root)


def page(root: Path, name: str = "index") -> str:
    return (root / "out" / "report" / f"{name}.html").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A root where everything is made and the report of it. Tests do not change it."""
    root = tmp_path_factory.mktemp("whole")
    write_all(root)
    (root / "table.txt").write_text(build(root), encoding="utf-8")
    return root


class Links(HTMLParser):
    """Collects what a page points at, its tags, its ids and its text."""

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


def check_links(site: Path) -> int:
    """Every target is a file of the folder, an anchor of the page, or data; return how many were followed."""
    followed = 0
    for path in site.glob("*.html"):
        links = Links(path.read_text(encoding="utf-8"))
        anchors = {f"#{attributes['id']}" for _, attributes in links.tags if "id" in attributes}
        for target in links.targets:
            assert target in anchors or target.startswith("data:") or (site / unquote(target)).is_file(), (path, target)
            followed += 1
    return followed


def test_nothing_made_shows_every_entry_pending_with_its_command(tmp_path: Path) -> None:
    text = build(tmp_path)
    for name in RECIPES:
        for stage in ("data", "train", "export", "check", "infer"):
            assert f">dvc repro {stage}@{name}</code>" in page(tmp_path, name)
        assert f">dvc repro infer@{name}</code>" in page(tmp_path)
        assert name in text
    assert "make study NAME=dilation" in page(tmp_path)
    assert check_links(tmp_path / "out" / "report") >= 4


def test_half_made_shows_what_is_there_and_asks_for_the_rest(tmp_path: Path) -> None:
    write_data(tmp_path, CLASSIFIER, "classification", ["a", "b", "c"])
    write_train(tmp_path, CLASSIFIER)
    build(tmp_path)
    index, entry = page(tmp_path), page(tmp_path, CLASSIFIER)
    assert "61,706" in index and "423 k" in index
    assert f'dvc repro infer@{CLASSIFIER}</code> <span class="quiet">(export, check, infer)' in index
    assert f"{CLASSIFIER}.curve-accuracy.png" in entry and f"dvc repro check@{CLASSIFIER}" in entry
    check_links(tmp_path / "out" / "report")


def test_all_made_shows_every_measurement(whole: Path) -> None:
    text = (whole / "table.txt").read_text(encoding="utf-8")
    index, classifier, forecaster = (page(whole, name) for name in ("index", CLASSIFIER, FORECASTER))
    assert "90.0 % [69.9, 97.2]" in index and "MSE 0.900 [0.699, 0.972]" in index and "0.123 ms" in index
    assert "dvc repro infer@" not in index and "test CPU" in index and "1.0 ± .1" in index and "It holds." in index
    assert "2 of 20 test images are answered wrongly" in classifier and "3.0e-07" in classifier
    assert "infer images lenet5-digits out/lenet5-digits/data/raw" in classifier and "6 × 28 × 28" in classifier
    assert "infer series tcn-waves out/tcn-waves/data/raw/*.csv" in forecaster and "7 (0.990)" in classifier
    assert (
        "79\u00a0% of the test targets lie inside the 80\u00a0% band" in forecaster and "seasonal naive" in forecaster
    )
    assert "90.0 % [69.9, 97.2]" in text and "0.123 ms" in text
    assert check_links(whole / "out" / "report") > 20


def test_pages_take_nothing_from_elsewhere_and_pictures_are_lazy_sized_and_described(whole: Path) -> None:
    for name in ("index", *RECIPES):
        assert "http:" not in page(whole, name) and "https:" not in page(whole, name)
    images = [tag for name in ("index", *RECIPES) for kind, tag in Links(page(whole, name)).tags if kind == "img"]
    assert len(images) == 2 + 1 + 4 + 3 + 2 + 2  # small curves, study, landscape, curves, mistakes, forecasts and steps
    for image in images:
        assert image["loading"] == "lazy" and int(image["width"]) > 0 and int(image["height"]) > 0 and image["alt"]


def test_the_most_wrong_sample_comes_first_with_its_own_image(whole: Path) -> None:
    """Row 5 is wrong with .9, row 3 with .6; every pixel of image i has the value i."""
    answers = Entry(CLASSIFIER, RECIPES[CLASSIFIER], whole).answers
    assert report.most_wrong(answers["y"], answers["probabilities"]).tolist() == [5, 3]
    for place, row in enumerate((5, 3)):
        with figures.Image.open(whole / "out" / "report" / "img" / f"{CLASSIFIER}.wrong{place:02d}.png") as image:
            assert image.size == (112, 112) and np.unique(np.asarray(image)).tolist() == [row]


def test_confusion_counts_by_true_row_and_answered_column() -> None:
    counts = report.confusion(np.array([0, 0, 1]), np.eye(3)[[0, 2, 1]])
    assert counts.tolist() == [[1, 0, 1], [0, 1, 0], [0, 0, 0]]
    assert report.frequent_confusions(counts, ["a", "b", "c"]) == [("a", "c", 1)]


def test_hostile_labels_stay_text(whole: Path) -> None:
    for name in RECIPES:
        html = Links(page(whole, name))
        assert HOSTILE in html.text or name == FORECASTER  # its column names stand in a picture only
        assert not [tag for tag, _ in html.tags if tag == "script"]


@pytest.mark.slow
def test_a_removed_entry_is_gone(tmp_path: Path) -> None:
    write_all(tmp_path)
    build(tmp_path)
    text = build(tmp_path, (CLASSIFIER,))
    site = tmp_path / "out" / "report"
    assert FORECASTER not in text + page(tmp_path) + (tmp_path / "results" / "README.md").read_text(encoding="utf-8")
    assert not [path for path in site.rglob("*") if FORECASTER in path.name]


@pytest.mark.slow
def test_readme_of_results_holds_only_what_repeats(whole: Path) -> None:
    readme = (whole / "results" / "README.md").read_text(encoding="utf-8")
    assert "| lenet5-digits | lenet5 | 90.0 % [69.9, 97.2] | 61,706 | 423 k | 250 kB | ✓ passed | ✓ yes |" in readme
    assert " ms" not in readme
    build(whole)
    assert (whole / "results" / "README.md").read_text(encoding="utf-8") == readme


def test_a_refused_entry_says_so(tmp_path: Path) -> None:
    write_data(tmp_path, CLASSIFIER, "classification", ["a", "b", "c"])
    write_check(tmp_path, CLASSIFIER, passed=False)
    build(tmp_path)
    assert "✗ failed" in page(tmp_path) and "The gate of stage check refuses this entry: differs by 3e-07" in page(
        tmp_path, CLASSIFIER
    )


def test_a_damaged_file_is_an_error_with_its_cure(tmp_path: Path) -> None:
    write_all(tmp_path)
    (tmp_path / "results" / CLASSIFIER / "train.json").write_text("{")
    with pytest.raises(StageError, match=r"train.json: expected JSON, .*dvc repro train@lenet5-digits"):
        build(tmp_path)
    write_train(tmp_path, CLASSIFIER)
    (tmp_path / "out" / CLASSIFIER / "check" / "test.npz").write_bytes(b"PK\3\4 half")
    with pytest.raises(StageError, match=r"test.npz: expected arrays .*dvc repro check@lenet5-digits"):
        build(tmp_path)


def test_forty_entries_and_as_many_classes(tmp_path: Path) -> None:
    """Names and classes at the size where layouts break; 41 classes list confusions instead of a matrix."""
    labels = [f"class {i}" for i in range(41)]
    write_data(tmp_path, CLASSIFIER, "classification", labels)
    write_check(tmp_path, CLASSIFIER)
    path = tmp_path / "out" / CLASSIFIER / "check" / "test.npz"
    np.savez(path, y=np.arange(20), probabilities=np.eye(41, dtype=np.float32)[np.arange(20) + 1])
    names = [CLASSIFIER, *[f"a-rather-long-architecture-name-{i:02d}-with-a-long-set" for i in range(39)]]
    report.build(names, {name: RECIPES[CLASSIFIER] for name in names}, {}, tmp_path)
    assert page(tmp_path).count('<th scope="row"') == 40
    assert "Most frequent confusions" in page(tmp_path, CLASSIFIER)
    assert '<table class="confusion' not in page(tmp_path, CLASSIFIER)


@pytest.mark.slow
def test_report_imports_neither_torch_nor_onnxruntime() -> None:
    """Law 11: the report is made where they are not installed."""
    blocked = "import sys; sys.modules.update(torch=None, onnxruntime=None, onnx=None); import pipeline.report"
    subprocess.run([sys.executable, "-c", blocked], check=True, cwd=Path(__file__).parents[1])
