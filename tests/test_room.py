"""A full-size run says what disk it takes before it starts, and does not start where there is less."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
from recipes import copy_params

from pipeline import params, room
from pipeline.stage import StageError


@pytest.fixture
def at_full_size(workspace: Path) -> Path:
    """params.yaml at `size: full` with a line of two networks on MNIST."""
    path = copy_params(workspace)
    text = path.read_text().replace("\nsize: small", "\nsize: full", 1)
    line = "line:\n  lenet5-digits: scratch\n  fcnn2-digits: scratch\nline_studies: []\n"
    path.write_text(re.sub(r"^line:\n.*?^line_studies:\n.*?\n\n", line + "\n", text, flags=re.M | re.S))
    return path


def test_what_an_entry_takes(at_full_size: Path) -> None:
    """Oracle: by hand. 70,000 images of 32 x 32; 60,840 numbers; six snapshots; the network, the best, two moments."""
    recipe = params.load(at_full_size).models["lenet5-digits"]
    found = room.needs(recipe)
    weights = 4 * (60_000 + 840)
    assert found["data"] == 70_000 * 32 * 32
    assert found["networks"] == weights * (1 + 6 + 2 * 1.75) + room.KEPT
    assert found["checkpoint"] == weights * 2 * (2 + 2 + 6)


def test_it_is_said_before_anything_is_made(
    at_full_size: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Oracle: 70,000 * (32^2 + 28^2) bytes of images, .1 GB of the rest, MNIST's download; nothing that is made."""
    monkeypatch.setattr(sys, "argv", ["params"])
    monkeypatch.delenv("DATA_ROOT", raising=False)
    params.main()
    said = capsys.readouterr().err
    parts = r"data 0\.1, networks 0\.1, checkpoint 0\.0, downloads 0\.1"
    assert re.search(rf"disk: about 0\.3 GB are needed \({parts}\)", said)
    assert Path("out/params/lenet5-digits/train.json").exists()
    for name in ("lenet5-digits", "fcnn2-digits"):
        Path("out", name, "data").mkdir(parents=True)
    params.main()
    assert "data 0.0, networks 0.1, checkpoint 0.0, downloads 0.0)" in capsys.readouterr().err


def test_a_disk_that_is_too_small_is_refused(at_full_size: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Oracle: 1.3 million images of 8192 x 8192 in colour are 268 TB. Nothing has been written by then."""
    text = at_full_size.read_text().replace("name: MNIST\n    validation: 5000", "name: ImageNet\n    validation: 5000")
    small = "data: {set: digits, size: [32, 32], colour: grey, standardise: channel}"
    text = text.replace(small, "data: {set: digits, size: [8192, 8192], colour: rgb}", 1)
    at_full_size.write_text(text)
    monkeypatch.setattr(sys, "argv", ["params"])
    with pytest.raises(StageError, match=r"size: full takes about 268\d{3}\.\d GB, .* free; make room, name fewer"):
        params.main()
    assert not Path("out/params").exists()


def test_what_cannot_be_known_is_said(
    at_full_size: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A set of torchvision whose size is not noted here is named, and the others are counted."""
    recipe = params.load(at_full_size).models["lenet5-digits"]
    other = recipe | {"data": recipe["data"] | {"spec": recipe["data"]["spec"] | {"name": "KMNIST"}}}
    room.state({"known": recipe, "other": other}, {"known": set(), "other": set()})
    said = capsys.readouterr().err
    assert "other is not counted: torchvision KMNIST is not among" in said and "data 0.1" in said
