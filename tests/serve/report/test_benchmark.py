"""`infer bench`: rates that are what was counted over what was timed, and an ideal that follows
from its parts."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from convline.loading import load_file
from convline.report import benchmark
from convline.runtime.host import allowed_cores, processor
from infer_command import HISTORY, infer
from PIL import Image


def measured(*arguments: str | Path) -> dict:
    result = infer("bench", *arguments, "--seconds", "0.3", "--device", "cpu", "--json")
    assert result.exit_code == 0, result.output
    assert "\r" not in result.stderr  # progress is for terminals
    return json.loads(result.stdout)


def check_rates(found: dict) -> None:
    """Each rate is a number above 0, one and all cores are there, and the ideal is the formula of
    its parts."""
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
    """Oracle: the formula of the ideal, this machine's name; decoding photos must cost more than
    this network."""
    monkeypatch.setattr(
        benchmark, "PHOTO", (600, 400)
    )  # the command decodes hundreds before it looks at the time
    found = measured(classifier)
    check_rates(found)
    assert (found["unit"], found["files"]) == ("images", benchmark.FILES)
    assert max(r["per_second"] for r in found["reading"]) < max(
        r["per_second"] for r in found["inference"]
    )


def test_own_images_and_bad_ones(classifier: Path, tmp_path: Path) -> None:
    """Oracle: of three files two can be read; only those are measured. With none it is an error
    that says why."""
    for name in ("a", "b"):
        Image.new("L", (30, 20), 90).save(tmp_path / f"{name}.png")
    (tmp_path / "c.png").write_bytes(b"")
    assert measured(classifier, tmp_path)["files"] == 2
    failed = infer("bench", classifier, tmp_path / "c.png")
    assert (
        failed.exit_code == 1 and "zero bytes" in failed.stderr and "Traceback" not in failed.output
    )


@pytest.mark.parametrize(
    "rule", [{}, {"time": None}, {"id": "shop", "time": "ds"}], ids=["time", "rows", "ids"]
)
def test_generated_series(make_forecaster: Callable[..., Path], rule: dict) -> None:
    """Oracle: as for photos; the files are read with the model's own columns, whichever it has."""
    found = measured(make_forecaster("a", "b", **rule))
    check_rates(found)
    assert (found["unit"], found["files"]) == ("series", benchmark.FILES)


def test_own_series(make_forecaster: Callable[..., Path], tmp_path: Path) -> None:
    """Oracle: one file of one series."""
    (tmp_path / "shop.csv").write_text(HISTORY.replace("ds,y", "day|sales").replace(",", "|"))
    names = ("--time", "day", "--target", "sales", "--delimiter", "|")
    shown = infer(
        "bench",
        make_forecaster(),
        tmp_path / "shop.csv",
        *names,
        "--seconds",
        "0.3",
        "--device",
        "cpu",
    ).stdout
    assert "measured on   1 files" in shown and "series/s" in shown and processor() in shown


def test_the_whole_counts_every_file(classifier: Path, tmp_path: Path) -> None:
    """Oracle: the rows of the written table, over the seconds that were given at least."""
    Image.new("L", (8, 8), 90).save(tmp_path / "a.png")
    model = load_file(classifier, "cpu")
    workload = benchmark.image_workload(model, [str(tmp_path / "a.png")], tmp_path)
    rate, writing = benchmark.whole_rates(workload, tmp_path / "rows.csv", 0.3)
    rows = (tmp_path / "rows.csv").read_text().splitlines()[1:]
    assert (
        len(rows) / 3 < rate <= len(rows) / 0.3
        and writing > rate
        and all(",middle," in row for row in rows)
    )
