"""`infer bench`: rates that are what was counted over what was timed, and an ideal that follows
from its parts."""

import json
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from convline.loading import load_file
from convline.report import benchmark, workload
from convline.runtime.host import allowed_cores, processor
from infer_command import HISTORY, infer
from PIL import Image


def measured(*arguments: str | Path) -> dict:
    result = infer("bench", *arguments, "--seconds", "0.3", "--device", "cpu", "--json")
    assert result.exit_code == 0, result.output
    assert "\r" not in result.stderr  # progress is for terminals
    return json.loads(result.stdout)


def check_rates(found: dict) -> None:
    """Assert that each rate is above 0, that one and all cores are there, and that the ideal
    follows from its parts.
    """
    read, run = ([row["per_second"] for row in found[part]] for part in ("reading", "inference"))
    whole = found["whole"]
    assert (
        min(*read, *run, whole["per_second"], found["rows_written_per_second"], found["first_s"])
        > 0
    )
    assert {row["threads"] for row in found["reading"]} == {1, allowed_cores()}
    assert {row["batch"] for row in found["inference"]} <= {*benchmark.BATCHES}
    assert whole["ideal"] == pytest.approx(1 / (1 / max(read) + 1 / max(run)), rel=1e-9)
    assert whole["reached"] == pytest.approx(whole["per_second"] / whole["ideal"], rel=1e-9)
    assert (found["machine"], found["cores"]) == (processor(), allowed_cores())
    assert 20e6 < found["peak_bytes"] < 4e9  # Python with numpy and onnxruntime, and a tiny model


def test_generated_photos(classifier: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The formula of the ideal, this machine's name; decoding photos must cost more than this
    network.
    """
    # the command decodes hundreds before it looks at the time
    monkeypatch.setattr(workload, "PHOTO", (600, 400))
    found = measured(classifier)
    check_rates(found)
    about = found["measured_on"]
    assert (found["unit"], about["source"]) == ("images", "generated")
    assert (about["files"], about["sizes"]) == (workload.FILES, "600 x 400 px")
    assert max(r["per_second"] for r in found["reading"]) < max(
        r["per_second"] for r in found["inference"]
    )


def test_what_was_generated_is_said(classifier: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A line before the measurement, and the result; with files of the user no such line."""
    monkeypatch.setattr(workload, "PHOTO", (60, 40))
    said = infer("bench", classifier, "--seconds", "0.1", "--device", "cpu")
    line = "no PATH is given: measuring on 16 generated images of 60 x 40 px; a PATH measures"
    assert line in said.stderr
    assert "16 files: 16 images of 60 x 40 px" in said.stdout and "generated" in said.stdout


def test_own_images_and_bad_ones(classifier: Path, tmp_path: Path) -> None:
    """Of three files two can be read; only those are measured, and the third is named.

    With none it is an error that says why.
    """
    folder = tmp_path / "photos"
    folder.mkdir()
    Image.new("L", (30, 20), 90).save(folder / "a.png")
    Image.new("L", (300, 200), 90).save(folder / "b.png")
    (folder / "c.png").write_bytes(b"")
    about = measured(classifier, folder)["measured_on"]
    assert (about["files"], about["samples"], about["more_files"]) == (2, 2, False)
    assert about["sizes"] == "30 x 20 to 300 x 200 px" and about["source"] == str(folder)
    assert about["bytes"] == sum((folder / name).stat().st_size for name in ("a.png", "b.png"))
    assert about["left_out"].startswith("1, the first: ") and "c.png" in about["left_out"]
    failed = infer("bench", classifier, folder / "c.png")
    assert failed.exit_code == 1 and "zero bytes" in failed.stderr
    assert "leave PATH out to measure on generated ones" in failed.stderr


def test_the_first_files_of_many_are_measured(
    classifier: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The limit holds, and the result says so."""
    monkeypatch.setattr(workload, "MOST_FILES", 2)
    for name in "abc":
        Image.new("L", (8, 8), 90).save(tmp_path / f"{name}.png")
    shown = infer("bench", classifier, tmp_path, "--seconds", "0.1", "--device", "cpu").stdout
    assert "the first 2 files: 2 images of 8 x 8 px" in shown


@pytest.mark.parametrize(
    ("path", "sentence"),
    [
        ("none.png", "none.png: no such file"),
        ("empty", "empty: the folder holds no image files"),
        ("*.gif", "*.gif: no file matches this pattern"),
        ("photos.zip", "a file inside another one is not measured; unpack it"),
    ],
)
def test_images_that_cannot_be_measured(
    classifier: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str, sentence: str
) -> None:
    """One sentence with the reason and the cure."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    Image.new("L", (8, 8), 90).save(tmp_path / "a.png")
    with zipfile.ZipFile(tmp_path / "photos.zip", "w") as archive:
        archive.write("a.png")
    failed = infer("bench", classifier, path)
    assert failed.exit_code == 1 and sentence in failed.stderr, failed.output
    assert "leave PATH out" in failed.stderr and "Traceback" not in failed.output


def test_series_that_cannot_be_measured(
    make_forecaster: Callable[..., Path], tmp_path: Path
) -> None:
    """A series that is too short is not silently left out, nor is stdin."""
    (tmp_path / "short.csv").write_text("ds,y\n2024-01-01,1\n2024-01-02,1\n")
    failed = infer("bench", make_forecaster(), tmp_path / "short.csv")
    sentence = "short.csv: expected a series of 4 rows or more, got none"
    assert failed.exit_code == 1 and sentence in failed.stderr
    failed = infer("bench", make_forecaster(), "-", stdin=HISTORY.encode())
    assert failed.exit_code == 1 and "-: stdin can be read only once" in failed.stderr


@pytest.mark.parametrize(
    "rule", [{}, {"time": None}, {"id": "shop", "time": "ds"}], ids=["time", "rows", "ids"]
)
def test_generated_series(make_forecaster: Callable[..., Path], rule: dict) -> None:
    """As for photos; the files are read with the model's own columns, whichever it has."""
    found = measured(make_forecaster("a", "b", **rule))
    check_rates(found)
    about = found["measured_on"]
    assert (found["unit"], about["source"]) == ("series", "generated")
    assert (about["files"], about["sizes"]) == (workload.FILES, "16 rows")


def test_own_series(make_forecaster: Callable[..., Path], tmp_path: Path) -> None:
    """A file of one series."""
    (tmp_path / "shop.csv").write_text(HISTORY.replace("ds,y", "day|sales").replace(",", "|"))
    names = ("--time", "day", "--target", "sales", "--delimiter", "|")
    options = ("--seconds", "0.3", "--device", "cpu")
    shown = infer("bench", make_forecaster(), tmp_path / "shop.csv", *names, *options).stdout
    assert "1 file: 1 series of 10 rows, " in shown and str(tmp_path / "shop.csv") in shown
    assert "series/s" in shown and processor() in shown


def test_the_whole_counts_every_file(classifier: Path, tmp_path: Path) -> None:
    """The rows of the written table, over the seconds that were given at least."""
    Image.new("L", (8, 8), 90).save(tmp_path / "a.png")
    model = load_file(classifier, "cpu")
    work = workload.image_workload(model, [str(tmp_path / "a.png")], tmp_path)
    rate, writing = benchmark.whole_rates(work, tmp_path / "rows.csv", 0.3)
    rows = (tmp_path / "rows.csv").read_text().splitlines()[1:]
    assert (
        len(rows) / 3 < rate <= len(rows) / 0.3
        and writing > rate
        and all(",middle," in row for row in rows)
    )
