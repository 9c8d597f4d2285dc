"""The frame of a stage: its header line, and its errors in one sentence."""

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.core import stage


def ending(main: Callable[[], object]) -> str:
    with pytest.raises(SystemExit) as end:
        stage.run(lambda: main() and None)
    return str(end.value)


def test_only_what_the_line_makes_is_not_made_yet(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Oracle: the sentence. `dvc repro` makes out/ and results/, no program and no file of a
    user's.
    """
    monkeypatch.chdir(tmp_path)
    for made in (Path("out/tiny/train/weights.pt"), tmp_path / "results/tiny/data.json"):
        assert ending(made.read_bytes) == f"error: {made}: not made yet; run `dvc repro`"
    for other in (Path("photos/cats"), Path("outside.csv"), tmp_path / "elsewhere/out.txt"):
        assert (
            ending(other.read_bytes)
            == f"error: {other}: no such file or program; put it there, or install it"
        )
    said = ending(lambda: subprocess.run(["no-such-compiler"], check=False))
    assert said == "error: no-such-compiler: no such file or program; put it there, or install it"


def test_a_missing_module_of_ours_is_a_bug() -> None:
    """A traceback: it is not installed by `make`."""

    def imports(name: str) -> object:
        return __import__(name)

    with pytest.raises(ModuleNotFoundError):
        stage.run(lambda: imports("pipeline.nowhere") and None)
    assert "nowhere_at_all is not installed" in ending(lambda: imports("nowhere_at_all"))


def test_an_entry_is_framed_by_a_header_and_its_seconds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Oracle: the two lines, written out. One of several processes prints nothing."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "out/params/tiny").mkdir(parents=True)
    monkeypatch.setattr(sys, "argv", ["train", "tiny"])
    with stage.entry_of_command_line("train") as name:
        assert name == "tiny"
    assert re.fullmatch(r"── train  tiny\n   \d+\.\d s\n", capsys.readouterr().err)
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "1")
    with stage.entry_of_command_line("train"):
        pass
    assert capsys.readouterr().err == ""
