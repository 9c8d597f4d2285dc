"""A copy of this tree, made and used as a new user would: for the tests of the journey and of
the front page.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import line
from ruamel.yaml import YAML

from pipeline.check import roofline

ROOT = Path(__file__).parents[1]
LINE = {
    "lenet5-digits": 8,
    "dilated-waves": 12,
    "fcnn0-digits": 10,
    "dilated-sunspots": 5,
}  # entry: epochs
MADE = (
    ".git",
    ".venv",
    "out",
    "__pycache__",
    "*.egg-info",
    "cache",
    "tmp",
    ".*_cache",
    "config.local",
)


def run(folder: Path, *command: str, ok: bool = True) -> str:
    """Run a command as a user of the environment would; return what it printed."""
    environment = os.environ | {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    }
    done = subprocess.run(
        command,
        cwd=folder,
        env=environment,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
    )
    assert (done.returncode == 0) == ok, f"{' '.join(command)}:\n{done.stdout[-3000:]}"
    return done.stdout


def dvc(folder: Path, *arguments: str, ok: bool = True) -> str:
    return run(folder, sys.executable, "-m", "dvc", *arguments, ok=ok)


def init_dvc(folder: Path) -> None:
    """Do what `dvc init --no-scm` does, without its second."""
    (folder / ".dvc").mkdir()
    (folder / ".dvc" / "config").write_text("[core]\n    no_scm = True\n")


def ran(output: str) -> set[str]:
    """Return the stages that a `dvc repro` ran."""
    return set(re.findall(r"Running stage '(\S+)'", output))


def edit_params(folder: Path, change: Callable[[dict], None]) -> None:
    """Change params.yaml in place, comments kept."""
    yaml = YAML()
    path = folder / "params.yaml"
    content = yaml.load(path)
    change(content)
    yaml.dump(content, path)


def short_line(content: dict) -> None:
    content["line"] = dict.fromkeys(LINE, "scratch")
    content["line_studies"] = ["digits-exercise"]
    study = content["studies"]["digits-exercise"]
    study["seeds"] = [1]
    study["settings"] = {
        "cnn1": {"train": {"epochs": 2}},
        "cnn1, raw": {"data": {"standardise": "none"}, "train": {"epochs": 2}},
    }
    for name, epochs in LINE.items():
        content["models"][name]["train"]["epochs"] = epochs
    content["check"] |= {"random": 16, "batches": [1, 4], "threads": [], "seconds": 0.05}
    content["check"]["int8"] = {"images": 32, "tries": 2}
    content["explain"] |= {"images": 2, "perturbations": 8, "judged": 4, "resamples": 100}


def copy_tree(target: Path, *, git: bool) -> Path:
    """Copy this tree without what was made; with git, as a repository of one commit."""
    shutil.copytree(ROOT, target, ignore=shutil.ignore_patterns(*MADE), symlinks=True)
    (target / ".dvc" / "tmp").mkdir(exist_ok=True)
    # Results of entries go; of studies those of one stay, as in a clone: thirty would be drawn for
    # each report.
    for results in (target / "results").glob("*-*/"):
        shutil.rmtree(results)
    for results in (target / "results" / "studies").iterdir():
        if results.stem != "dropout":
            results.unlink()
    (target / "dvc.lock").unlink(missing_ok=True)
    edit_params(target, short_line)
    line.share_downloads(target)
    with line.inside(target), line.small_limits():
        roofline.machine_limits("cpu")
    if git:
        run(target, "git", "init", "--quiet")
        run(target, "git", "add", "--all")
        run(
            target,
            "git",
            "-c",
            "user.name=t",
            "-c",
            "user.email=t@localhost",
            "commit",
            "--quiet",
            "-m",
            "start",
        )
    else:
        (target / ".dvc" / "config.local").write_text("[core]\n    no_scm = true\n")
    return target
