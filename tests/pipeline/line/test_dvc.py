"""`pipeline.line.dvc` writes DVC's own lock file, a stage at a time."""

import subprocess
import sys
from pathlib import Path

import pytest
from dvc import dvcfile
from dvc.repo import Repo, reproduce
from dvc.utils import serialize
from recipes import ROOT

from pipeline.line import dvc

STAGES = """
stages:
  copy:
    foreach: {'one': first, 'two é': '2e1', 'three': 'a\\n b'}
    do: {cmd: 'echo "${item}" > "${key}.txt"', outs: ['${key}.txt'], params: [params.yaml: [numbers, lr]]}
  one:
    cmd: touch one
    deps: [params.yaml]
    outs: [one]
"""


def test_each_part_of_the_lock_file_of_the_line_is_written_as_it_is(tmp_path: Path) -> None:
    """Emptied, and written in its own order, and once more in another one."""
    text = (ROOT / "dvc.lock").read_text(encoding="utf-8")
    stages = serialize.load_yaml(ROOT / "dvc.lock")["stages"]
    parts = [dvc.part_text({name: stage}) for name, stage in stages.items()]
    written = dvc.HEAD
    for part in parts:
        assert dvc.KEY.match(part)
        written = dvc.replace_part(written, part)
    assert written == text
    for part in parts[::-1]:
        changed = part.replace("hash: md5", "hash: none")
        written = dvc.replace_part(written, changed)
        assert len(written) == len(text) + changed.count("none")
        written = dvc.replace_part(written, part)
    assert written == text


def test_dvc_itself_writes_that_lock_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Twice: stages that are added to a lock file, and that are changed in it. The name of one
    needs quotes, and one has a command of two lines.
    """
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


def test_targets_are_found_in_files_that_are_read_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And later calls read them anew."""
    monkeypatch.chdir(tmp_path)
    subprocess.run([sys.executable, "-m", "dvc", "init", "--no-scm", "--quiet"], check=True)
    Path("dvc.yaml").write_text(STAGES, encoding="utf-8")
    Path("params.yaml").write_text("numbers: 1\nlr: 1\n")
    read, loads = [], dvcfile.ProjectFile._load
    monkeypatch.setattr(
        dvcfile.ProjectFile, "_load", lambda self: (read.append(self), loads(self))[1]
    )
    with Repo() as repo:
        for _ in range(2):
            found = dvc.collect_at_once(repo, ["one", "copy@three", "copy@one"])
            assert [stage.name for stage in found] == ["one", "copy@three", "copy@one"]
            assert len(read) == 1
            read.clear()
        assert len(reproduce.collect_stages(repo, ["one", "copy@three"])) == len(read) == 2
