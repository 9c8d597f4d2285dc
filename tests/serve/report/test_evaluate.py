"""`infer evaluate`: metrics equal counts by hand, and everything that they leave out is reported."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tiny
from convline.report.confidence_interval import wilson_interval
from infer_command import infer
from PIL import Image


def evaluated(*arguments: str | Path) -> dict:
    result = infer("evaluate", *arguments, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


@pytest.fixture
def classes(tmp_path: Path) -> Path:
    """A folder of class folders: 3 dark, 2 middle of which one is bright, 1 bright; and an
    unreadable file.
    """
    root = tmp_path / "classes"
    images = {
        "dark/a": 0,
        "dark/b": 0,
        "dark/deep/c": 0,
        "middle/a": 120,
        "middle/b": 255,
        "bright/a": 255,
    }
    for name, grey in images.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (8, 8), grey).save(root / f"{name}.png")
    (root / "bright" / "cut.png").write_bytes((root / "dark" / "a.png").read_bytes()[:45])
    return root


def check_figures(report: dict) -> None:
    """Assert that 5 of 6 are right: a bright image is in `middle`, and the seventh cannot be read."""
    low, high = wilson_interval(5, 6)
    assert report["accuracy"] == pytest.approx(
        {"value": 5 / 6, "low": low, "high": high, "right": 5, "n": 6}
    )
    found = {
        c["label"]: (c["images"], c["recall"], c["answers"], c["precision"])
        for c in report["classes"]
    }
    assert found == {"dark": (3, 1, 3, 1), "middle": (2, 0.5, 1, 1), "bright": (1, 1, 2, 0.5)}
    assert report["confusions"] == [{"true": "middle", "predicted": "bright", "images": 1}]
    assert [Path(one["path"]).name for one in report["unread"]] == [
        "cut.png"
    ] and "top_5" not in report


def test_accuracy_of_class_folders(classifier: Path, classes: Path) -> None:
    """Counted by hand in check_figures.

    The unreadable file is named, and --strict fails because of it.
    """
    check_figures(evaluated(classifier, classes))
    shown = infer("evaluate", classifier, classes, "--strict")
    assert shown.exit_code == 3 and "5 of 6" in shown.stdout and "not evaluated: 1" in shown.stdout
    assert "cut.png" in shown.stdout


def test_accuracy_of_a_labels_file(classifier: Path, classes: Path, tmp_path: Path) -> None:
    """The same images by a list, from another working directory than its own."""
    names = sorted(path.relative_to(tmp_path) for path in classes.rglob("*.png"))
    (tmp_path / "labels.csv").write_text(
        "label,path\n" + "".join(f"{n.parts[1]},{n}\n" for n in names)
    )
    check_figures(evaluated(classifier, "--labels", tmp_path / "labels.csv"))


def test_labels_in_another_encoding_are_named(classifier: Path, tmp_path: Path) -> None:
    """Excel's Unicode text, made by Python's encoder; the message says how it becomes a CSV."""
    (tmp_path / "labels.csv").write_text("path,label\na.png,dark\n", encoding="utf-16")
    failed = infer("evaluate", classifier, "--labels", tmp_path / "labels.csv")
    assert (
        failed.exit_code == 1 and "got UTF-16 or a binary file; save it as UTF-8" in failed.stderr
    )


def test_evaluate_takes_the_column_options(
    make_forecaster: Callable[..., Path], classifier: Path, classes: Path, tmp_path: Path
) -> None:
    """The report equals that of the same rows under the model's own names and signs."""
    days = [f"2024-03-{day:02}" for day in range(1, 21)]
    (tmp_path / "own.csv").write_text(
        "ds,y\n" + "".join(f"{day},{n}.5\n" for n, day in enumerate(days))
    )
    (tmp_path / "other.csv").write_text(
        "day|shop|sales\n" + "".join(f"{d}|a|{n},5\n" for n, d in enumerate(days))
    )
    names = (
        "--time",
        "day",
        "--id",
        "shop",
        "--target",
        "sales",
        "--delimiter",
        "|",
        "--decimal",
        ",",
    )
    model = make_forecaster()
    own, other = (
        evaluated(model, tmp_path / "own.csv"),
        evaluated(model, tmp_path / "other.csv", *names),
    )
    assert own == other and own["windows"] > 1
    wrong = infer("evaluate", classifier, classes, "--target", "y")
    assert wrong.exit_code == 2 and "are for files of series" in wrong.stderr


