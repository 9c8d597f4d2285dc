"""The frame of a stage: its header line, and its errors in one sentence."""

import errno
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.core import stage
from pipeline.core.errors import StageError


def ending(main: Callable[[], object]) -> str:
    with pytest.raises(SystemExit) as end:
        stage.run(lambda: main() and None)
    return str(end.value)


def test_only_what_the_line_makes_is_not_made_yet(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`dvc repro` makes out/ and results/, no program and no file of a user's."""
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


def test_what_may_not_be_read_is_said() -> None:
    def open_it() -> object:
        raise PermissionError(13, "Permission denied", "photos/cats")

    cure = "let this user read and write it"
    assert ending(open_it) == f"error: photos/cats: permission denied; {cure}"


def test_a_full_disk_is_said_and_other_faults_of_it_are_tracebacks() -> None:
    def write() -> object:
        raise OSError(errno.ENOSPC, "No space left on device")

    cure = "free some space, and run it again"
    assert ending(write) == f"error: {Path.cwd()}: No space left on device; {cure}"

    def broken() -> None:
        raise OSError(errno.EIO, "Input/output error")

    with pytest.raises(OSError, match="Input/output error"):
        stage.run(broken)


def test_a_missing_module_of_ours_is_a_traceback() -> None:
    """`make` does not install it, so no cure is named."""

    def imports(name: str) -> object:
        return __import__(name)

    with pytest.raises(ModuleNotFoundError):
        stage.run(lambda: imports("pipeline.nowhere") and None)
    assert "nowhere_at_all is not installed" in ending(lambda: imports("nowhere_at_all"))


@pytest.fixture
def two_entries(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder where stage params has laid out two entries and a study; `train tiny` is run."""
    monkeypatch.chdir(tmp_path)
    for name in ("params/tiny", "params/another-one"):
        (tmp_path / "out" / name).mkdir(parents=True)
    (tmp_path / "out/claims").mkdir()
    (tmp_path / "out/claims/a-long-study.json").touch()
    monkeypatch.setattr(sys, "argv", ["train", "tiny"])


@pytest.mark.usefixtures("two_entries")
def test_a_stage_prints_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The last line, as it is printed.

    The name has the width of the longest one; a note is a line before it; one of several processes
    prints no line.
    """
    with stage.entry_of_command_line("train") as (name, summarize):
        assert name == "tiny"
        stage.note("continuing")
        summarize("accuracy 0.9")
    first, second = capsys.readouterr().err.splitlines()
    assert first == "tiny         | continuing"
    assert re.fullmatch(r"tiny         \| train      0\.\d s  accuracy 0\.9", second)
    with stage.stage_line("wheel"):
        pass
    assert re.fullmatch(r" {13}\| wheel      0\.\d s\n", capsys.readouterr().err)
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "1")
    with stage.entry_of_command_line("train"):
        pass
    assert capsys.readouterr().err == ""


@pytest.mark.usefixtures("two_entries")
def test_a_stage_that_fails_prints_its_error_with_the_entry(
    capsys: pytest.CaptureFixture[str],
) -> None:
    def main() -> None:
        with stage.entry_of_command_line("train"):
            raise StageError("the loss is not finite")

    assert ending(main) == "tiny         | error: the loss is not finite"
    assert capsys.readouterr().err == ""


@pytest.mark.usefixtures("two_entries")
def test_progress_is_a_line_where_there_is_no_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """At the interval that the environment gives; no line is left at the end."""
    monkeypatch.setenv("TQDM_MININTERVAL", "0")
    monkeypatch.setattr(stage, "DELAY_S", 0)
    with stage.progress(3, "train", "epoch") as bar:
        bar.update(2)
        bar.set_postfix_str("loss 1")
    lines = [line for line in re.split(r"[\r\n]", capsys.readouterr().err) if line.strip()]
    assert re.fullmatch(r"tiny         \| train: 2 of 3 epochs \[.*, loss 1\]", lines[-1].rstrip())
