"""Shell completion of MODEL, through click's own protocol."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

COMMAND = [sys.executable, "-c", "from convline.cli.main import main; main(prog_name='infer')"]


def completed(words: str, folder: Path) -> list[str]:
    """Return what bash would offer for the last word, in a folder."""
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
    """A working directory with two packages, a folder that is no package, a model file and another
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
def test_packages_and_model_files_are_offered(dist: Path, command: str) -> None:
    """The models whose names begin with `le`, packages first."""
    assert completed(f"infer {command} le", dist) == [
        "lenet5-digits",
        "letters",
        "le model[1].onnx",
    ]


def test_packages_of_convline_models_are_offered(
    dist: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The package in CONVLINE_MODELS is offered beside those of out/dist.

    A folder that does not exist is no error.
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


def test_paths_are_completed_and_unknown_names_offer_nothing(dist: Path) -> None:
    """A path is completed to the .onnx files there.

    A name that begins no model gives an empty list and no error.
    """
    assert completed("infer info out/dist/letters/m", dist) == ["out/dist/letters/model.onnx"]
    assert completed("infer info nonesuch", dist) == []
    assert completed("infer info [", dist) == []


def test_the_help_text_enables_completion(dist: Path) -> None:
    """The line in the help, evaluated as bash does, prints a script that asks `infer` for
    completions.
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
