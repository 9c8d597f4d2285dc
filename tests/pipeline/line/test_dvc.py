"""`pipeline.line.dvc` writes DVC's own lock file, without DVC's parser in Python."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from dvc import dvcfile
from dvc.utils import serialize
from recipes import ROOT
from ruamel.yaml.representer import RepresenterError

from pipeline.line import dvc

STAGES = """
stages:
  copy:
    foreach: {'one': first, 'two é': '2e1'}
    do: {cmd: 'echo "${item}" > "${key}.txt"', outs: ['${key}.txt'], params: [params.yaml: [numbers, lr]]}
"""


def test_the_lock_file_of_the_line_is_the_same_read_and_written(tmp_path: Path) -> None:
    """And the parser that keeps comments is not called."""
    written = []
    for name, modify in (("own", serialize.modify_yaml), ("ours", dvc.modify)):
        file = tmp_path / name / "dvc.lock"
        file.parent.mkdir()
        shutil.copy(ROOT / "dvc.lock", file)
        with modify(str(file)) as content:
            content["stages"]["new"] = {
                "cmd": "a: é",
                "deps": [{"path": "b", "md5": "1e2", "n": 1}],
            }
        written.append(file.read_bytes())
    assert written[0] == written[1] and b"new:" in written[0]


@pytest.mark.parametrize("value", [None, "one\n  two\n\nthree: é\n"])
def test_what_is_written_otherwise_is_read_back(tmp_path: Path, value: str | None) -> None:
    """None and text of several lines, by DVC's reader."""
    file = tmp_path / "dvc.lock"
    with dvc.modify(str(file)) as content:
        content["stages"] = {"new": {"cmd": value}}
    assert serialize.load_yaml(file) == {"stages": {"new": {"cmd": value}}}


def test_a_failure_to_write_leaves_the_lock_file_as_it_was(tmp_path: Path) -> None:
    file = tmp_path / "dvc.lock"
    file.write_text("stages: {}\n")
    with pytest.raises(RepresenterError), dvc.modify(str(file)) as content:
        content["stages"] = object()
    assert file.read_text() == "stages: {}\n"


def test_dvc_itself_writes_that_lock_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Twice: a stage that is added to a lock file, and one that is changed in it."""
    text = []
    for module in ("dvc", "pipeline.line.dvc"):
        folder = tmp_path / module
        folder.mkdir()
        (folder / "dvc.yaml").write_text(STAGES, encoding="utf-8")
        monkeypatch.setenv("PYTHONPATH", str(ROOT))
        for words, lr in (
            (("init", "--no-scm", "--quiet"), 1),
            (("repro",), 1e-5),
            (("repro",), 2),
        ):
            (folder / "params.yaml").write_text(f"numbers: [1, 2.5, yes, '3']\nlr: {lr}\n")
            subprocess.run(
                [sys.executable, "-m", module, *words], cwd=folder, check=True, capture_output=True
            )
        text.append((folder / "dvc.lock").read_text(encoding="utf-8"))
    assert text[0] == text[1] and "2e1" in text[0]


def test_other_files_keep_their_comments(tmp_path: Path) -> None:
    file = tmp_path / dvcfile.PROJECT_FILE
    file.write_text("stages: {} # none\n")
    with dvc.modify(str(file)) as content:
        content["params"] = []
    assert file.read_text() == "stages: {} # none\nparams: []\n"
