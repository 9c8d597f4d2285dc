"""What docs/dvc.md says of experiments and curves, on a DVC project of one stage."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from journey import ROOT, dvc, run
from ruamel.yaml import YAML

pytestmark = pytest.mark.slow

STAGE = """
import json, sys
from pathlib import Path
from ruamel.yaml import YAML
train = YAML(typ="safe").load(Path("params.yaml"))["models"]["a"]["train"]
metrics = {"accuracy": 1 - train["lr"], "accuracy_low": train["lr"], "int8_accuracy": .5}
curves = Path("results/a/curves/validation")
curves.mkdir(parents=True)
Path("results/a/metrics.json").write_text(json.dumps(metrics))
Path("results/a/train.json").write_text(json.dumps(train))
(curves / "loss.tsv").write_text(f"step\\tloss\\n1\\t{train['lr']}\\n")
"""
PARAMS = "models: {a: {arch: x, train: {lr: 0.25}}}\nline: {a: scratch}\n"


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A committed project whose stage has the metrics and the curves of our stages train and check."""
    folder = tmp_path_factory.mktemp("project")
    run(folder, "git", "init", "--quiet")
    dvc(folder, "init", "--quiet")
    ours = YAML(typ="safe").load(ROOT / "dvc.yaml")["stages"]
    train, check = (ours[name]["do"] for name in ("train", "check"))
    stage = {"cmd": f"{sys.executable} stage.py", "deps": ["params.yaml"]}
    stage |= {"outs": train["outs"][1:], "plots": train["plots"], "metrics": check["metrics"]}
    with (folder / "dvc.yaml").open("w") as file:
        YAML(typ="safe").dump({"stages": {"all": {"foreach": "${line}", "do": stage}}}, file)
    (folder / "params.yaml").write_text(PARAMS)
    (folder / "stage.py").write_text(STAGE)
    shutil.copy(ROOT / ".gitignore", folder / ".gitignore")
    for name in ("name", "email"):
        run(folder, "git", "config", f"user.{name}", "t@localhost")
    dvc(folder, "repro", "--quiet")
    commit(folder)
    return folder


def commit(folder: Path) -> None:
    run(folder, "git", "add", "--all")
    run(folder, "git", "commit", "--quiet", "--message", "all")


def test_a_fresh_clone_compares_its_curves(project: Path, tmp_path: Path) -> None:
    """Without a remote and without a cache; git is clean after it."""
    clone = tmp_path / "clone"
    run(tmp_path, "git", "clone", "--quiet", str(project), str(clone))
    assert run(clone, "git", "ls-files", "results").split() == [
        "results/a/curves/validation/loss.tsv",
        "results/a/metrics.json",
        "results/a/train.json",
    ]
    (clone / "params.yaml").write_text(PARAMS.replace("0.25", "0.125"))
    dvc(clone, "repro", "--quiet")
    printed = dvc(clone, "plots", "diff", "HEAD")
    assert "failed to load" not in printed
    page = (clone / "dvc_plots" / "index.html").read_text()
    assert '"loss": "0.25"' in page and '"loss": "0.125"' in page
    assert "dvc_plots" not in run(clone, "git", "status", "--porcelain")


def test_a_key_that_is_left_at_its_default_needs_two_plus_signs(project: Path) -> None:
    """`make compare` then shows the params that differ and the test metric, and nothing else."""
    refused = dvc(project, "exp", "run", "-S", "models.a.train.decay=0.5", ok=False)
    assert "Could not override 'models.a.train.decay'" in refused
    dvc(project, "exp", "run", "-S", "++models.a.train.decay=0.5", "-S", "models.a.train.lr=0.5")
    make = ("make", "--file", str(ROOT / "Makefile"), "--old-file", ".venv/.ready", "compare")
    head = next(line for line in run(project, *make).splitlines() if "Experiment" in line)
    assert re.split(r"  +", head.strip()) == [
        "Experiment",
        "accuracy",
        "models.a.train.lr",
        "models.a.train.decay",
    ]
    assert "decay" in dvc(project, "params", "diff")
    assert "accuracy" in dvc(project, "metrics", "diff")
    run(project, "git", "checkout", "--quiet", ".")


def test_dvcs_messages_are_on_stdout_alone(project: Path) -> None:
    """The line drops them by that; its stages and DVC's errors print to stderr."""
    words = [sys.executable, "-m", "dvc", "repro", "--force"]
    done = subprocess.run(words, cwd=project, capture_output=True, text=True, check=True)
    assert "Running stage" in done.stdout and "dvc push" in done.stdout and done.stderr == ""
