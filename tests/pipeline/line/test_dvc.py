"""`pipeline.line.dvc` writes DVC's own lock file, a stage at a time."""

import resource
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import journey
import pytest
from dvc import dvcfile
from dvc.repo import Repo, reproduce
from dvc.utils import serialize
from recipes import ROOT

from pipeline.line import dvc

STAGES = """
stages:
  copy:
    foreach: {'one': first, 'two é': '2e1', 'three': 'a: b'}
    do: {cmd: 'echo "${item}" > "${key}.txt"', outs: ['${key}.txt'], params: [params.yaml: [numbers, lr]]}
  one:
    cmd: touch one
    deps: [params.yaml]
    outs: [one]
"""
UNUSUAL = """
stages:
  unusual:
    cmd: "echo 'a: é' > two\\necho c >> two"
    params: [params.yaml: [nothing, lr]]
    outs: [two]
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


@pytest.mark.parametrize("stages", [STAGES, UNUSUAL])
def test_dvc_itself_writes_that_lock_file(
    stages: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Twice: stages that are added to a lock file, and that are changed in it. The name of one
    needs quotes. A command of several lines and None are equal as they are read, not in bytes.
    """
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    files = []
    for module in ("dvc", "pipeline.line.dvc"):
        folder = tmp_path / module
        folder.mkdir()
        journey.init_dvc(folder)
        (folder / "dvc.yaml").write_text(stages, encoding="utf-8")
        for lr in (1e-5, 2):
            (folder / "params.yaml").write_text(
                f"numbers: [1, 2.5, yes, '3']\nlr: {lr}\nnothing:\n"
            )
            subprocess.run(
                [sys.executable, "-m", module, "repro"],
                cwd=folder,
                check=True,
                capture_output=True,
            )
        files.append(folder / "dvc.lock")
    text = [file.read_text(encoding="utf-8") for file in files]
    content = [serialize.load_yaml(file) for file in files]
    assert content[0] == content[1] and (text[0] == text[1]) == (stages == STAGES)
    if stages == STAGES:
        assert "2e1" in text[0]
    else:
        stage = content[1]["stages"]["unusual"]
        assert stage["cmd"] == "echo 'a: é' > two\necho c >> two"
        assert stage["params"] == {"params.yaml": {"nothing": None, "lr": 2}}


@pytest.mark.parametrize(
    "stages",
    [
        '  "train@x":\n    cmd: old\n',
        "  train@x: # the best\n    cmd: old\n",
        "  train@x:\n  # the best\n    cmd: old\n",
    ],
)
def test_dvc_writes_into_a_file_that_was_edited(
    stages: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A name in quotes, and comments beside a name; the reader refuses a key that is there twice."""
    file = tmp_path / "dvc.lock"
    file.write_text(dvc.HEAD + stages + "  other:\n    cmd: kept\n")
    write(file, monkeypatch)
    assert serialize.load_yaml(file)["stages"] == {
        "train@x": {"cmd": "new"},
        "other": {"cmd": "kept"},
    }


def test_a_failure_to_write_leaves_the_lock_file_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a limit on the size of files, which stops the writer in the middle of one."""
    file = tmp_path / "dvc.lock"
    before = dvc.HEAD + "  train@x:\n    cmd: old\n"
    file.write_text(before)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20, limits[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            write(file, monkeypatch)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert file.read_text() == before
    write(file, monkeypatch)
    assert file.read_text() == before.replace("old", "new")


@pytest.mark.parametrize(("words", "seconds"), [([], "3"), (["--wait-for-lock"], "0.12")])
def test_only_who_waits_for_a_lock_tries_more_often(words: list[str], seconds: str) -> None:
    """Others would give up sooner than with DVC, which takes its timeout for six tries."""
    code = """
import runpy, sys
from dvc import cli, lock
cli.main = lambda words: print(lock.DEFAULT_TIMEOUT)
runpy.run_module("pipeline.line.dvc", run_name="__main__", alter_sys=True)
"""
    command = [sys.executable, "-c", code, *words, "repro", "one"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == f"{seconds}\n"


def test_targets_are_found_in_files_that_are_read_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And later calls read them anew."""
    monkeypatch.chdir(tmp_path)
    journey.init_dvc(tmp_path)
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


def write(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Write a stage train@x into a lock file; its content is {"cmd": "new"}."""
    monkeypatch.setattr(dvc.serialize, "to_lockfile", lambda stage: {stage.name: {"cmd": "new"}})
    scm = SimpleNamespace(track_file=lambda path: None)
    repo = SimpleNamespace(fs=None, scm_context=scm)
    lock_file = SimpleNamespace(path=str(file), relpath=file.name, repo=repo)
    dvc.dump_parts(lock_file, [SimpleNamespace(name="train@x")])
