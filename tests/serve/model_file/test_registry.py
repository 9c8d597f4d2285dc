"""MODEL as a shell completes it, by click's own protocol."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

COMMAND = [sys.executable, "-c", "from convline.cli.main import main; main(prog_name='infer')"]


def completed(words: str, folder: Path) -> list[str]:
    """Return what bash would be offered for the last of the words, in a folder."""
    protocol = {
        "_INFER_COMPLETE": "bash_complete",
        "COMP_WORDS": words,
        "COMP_CWORD": str(len(words.split()) - 1),
    }
    path = os.pathsep.join(
        [str(Path(__file__).parents[3] / "serve"), os.environ.get("PYTHONPATH", "")]
    )
    environment = os.environ | protocol | {"PYTHONPATH": path}
    done = subprocess.run(
        COMMAND, capture_output=True, text=True, cwd=folder, env=environment, timeout=60, check=True
    )
    assert not done.stderr
    return [
        line.removeprefix("plain,")
        for line in done.stdout.splitlines()
        if line.startswith("plain,")
    ]


@pytest.fixture
def dist(tmp_path: Path) -> Path:
    """A working directory with two packages, a folder that is none, a model file and another
    file.
    """
    for name in ("lenet5-digits", "letters", "fcnn0-digits"):
        (tmp_path / "out" / "dist" / name).mkdir(parents=True)
        (tmp_path / "out" / "dist" / name / "model.onnx").touch()
    (tmp_path / "out" / "dist" / "lepidoptera").mkdir()
    (tmp_path / "le model[1].onnx").touch()
    (tmp_path / "lemon.txt").touch()
    return tmp_path


@pytest.mark.parametrize("command", ["info", "images", "series", "check", "bench", "evaluate"])
def test_entries_and_files(dist: Path, command: str) -> None:
    """Oracle: what begins with `le` and is a model, entries first."""
    assert completed(f"infer {command} le", dist) == [
        "lenet5-digits",
        "letters",
        "le model[1].onnx",
    ]


def test_packages_of_other_folders(
    dist: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Oracle: the package made here is offered beside those of out/dist, and a folder that is
    not there is no error.
    """
    (tmp_path / "shared" / "lemur").mkdir(parents=True)
    (tmp_path / "shared" / "lemur" / "model.onnx").touch()
    monkeypatch.setenv("CONVLINE_MODELS", f"{tmp_path / 'shared'}{os.pathsep}{tmp_path / 'none'}")
    assert completed("infer info le", dist) == [
        "lemur",
        "lenet5-digits",
        "letters",
        "le model[1].onnx",
    ]


def test_files_below_folders_and_nothing(dist: Path) -> None:
    """Oracle: a path goes on to the .onnx files there; what is no model gives nothing, and no
    error.
    """
    assert completed("infer info out/dist/letters/m", dist) == ["out/dist/letters/model.onnx"]
    assert completed("infer info nonesuch", dist) == []
    assert completed("infer info [", dist) == []


def test_help_says_how_to_turn_it_on(dist: Path) -> None:
    """Oracle: the line of the help, evaluated as bash does, is a script that asks for
    completions of `infer`.
    """
    help_text = " ".join(
        subprocess.run(
            [*COMMAND, "--help"], capture_output=True, text=True, check=True
        ).stdout.split()
    )
    assert 'eval "$(_INFER_COMPLETE=bash_source infer)"' in help_text
    environment = os.environ | {"_INFER_COMPLETE": "bash_source"}
    script = subprocess.run(
        COMMAND, capture_output=True, text=True, env=environment, check=True
    ).stdout
    assert "complete -o nosort -F _infer_completion infer" in script
