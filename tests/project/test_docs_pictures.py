"""`make pictures`: the pictures of docs are drawn from the line's outputs, the same every time."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from docs import pictures

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder with params.yaml and the studies' tables, and no output of the line."""
    (tmp_path / "docs" / "img").mkdir(parents=True)
    for name in ("params.yaml", "results", "models"):
        (tmp_path / name).symlink_to(ROOT / name)
    monkeypatch.chdir(tmp_path)


def test_a_study_is_drawn_from_its_table(capsys: pytest.CaptureFixture[str]) -> None:
    """Twice the same bytes, few of them; the claim is its text alternative."""
    assert pictures.main(["generality"]) == 0
    file = Path("docs/img/generality.png")
    first = file.read_bytes()
    assert pictures.main(["generality"]) == 0 and file.read_bytes() == first
    assert len(first) < 300_000 and "generality.png: The first layers" in capsys.readouterr().out
    with Image.open(file) as drawn:
        assert drawn.convert("RGB").getpixel((0, 0)) == (255, 255, 255)


@pytest.mark.parametrize(
    ("name", "missing"),
    [
        ("seeing", "run `dvc repro explain@resnet20-digits`"),
        ("roofline", "run `make`"),
        ("report", "run `make`"),
        ("scenes", "run `make`"),
        ("prediction", "add 'mobilenet-clothing: scratch' below line:"),
    ],
)
def test_a_picture_without_inputs_stays(
    name: str, missing: str, capsys: pytest.CaptureFixture[str]
) -> None:
    file = Path("docs/img", f"{name}.png")
    file.write_bytes(b"as it is")
    assert pictures.main([name]) == 1
    assert f"{file} stays as it is: " in (out := capsys.readouterr().out) and missing in out
    assert file.read_bytes() == b"as it is"


def test_a_name_that_is_no_picture(capsys: pytest.CaptureFixture[str]) -> None:
    assert pictures.main(["hero"]) == 1
    assert "expected some of prediction, report," in capsys.readouterr().out


def test_every_picture_of_the_docs_is_made() -> None:
    assert {path.stem for path in (ROOT / "docs" / "img").glob("*.png")} == pictures.DRAW.keys()
