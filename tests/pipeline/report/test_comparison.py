"""Data of the compare page: which entries are paired, their differences, and the pictures of the
test images on which they disagree.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from finished import CLASSIFIER, FORECASTER, HOSTILE, RECIPES, write_all, write_check, write_data
from PIL import Image

from pipeline.evaluate import paired
from pipeline.report import comparison, paired_images
from pipeline.report.result_files import Entry

LABELS = ["cat", "dog", "owl"]


def classifier(root: Path, name: str, classes: list[int], set_name: str = "digits") -> Entry:
    """A checked classifier of 20 test images, all of class 0, which predicts `classes` for the first
    ones with probability .7 and class 0 for the others.
    """
    write_data(root, name, "classification", LABELS)
    write_check(root, name)
    predicted = np.array([*classes, *[0] * (20 - len(classes))])
    probabilities = np.where(np.arange(3) == predicted[:, None], 0.7, 0.15).astype(np.float32)
    path = root / "out" / name / "check" / "test.npz"
    np.savez(path, y=np.zeros(20, np.int64), probabilities=probabilities)
    return Entry(name, RECIPES[CLASSIFIER].updated(data={"set": set_name}), root)


def forecaster(root: Path, name: str, errors: np.ndarray, target: float = 0.0) -> Entry:
    """A checked forecaster of windows with these mean squared errors (M,)."""
    write_data(root, name, "forecasting", ["y"])
    write_check(root, name)
    path = root / "out" / name / "check" / "test.npz"
    windows = {"rows": np.arange(3), "target": np.full((3, 4, 1), target)}
    np.savez(path, window_errors=errors.astype(np.float32), **windows)
    return change(Entry(name, RECIPES[FORECASTER], root), "data", test=len(errors))


def change(entry: Entry, file: str, **arrays: Any) -> Entry:
    """Overwrite arrays of an .npz file or keys of data.json; return the entry, read anew."""
    if file == "test":
        path = entry.root / "out" / entry.name / "check" / "test.npz"
        np.savez(path, **(dict(np.load(path)) | arrays))
    else:
        path = entry.root / "results" / entry.name / "data.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | arrays))
    return Entry(entry.name, entry.recipe, entry.root)


def names_of_groups(*entries: Entry) -> list[list[str]]:
    return [[e.name for e in group] for group in comparison.paired_groups([*entries])]


def test_entries_are_paired_only_if_their_test_images_are_the_same(tmp_path: Path) -> None:
    """Another set, other labels, another class list, another content: each has a group of its own.
    An entry that was not checked has none.
    """
    same = [classifier(tmp_path, name, []) for name in ("a", "b")]
    other_set = classifier(tmp_path, "other-set", [], "digits-high")
    moved = change(classifier(tmp_path, "moved", []), "test", y=np.arange(20) % 2)
    classes = change(classifier(tmp_path, "classes", []), "data", labels=["x", "y", "z"])
    content = change(classifier(tmp_path, "content", []), "data", hash="another")
    unchecked = Entry("unchecked", RECIPES[CLASSIFIER], tmp_path)
    groups = names_of_groups(*same, other_set, moved, classes, content, unchecked)
    assert groups == [["a", "b"], ["other-set"], ["moved"], ["classes"], ["content"]]


def test_raw_files_decide_where_arrays_differ_in_size(tmp_path: Path) -> None:
    """Two input sizes of the same files are paired; a file of other content is not."""
    entries = [classifier(tmp_path, name, []) for name in ("at8", "at32", "replaced")]
    for entry in entries:
        change(entry, "data", hash=entry.name)
        raw = tmp_path / "out" / entry.name / "data" / "raw" / "000"
        raw.mkdir(parents=True)
        (raw / "000000.png").write_bytes(b"a photo" if entry.name != "replaced" else b"another one")
    again = [Entry(entry.name, entry.recipe, tmp_path) for entry in entries]
    assert names_of_groups(*again) == [["at8", "at32"], ["replaced"]]


def test_forecasters_are_paired_only_on_the_same_windows(tmp_path: Path) -> None:
    """Other targets or another number of windows are not paired; without the errors of each window,
    which earlier versions of stage check did not record, there is no group.
    """
    one, two = (forecaster(tmp_path, name, np.ones(6)) for name in ("one", "two"))
    shifted = forecaster(tmp_path, "shifted", np.ones(6), target=1.0)
    shorter = forecaster(tmp_path, "shorter", np.ones(5))
    old = forecaster(tmp_path, "old", np.ones(6))
    path = tmp_path / "out" / "old" / "check" / "test.npz"
    np.savez(path, target=np.zeros((3, 4, 1)), rows=np.arange(3))
    assert names_of_groups(one, two, shifted, shorter, old) == [
        ["one", "two"],
        ["shifted"],
        ["shorter"],
    ]


def test_pairs_count_the_images_and_rows_are_those_on_which_any_two_disagree(
    tmp_path: Path,
) -> None:
    """Of 20 images of class 0, a is wrong on rows 0 and 1, b on rows 1 and 2, c on none. On row 1
    both predict class 1.
    """
    predicted = {"a": [2, 1], "b": [0, 1, 2], "c": []}
    entries = [classifier(tmp_path, name, classes) for name, classes in predicted.items()]
    (tmp_path / "img").mkdir()
    (data,) = comparison.comparison_data(entries, tmp_path / "img")["groups"]
    assert [pair[:4] for pair in data["pairs"]] == [[17, 1, 1, 1], [18, 0, 2, 0], [18, 0, 2, 0]]
    for pair in data["pairs"]:
        expected = (*paired.accuracy_difference(*pair[:4]), paired.mcnemar_p_value(*pair[1:3]))
        assert pair[4:] == pytest.approx(expected, rel=1e-5)
    assert data["rows"] == [0, 1, 2] and data["truth"] == [0, 0, 0] and data["n"] == 20
    assert data["classes"] == [[2, 1, 0], [0, 1, 2], [0, 0, 0]]
    assert data["percents"] == [[70, 70, 70]] * 3
    assert data["names"] == [f"{HOSTILE}/{row}.png" for row in range(3)]
    for name in predicted:
        (tmp_path / "out" / name / "data" / "test_names.json").unlink()
    entries = [Entry(entry.name, entry.recipe, tmp_path) for entry in entries]
    (data,) = comparison.comparison_data(entries, tmp_path / "img")["groups"]
    assert data["names"] == ["test image 0", "test image 1", "test image 2"]


def test_ratios_of_forecasters_are_of_row_over_column(tmp_path: Path) -> None:
    errors = np.random.default_rng(0).exponential(size=30)
    entries = [forecaster(tmp_path, name, factor * errors) for name, factor in (("a", 1), ("b", 4))]
    (group,) = comparison.comparison_data(entries, tmp_path)["groups"]
    assert group["entries"] == ["a", "b"] and group["n"] == 30
    assert group["ratios"][1][0] == pytest.approx([4, 4, 4], rel=1e-5)
    assert group["ratios"][0][1] == pytest.approx([0.25] * 3, rel=1e-5)


def test_a_forecaster_without_errors_divides_nothing(tmp_path: Path) -> None:
    """A ratio to an MSE of 0 is None, which JSON has, in place of infinity."""
    entries = [
        forecaster(tmp_path, "exact", np.zeros(6)),
        forecaster(tmp_path, "other", np.ones(6)),
    ]
    (group,) = comparison.comparison_data(entries, tmp_path)["groups"]
    assert group["ratios"] == [[None, [0.0, 0.0, 0.0]], [None, [1.0, 1.0, 1.0]]]


def test_pictures_are_of_the_largest_input_and_in_the_order_of_rows(tmp_path: Path) -> None:
    """Row i of "large" is filled with 10 i; tile k of the sprite is row `rows[k]`. Small inputs are
    PNG, exactly; larger ones JPEG, at most TILE_PX.
    """
    small, large = (
        classifier(tmp_path, name, classes) for name, classes in (("s", [1]), ("l", [0, 0, 0, 2]))
    )
    pixels = np.arange(20, dtype=np.uint8) * 10
    for side, suffix, shown in ((16, "png", 16), (300, "jpg", paired_images.TILE_PX)):
        images = np.broadcast_to(pixels[:, None, None, None], (20, side, side, 3))
        np.save(tmp_path / "out" / "l" / "data" / "test_x.npy", images)
        entries = [small, Entry("l", large.recipe, tmp_path)]
        sprite = paired_images.write_sprite(entries, np.array([0, 3]), tmp_path / "compare.0")
        assert sprite is not None and sprite["file"] == f"compare.0.{suffix}"
        assert (sprite["width"], sprite["height"], sprite["columns"], sprite["rows"]) == (
            shown,
            shown,
            2,
            1,
        )
        with Image.open(tmp_path / sprite["file"]) as sheet:
            values = np.asarray(sheet.convert("L"))[shown // 2, [shown // 2, shown + shown // 2]]
        assert values.tolist() == pytest.approx([0, 30], abs=0 if suffix == "png" else 2)


def test_more_pictures_than_allowed_are_drawn_evenly_and_counts_stay_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(paired_images, "MAX_PICTURES", 3)
    entries = [classifier(tmp_path, "a", [1] * 9), classifier(tmp_path, "b", [])]
    (tmp_path / "img").mkdir()
    (data,) = comparison.comparison_data(entries, tmp_path / "img")["groups"]
    assert len(data["rows"]) == 9 and data["pairs"][0][:4] == [11, 0, 9, 0]
    assert data["pictured"] == [0, 4, 8]
    assert [len(of) for of in (data["names"], *data["percents"])] == [3, 3, 3]


def test_twenty_entries_of_ten_thousand_images_stay_below_a_megabyte(tmp_path: Path) -> None:
    """Accuracies of 85 %: the data of the page grow with the images on which entries disagree."""
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 10, 10_000)
    entries = []
    for k in range(20):
        entry = classifier(tmp_path, f"entry-{k}", [])
        wrong = rng.random(10_000) < 0.15
        predicted = np.where(wrong, rng.integers(0, 10, 10_000), truth)
        probabilities = np.eye(10, dtype=np.float32)[predicted]
        change(entry, "data", test=10_000, labels=[str(k) for k in range(10)])
        entries.append(change(entry, "test", y=truth, probabilities=probabilities))
        for file in ("test_x.npy", "test_names.json"):
            (tmp_path / "out" / entry.name / "data" / file).unlink()
    (tmp_path / "img").mkdir()
    comparison.write_comparison(entries, tmp_path)
    size = (tmp_path / comparison.DATA_FILE).stat().st_size
    assert 2e5 < size < 1e6, size


def test_nothing_made_has_entries_and_no_group(tmp_path: Path) -> None:
    entries = [Entry(name, RECIPES[name], tmp_path) for name in RECIPES]
    data = comparison.comparison_data(entries, tmp_path)
    assert data["groups"] == [] and list(data["entries"]) == list(RECIPES)
    assert data["entries"][CLASSIFIER]["pending"] == f"dvc repro check@{CLASSIFIER}"


def test_calibration_error_has_a_row_where_it_was_measured(tmp_path: Path) -> None:
    write_all(tmp_path)
    path = tmp_path / "results" / CLASSIFIER / "check.json"
    checked = json.loads(path.read_text())
    path.write_text(
        json.dumps(checked | {"metric": checked["metric"] | {"calibration_error": 0.0123}})
    )
    entries = [Entry(name, RECIPES[name], tmp_path) for name in RECIPES]
    (tmp_path / "img").mkdir()
    known = comparison.comparison_data(entries, tmp_path / "img")["entries"]
    assert known[CLASSIFIER]["cells"]["Calibration error"][0] == "0.0123"
    assert known[FORECASTER]["cells"]["Calibration error"][0] == "–"
