"""Stage infer: the shipped command predicts what was checked; any difference stops the line."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Callable
from pathlib import Path

import line
import numpy as np
import pytest
import watched

from pipeline.core.errors import StageError
from pipeline.infer import __main__ as infer_main
from pipeline.infer.request import Request
from pipeline.infer.tasks import forecasting

pytestmark = pytest.mark.usefixtures("root")


def test_images_are_served_as_checked_without_torch() -> None:
    """The labels of all 360 raw files are counted here."""
    done = line.run_without_torch("infer", line.DIGITS)
    assert done.returncode == 0, done.stderr
    facts, checked = line.results(line.DIGITS, "infer"), line.results(line.DIGITS, "check")
    raw = line.rows(f"out/{line.DIGITS}/data/raw.csv")
    served = line.rows(f"out/{line.DIGITS}/infer/predictions.jsonl")
    right = [a["label"] == b["label"] for a, b in zip(raw, served, strict=True)]
    assert facts["value"] == facts["expected"] == checked["metric"]["value"]
    assert facts["value"] == pytest.approx(np.mean(right), rel=1e-5)  # results have six digits
    assert facts["served"] == {
        "fp32 on cpu": facts["value"],
        "int8 on cpu": checked["variants"]["int8"]["cpu"]["accuracy"],
    }
    assert (facts["n"], facts["rows_ok"], facts["rows_error"], facts["equal"]) == (
        360,
        360,
        0,
        True,
    )


def test_series_are_served_as_checked_without_torch() -> None:
    """The mean squared error of the written forecasts against the recorded targets."""
    done = line.run_without_torch("infer", line.WAVES)
    assert done.returncode == 0, done.stderr
    facts = line.results(line.WAVES, "infer")
    served = line.rows(f"out/{line.WAVES}/infer/predictions.jsonl")
    target = np.load(f"out/{line.WAVES}/check/test.npz")["target"].ravel()
    forecast = np.array([float(row["yhat"]) for row in served])
    # test rows lie within the range of the training rows
    assert {row["status"] for row in served} == {"ok"}
    assert facts["value"] == pytest.approx(((forecast - target) ** 2).mean(), rel=1e-5)
    assert facts["value"] == pytest.approx(facts["expected"], rel=1e-4) and facts["equal"]
    # all 204 windows have raw files, so the served metric is that of the test split
    assert facts["expected"] == line.results(line.WAVES, "check")["metric"]["value"]
    assert (facts["n"], facts["test"]) == (204, 204)
    assert (facts["rows_ok"], facts["rows_error"]) == (816, 0)
    assert "from 204 raw inputs, as checked" in done.stdout + done.stderr


def test_the_stages_line_says_which_part_of_the_test_split_was_served() -> None:
    everything = infer_main.describe_inputs({"n": 53, "test": 53})
    assert everything == "53 raw inputs, as checked"
    part = infer_main.describe_inputs({"n": 390, "test": 2000})
    assert part == (
        "390 raw inputs, spread evenly over the 2000 of the test split; as checked on these 390"
    )


def change_rows(path: Path, change: Callable[[list[dict[str, str]]], object]) -> None:
    rows = line.rows(path)
    change(rows)
    with path.open("w", newline="") as file:
        table = csv.DictWriter(file, rows[0].keys())
        table.writeheader()
        table.writerows(rows)


def assert_refused(name: str, sentence: str) -> None:
    with pytest.raises(StageError, match=sentence):
        line.run("infer", name)
    assert json.loads(Path(f"results/{name}/infer.json").read_text())["equal"] is False


def test_a_served_metric_that_differs_is_an_error() -> None:
    """The true labels of ten correct images are changed, so 10 of 360 are lost."""

    def relabel(rows: list[dict[str, str]]) -> None:
        probabilities = np.load(f"out/{line.DIGITS}/check/test.npz")["probabilities"]
        right = [
            row for row in rows if row["label"] == str(probabilities[int(row["row"])].argmax())
        ]
        for row in right[:10]:
            row["label"] = str((int(row["label"]) + 1) % 10)

    value = round(360 * line.results(line.DIGITS, "check")["metric"]["value"]) / 360
    change_rows(Path(f"out/{line.DIGITS}/data/raw.csv"), relabel)
    assert_refused(
        line.DIGITS, rf"served accuracy {value - 10 / 360:.6g}, checked {value:.6g}, 0 failed rows"
    )


def test_a_different_prediction_is_an_error_at_equal_accuracy() -> None:
    """Two wrong predictions of the check become another wrong class."""
    path = f"out/{line.DIGITS}/check/test.npz"
    arrays = dict(np.load(path))
    answers = arrays["predictions_cpu_fp32"].argmax(1)
    for row in np.flatnonzero(answers != arrays["y"])[:2]:
        other = next(k for k in range(10) if k not in (answers[row], arrays["y"][row]))
        arrays["predictions_cpu_fp32"][row, other] = 2
    np.savez(path, **arrays)
    assert_refused(line.DIGITS, r"served accuracy (\S+), checked \1, 0 failed rows")


def test_unreadable_raw_files_are_an_error() -> None:
    """One file is truncated, one is missing: the message counts two failed rows."""
    raw = sorted(Path(f"out/{line.DIGITS}/data/raw").rglob("*.png"))
    raw[5].write_bytes(raw[5].read_bytes()[:40])
    raw[9].unlink()
    assert_refused(line.DIGITS, r"served accuracy .*, 2 failed rows; see results/")


def test_a_different_series_is_an_error() -> None:
    """One value of one history is changed by 1."""

    def move(rows: list[dict[str, str]]) -> None:
        rows[19]["y"] = str(float(rows[19]["y"]) + 1)

    change_rows(Path(f"out/{line.WAVES}/data/raw/series.csv"), move)
    assert_refused(line.WAVES, "served mse .*, checked ")


@pytest.mark.parametrize(("form", "equal"), [("%.6g", False), ("%.9g", True)])
def test_numbers_that_lost_digits_are_an_error(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, form: str, equal: bool
) -> None:
    """A meter rises by one a day from 1,234,561; six digits cannot show its steps."""
    answers = (1_234_561 + np.arange(200, dtype=np.float32)).reshape(50, 4, 1)
    target = answers + np.random.default_rng(0).normal(0, 0.29, answers.shape)
    rows = [
        {"unique_id": "m", "ds": "1", "yhat": float(form % value), "status": "ok"}
        for value in answers.ravel()
    ]
    monkeypatch.setattr(forecasting, "run_infer", lambda arguments: None)
    monkeypatch.setattr(forecasting, "read_rows", lambda path: rows)
    about = {"columns": ["y"], "forecast": {}}
    request = Request(
        line.WAVES, about, {"target": target}, answers, "cpu", "fp32", tmp_path / "none"
    )
    found = forecasting.serve(request)
    assert found["equal"] is equal and found["expected"] == pytest.approx(0.29**2, rel=0.2)


def test_a_series_that_is_too_short_is_an_error() -> None:
    """The first window loses a row, so 203 of 204 windows are forecast."""
    change_rows(Path(f"out/{line.WAVES}/data/raw/series.csv"), lambda rows: rows.pop(0))
    with pytest.raises(
        StageError, match=r"infer predicted 812 rows of 816; see .*predictions.jsonl"
    ):
        line.run("infer", line.WAVES)


def test_a_package_that_differs_from_its_manifest_is_an_error() -> None:
    """The error of the shipped command is in the message."""
    file = Path(f"out/dist/{line.DIGITS}/model.onnx")
    content = file.read_bytes()
    file.unlink()
    file.write_bytes(content + b"\\0")
    with pytest.raises(
        StageError, match=r"infer images .*: exit code 1: .*expected the sha256 .*, got "
    ):
        line.run("infer", line.DIGITS)


def test_a_missing_wheel_is_an_error_with_its_command() -> None:
    for file in Path("out/dist/wheel").glob("*.whl"):
        file.unlink()
    with pytest.raises(StageError, match=r"no wheel in out/dist/wheel; run `dvc repro wheel`"):
        line.run("infer", line.DIGITS)


def test_the_stage_opens_no_connection_and_writes_only_its_outputs(tmp_path: Path) -> None:
    """The system calls of the stage, and of the command that it starts."""
    root, home = Path.cwd(), tmp_path / "home"
    far, written = watched.run([sys.executable, "-m", "pipeline.infer", line.WAVES], home, root)
    assert far == []
    outputs = [root / "out" / line.WAVES / "infer", root / "results" / line.WAVES / "infer.json"]
    others = [
        path for path in written if not any(path.startswith(str(output)) for output in outputs)
    ]
    assert [path for path in others if not path.startswith(str(root / "out" / "seconds"))] == []
    assert [path for path in home.rglob("*") if path.is_file()] == []
