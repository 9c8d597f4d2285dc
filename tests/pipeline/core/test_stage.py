"""How a stage ends: its error in one sentence, and whose fault it is."""

import subprocess
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
    """Oracle: the sentence. `dvc repro` makes out/ and results/, no program and no file of a user's."""
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
