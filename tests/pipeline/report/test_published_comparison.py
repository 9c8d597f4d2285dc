"""The comparison with the literature: the data of the pictures are measured or published."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from finished import CLASSIFIER, RECIPES

from pipeline.report import published_comparison
from pipeline.report.result_files import Entry

METRIC = {"name": "accuracy", "value": 0.9, "low": 0.85, "high": 0.93}
FILES = {
    "train": {"parameters": 61706, "macs": 423400},
    "check": {"metric": METRIC, "variants": {}},
    "speed": {
        "rows": [
            {"device": "cpu", "variant": "fp32", "batch": n, "p50_ms": 0.125 * n} for n in (1, 8)
        ]
    },
}
OURS = ["lenet5", "digits", 61706, 423400]


def made(root: Path, name: str, **changed: dict | None) -> Entry:
    """Return an entry with FILES in its results; `changed` replaces one, None leaves it out."""
    (root / "results" / name).mkdir(parents=True)
    for file, content in (FILES | changed).items():
        if content is not None:
            (root / "results" / name / f"{file}.json").write_text(json.dumps(content))
    return Entry(name, RECIPES[CLASSIFIER], root)


def values(networks: list[published_comparison.Bubble]) -> list[list]:
    return [
        [found[key] for key in ("name", "set", "parameters", "macs", "y", "low", "high")]
        for found in networks
    ]


def test_each_measured_classifier_is_a_bubble_with_its_own_numbers(tmp_path: Path) -> None:
    """The files are written here.

    A forecaster, and entries that are not trained or checked yet, are left out.
    """
    forecaster = made(tmp_path, "tcn", check={"metric": METRIC | {"name": "mse"}, "variants": {}})
    pending = [made(tmp_path, "a", train=None), made(tmp_path, "b", check=None)]
    entries = [made(tmp_path, "lenet5"), forecaster, *pending, made(tmp_path, "slow", speed=None)]
    ours, slow = values(published_comparison.accuracy_bubbles(entries))
    assert ours == [*OURS, 90, 85, 93] and slow[0] == "slow"
    assert values(published_comparison.latency_bubbles(entries)) == [[*OURS, 0.125, 0.125, 0.125]]
    drawn = published_comparison.draw_comparison(entries, tmp_path)
    assert {path.name for path in tmp_path.glob("*.png")} == {
        picture.file for picture in drawn.values()
    }
    assert list(drawn) == ["accuracy", "published", "latency", "depth"]
    assert (
        "on the test split of digits" in drawn["accuracy"].alt
        and "lenet5 with 90 at 423 k" in drawn["accuracy"].alt
    )
    assert list(published_comparison.draw_comparison(entries[4:], tmp_path)) == [
        "accuracy",
        "published",
        "depth",
    ]


def test_no_picture_without_a_classifier(tmp_path: Path) -> None:
    """An empty line, and one of only pending entries, have nothing to compare with the literature."""
    assert (
        published_comparison.draw_comparison([], tmp_path)
        == published_comparison.draw_comparison([made(tmp_path, "a", train=None)], tmp_path)
        == {}
    )
    assert not list(tmp_path.glob("*.png"))


def test_depth_and_error_are_those_of_the_notes() -> None:
    """The notes print 8, 19, 22 and 152 layers; 15.3 % is the winning entry of 2012, 3.57 % that of
    2015.
    """
    rows = {row[0]: row[1:4] for row in published_comparison.ilsvrc_rows()}
    assert rows["AlexNet"] == [2012, 8, 15.3] and rows["ResNet-152"] == [2015, 152, 3.57]
    assert [rows[name][1] for name in ("ZFNet", "VGG-19", "GoogLeNet", "NEC-UIUC")] == [
        8,
        19,
        22,
        "shallow",
    ]
    assert [row[1] for row in published_comparison.ilsvrc_rows()] == sorted(
        row[1] for row in published_comparison.ilsvrc_rows()
    )


@pytest.mark.slow
def test_published_numbers_are_torchvisions() -> None:
    """The metadata of torchvision's IMAGENET1K_V1 weights; `_ops` are multiply-adds, 4.09 G in
    ResNet-50.
    """
    models = pytest.importorskip("torchvision.models")
    for name, row in published_comparison.PUBLISHED["imagenet"].items():
        meta = models.get_model_weights(name).IMAGENET1K_V1.meta
        top1 = meta["_metrics"]["ImageNet-1K"]["acc@1"]
        assert row == {"parameters": meta["num_params"], "gmacs": meta["_ops"], "top1": top1}, name
    assert published_comparison.PUBLISHED["imagenet"]["resnet50"]["gmacs"] == pytest.approx(
        4.09, abs=0.005
    )
