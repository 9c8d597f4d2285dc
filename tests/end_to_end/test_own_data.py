"""A new user's own data: the commands of the front page, as they are written there.

Only `make setup` is left out, which installs; test_make_as_a_new_user_in_a_fresh_copy runs it.
"""

from __future__ import annotations

import csv
import io
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from journey import copy_tree, run
from test_readme import air_values, network_file, section, write_air, write_pets

pytestmark = [pytest.mark.long, pytest.mark.timeout(1800)]
# `make` of a shell that has nothing to install.
MAKE = 'make() { command make --old-file .venv/.ready "$@"; }'


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of this tree with a photo and a table in it, and ~/pets beside it."""
    home = tmp_path_factory.mktemp("home")
    folder = copy_tree(home / "convline", git=True)
    for key in ("user.name", "user.email"):  # `dvc exp run` commits
        run(folder, "git", "config", key, "t@localhost")
    write_pets(home / "pets")
    write_air(folder / "air.csv")
    (folder / "photo.jpg").write_bytes((home / "pets" / "dog" / "3.jpg").read_bytes())
    return folder


def type_block(folder: Path, title: str) -> str:
    """Run the shell block under a heading of the README; return what it printed on stdout."""
    (block,) = re.findall(r"```sh\n(.*?)```", section(title), re.S)
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-euc", f"{MAKE}\n{block}"],
        cwd=folder,
        env=os.environ | {"PATH": path, "HOME": str(folder.parent)},
        text=True,
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, f"{block}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    return done.stdout


def test_your_images(clone: Path) -> None:
    """The photo is a dog; then its page is in the report."""
    lines = type_block(clone, "Your images").splitlines()
    header = lines.index("path,label,score,status,error")
    assert lines[header + 1].startswith("photo.jpg,dog,")
    type_block(clone, "Look at the results")
    page = (clone / "out" / "report" / "pets.html").read_text()
    assert "cat" in page and "pets.html" in (clone / "out" / "report" / "index.html").read_text()


def test_your_series(clone: Path) -> None:
    """Twelve months ahead, within a quarter of the generator's next year, and a picture."""
    printed = type_block(clone, "Your series")
    rows = list(csv.DictReader(io.StringIO(printed[printed.index("unique_id,ds,") :])))
    assert [row["ds"][:7] for row in rows] == [f"1961-{month:02d}" for month in range(1, 13)]
    assert {row["status"] for row in rows} <= {"ok", "out-of-range"}
    truth = air_values(np.arange(144, 156))
    assert np.allclose([float(row["yhat"]) for row in rows], truth, rtol=0.25)
    assert (clone / "air.png").read_bytes().startswith(b"\x89PNG")


def test_compare_experiments(clone: Path) -> None:
    assert "models.lenet5-digits.train.lr" in type_block(clone, "Compare experiments")


def test_add_a_network(clone: Path) -> None:
    """The written file trains and is served; the README's file in its place, too."""
    type_block(clone, "Add a network")
    manifest = clone / "out" / "dist" / "mynet-digits" / "manifest.json"
    first = manifest.read_text()
    (clone / "models" / "mynet.py").write_text(network_file())
    run(clone, sys.executable, "-m", "dvc", "repro", "infer@mynet-digits")
    assert manifest.read_text() != first
