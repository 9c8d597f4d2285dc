"""README.md: its commands run as written, its table is the measured one, and its links lead
somewhere.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from journey import ROOT, copy_tree

README = (ROOT / "README.md").read_text(encoding="utf-8")


def commands(start: str) -> list[str]:
    """Return the lines of the README's shell blocks that begin with `start`, without comments."""
    blocks = re.findall(r"```sh\n(.*?)```", README, re.S)
    lines = [line.split("#")[0].strip() for block in blocks for line in block.splitlines()]
    return [line for line in lines if line.startswith(start)]


def examples() -> list[tuple[str, list[str]]]:
    """Return the commands of the README's console blocks, each with the output shown below it."""
    blocks = "".join(re.findall(r"```console\n(.*?)```", README, re.S))
    parts = [part.splitlines() for part in re.split(r"^\$ ", blocks, flags=re.M)[1:]]
    return [(command, printed) for command, *printed in parts if printed]


def added(section: str) -> str:
    """Return the line that the README adds to a section of params.yaml."""
    return re.findall(rf"`params.yaml`, under `{section}:` `(.*)`$", README, re.M)[0]


def test_links_of_the_readme_exist() -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        assert (ROOT / target).exists(), target


def test_the_gate_runs_the_readmes_test_command() -> None:
    assert "make test" in commands("make") and "make test" in (ROOT / ".ci" / "run").read_text()


def test_table_is_the_measured_one() -> None:
    """The rows equal those of results/README.md, which stage report writes; `make readme` copies
    them.
    """
    rows = [
        line
        for line in (ROOT / "results" / "README.md").read_text().splitlines()
        if line.startswith("|")
    ]
    assert len(rows) > 2, "results/README.md holds no table; run `dvc repro report`"
    assert "\n".join(rows) in README, "run `make readme`"


@pytest.mark.long
def test_make_as_a_new_user_in_a_fresh_copy(tmp_path: Path) -> None:
    """`make` with a short line: it sets up .venv, serves a first prediction, and ends with the
    table and the report.
    """
    folder = copy_tree(tmp_path / "fresh copy", git=True)
    done = subprocess.run(
        ["make", f"PYTHON={Path(sys.base_prefix) / 'bin' / 'python3'}"],
        cwd=folder, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:]
    assert "set-up" in done.stdout.splitlines()[1]
    assert re.search(r"lenet5-digits +\| infer .*fcnn0-digits +\| train ", done.stdout, re.S)
    assert done.stdout.count("fcnn0-digits  ") > 1 and "Running stage" not in done.stdout
    last = done.stdout.splitlines()[-1]
    assert (
        last == f"report: {folder}/out/report/index.html"
        and (folder / "out" / "report" / "index.html").exists()
    )
    assert len(re.findall(r"^Entry  .* Served = trained$", done.stdout, re.M)) == 1  # one table
