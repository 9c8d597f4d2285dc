"""What commands other than `infer images` say about detectors and segmenters."""

from pathlib import Path

import pytest
from infer_command import infer
from PIL import Image


@pytest.mark.parametrize(
    ("kind", "lines"),
    [
        ("detector", ["labels 2: top, bottom", "finds at most 2 in an image, from a score of 0.5"]),
        ("segmenter", ["labels 3: background, grey, white"]),
    ],
)
def test_info_tells_what_the_model_answers(
    request: pytest.FixtureRequest, kind: str, lines: list[str]
) -> None:
    """The labels, and of a detector how many finds there can be."""
    result = infer("info", request.getfixturevalue(kind))
    told = [" ".join(line.split()) for line in result.stdout.splitlines()]
    assert result.exit_code == 0 and {*lines} <= {*told}


@pytest.mark.parametrize("kind", ["detector", "segmenter"])
def test_commands_for_other_tasks_refuse(
    request: pytest.FixtureRequest, tmp_path: Path, kind: str
) -> None:
    """One sentence that names the command for this model; nothing is written."""
    model = request.getfixturevalue(kind)
    Image.new("L", (16, 8)).save(tmp_path / "a.png")
    task = {"detector": "detection", "segmenter": "segmentation"}[kind]
    result = infer("series", model, tmp_path / "a.png", "-o", tmp_path / "out.csv")
    assert result.exit_code == 1
    assert f"got {task}; use `infer images`" in result.stderr
    assert not (tmp_path / "out.csv").exists()


@pytest.mark.parametrize("kind", ["detector", "segmenter"])
def test_check_replays_golden_samples(request: pytest.FixtureRequest, kind: str) -> None:
    """Boxes and masks have their own measures of a difference."""
    result = infer("check", request.getfixturevalue(kind))
    assert result.exit_code == 0 and "golden samples differ by" in result.stdout