@pytest.mark.parametrize("place", ["../secret.png", "{}/secret.png", "link.png"])
def test_paths_outside_of_the_labels_folder_are_not_read(
    classifier: Path, tmp_path: Path, place: str
) -> None:
    """A valid image outside, by a relative path, an absolute one and a link, is listed as not read."""
    Image.new("L", (8, 8), 0).save(tmp_path / "secret.png")
    root = tmp_path / "set"
    root.mkdir()
    (root / "link.png").symlink_to(tmp_path / "secret.png")
    Image.new("L", (8, 8), 0).save(root / "a.png")
    (root / "labels.csv").write_text(f"path,label\na.png,dark\n{place.format(tmp_path)},dark\n")
    report = evaluated(classifier, "--labels", root / "labels.csv")
    assert report["images"] == 1 and "leads outside" in report["unread"][0]["error"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda root: (root / "dark").rename(root / "drak"),
            "got 'drak'; did you mean 'dark'? it knows dark, middle",
        ),
        (lambda root: (root / "dark" / "a.png").rename(root / "a.png"), "got 'a.png' beside them"),
        (
            lambda root: (root.rename(root.parent / "gone"), root.mkdir()),
            "the folder holds no image files",
        ),
        (lambda root: root.rename(root.parent / "gone"), "expected a folder that holds one folder"),
    ],
    ids=["unknown label", "no class", "no image", "no folder"],
)
def test_folders_without_class_folders_are_errors(
    classifier: Path, classes: Path, change: Callable, message: str
) -> None:
    """Each folder is wrong in one known way: one sentence, exit code 1."""
    change(classes)
    result = infer("evaluate", classifier, classes)
    assert result.exit_code == 1 and message in result.stderr


@pytest.mark.parametrize(
    "text", ["", "path,label\n", "name,label\na.png,dark\n", "path,label\na.png\n", "\x00"]
)
def test_bad_label_files_are_errors(classifier: Path, tmp_path: Path, text: str) -> None:
    """One sentence says what was expected; also of a missing file, and of bytes."""
    (tmp_path / "labels.csv").write_text(text)
    (tmp_path / "bytes.csv").write_bytes(b"\xff\xfe\x00")
    for name in ("labels.csv", "none.csv", "bytes.csv"):
        result = infer("evaluate", classifier, "--labels", tmp_path / name)
        assert (
            result.exit_code == 1 and f"{name}: " in result.stderr and "expected" in result.stderr
        )


def test_unreadable_images_and_wrong_usage_are_errors(
    classifier: Path, make_forecaster: Callable[..., Path], classes: Path
) -> None:
    """There is no accuracy of no image.

    PATH and --labels exclude each other, and a forecaster has no labels.
    """
    for path in classes.rglob("*.png"):
        path.write_bytes(b"")
    result = infer("evaluate", classifier, classes)
    assert result.exit_code == 1 and "none of 7 could be read" in result.stderr
    assert infer("evaluate", classifier).exit_code == 2
    both = infer("evaluate", classifier, classes, "--labels", "x.csv")
    assert both.exit_code == 1 and "expected either PATH or --labels" in both.stderr
    assert (
        "expected a model of images"
        in infer("evaluate", make_forecaster(), "--labels", "x.csv").stderr
    )


def test_top_5_accuracy(tmp_path: Path) -> None:
    """Ten classes whose logits fall with their index, whatever the image: only the first is right,
    the fifth is within five, the sixth is not.
    """
    labels = [f"c{k}" for k in range(10)]
    tiny_weights = {
        "weight": np.zeros((1, 10), np.float32),
        "bias": -np.arange(10, dtype=np.float32),
    }
    graph = tiny.classifier_graph()
    for initializer in graph.graph.initializer:
        if initializer.name in tiny_weights:
            initializer.CopyFrom(
                tiny.numpy_helper.from_array(tiny_weights[initializer.name], initializer.name)
            )
    graph.graph.output[0].type.tensor_type.shape.dim[1].dim_value = 10
    (tmp_path / "m.onnx").write_bytes(
        tiny.reseal(tiny.classifier_document() | {"labels": labels}, graph)
    )
    for label in ("c0", "c4", "c5"):
        (tmp_path / "set" / label).mkdir(parents=True)
        Image.new("L", (8, 8), 0).save(tmp_path / "set" / label / "a.png")
    report = evaluated(tmp_path / "m.onnx", tmp_path / "set")
    assert (report["accuracy"]["right"], report["top_5"]["right"]) == (1, 2)


def test_errors_and_coverage_of_series(
    make_forecaster: Callable[..., Path], tmp_path: Path
) -> None:
    """The model forecasts the last value + 1, 2, 3, one to each side.

    Column a rises by 1: no error, all inside. Column b is constant: errors 1, 2, 3, the last value
    has none, and only the first one is inside its interval.
    """
    lines = [f"long,{t},{t},5" for t in range(10)] + ["short,0,0,0", "short,1,0,0"]
    (tmp_path / "two.csv").write_text("shop,week,a,b\n" + "\n".join(lines) + "\n")
    model = make_forecaster("a", "b", id="shop", time="week", step={"unit": "index", "count": 1})
    report = evaluated(model, tmp_path / "two.csv")
    a, b = report["columns"]
    assert (report["series"], report["windows"]) == (1, 2) and report["unread"][0][
        "path"
    ] == "short"
    assert (a["mse"], a["mae"], a["mae_ratio"]) == (0, 0, 0) and a["coverage"] == [
        {"nominal": 0.8, "measured": 1}
    ]
    assert (b["mse"], b["mae"], b["mae_ratio"]) == pytest.approx((14 / 3, 2, None))
    assert b["coverage"][0]["measured"] == pytest.approx(1 / 3)
    assert (report["mse"], report["mae"], report["mae_ratio"]) == pytest.approx((7 / 3, 1, 1))
    shown = infer("evaluate", model, tmp_path / "two.csv").stdout
    assert "inside 80 %" in shown and "66.7 %" in shown and "not evaluated: 1" in shown


def test_series_that_cannot_be_evaluated(
    make_forecaster: Callable[..., Path], tmp_path: Path
) -> None:
    """Too short for one window, another step, beyond float32, no file: one sentence each, exit code
    1.
    """
    days = [f"2024-01-{day:02}" for day in range(1, 29)]
    for name, rows in {
        "short": [f"{day},1" for day in days[:6]],
        "weekly": [f"{day},1" for day in days[::7]],
        "huge": [f"{day},1e300" for day in days[:9]],
    }.items():
        (tmp_path / f"{name}.csv").write_text("ds,y\n" + "\n".join(rows) + "\n")
    expected = {
        "short": "4 + 3 rows are needed",
        "weekly": "one every 604800",
        "huge": "float32",
        "none": "no such",
    }
    for name, message in expected.items():
        result = infer("evaluate", make_forecaster(), tmp_path / f"{name}.csv")
        assert result.exit_code == 1 and message in result.stderr, result.output


def test_metrics_that_are_not_finite_are_null_in_json(
    make_forecaster: Callable[..., Path], tmp_path: Path
) -> None:
    """A truth of 1e200 squared is beyond float64. The text shows inf."""
    rows = "".join(f"{t},{'1e200' if t == 6 else t}\n" for t in range(7))
    (tmp_path / "x.csv").write_text("ds,y\n" + rows)
    model = make_forecaster(step={"unit": "index", "count": 1})
    result = infer("evaluate", model, tmp_path / "x.csv", "--json")
    assert result.exit_code == 0, result.exception
    report = json.loads(
        result.stdout, parse_constant=lambda name: pytest.fail(f"{name} is not JSON")
    )
    assert report["mse"] is None and report["mae"] == pytest.approx(1e200 / 3)
    assert "inf" in infer("evaluate", model, tmp_path / "x.csv").stdout
