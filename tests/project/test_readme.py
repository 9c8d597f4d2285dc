"""README.md: its commands run as written, its table is the measured one, and its links lead
somewhere.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from journey import ROOT, copy_tree, run
from PIL import Image

README = (ROOT / "README.md").read_text(encoding="utf-8")
SERVING = (ROOT / "docs" / "serving.md").read_text(encoding="utf-8")


def commands(start: str, page: str = README) -> list[str]:
    """Return the lines of a page's shell blocks that begin with `start`, without comments."""
    blocks = re.findall(r"```sh\n(.*?)```", page, re.S)
    lines = [line.split("#")[0].strip() for block in blocks for line in block.splitlines()]
    return [line for line in lines if line.startswith(start)]


def examples() -> list[tuple[str, list[str]]]:
    """Return the commands of the README's console blocks, each with the output shown below it."""
    blocks = "".join(re.findall(r"```console\n(.*?)```", README, re.S))
    parts = [part.splitlines() for part in re.split(r"^\$ ", blocks, flags=re.M)[1:]]
    return [(command, printed) for command, *printed in parts if printed]


def section(title: str) -> str:
    """Return the README's text under a heading."""
    return README.split(f"\n## {title}\n")[1].split("\n## ")[0]


def network_file() -> str:
    """Return the whole file of a network that the README shows."""
    (text,) = re.findall(r"```python\n(.*?)```", section("Add a network"), re.S)
    return str(text)


def write_pets(folder: Path, images: int = 30) -> None:
    """Write two classes of colour images of 48 pixels: reddish cats and bluish dogs."""
    random = np.random.default_rng(0)
    for name, colour in (("cat", (200, 60, 60)), ("dog", (60, 60, 200))):
        (folder / name).mkdir(parents=True)
        for k in range(images):
            pixels = random.normal(colour, 25, (48, 48, 3)).clip(0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{k}.jpg")


def air_values(months: np.ndarray) -> np.ndarray:
    """Return a series with a trend and a season of twelve months."""
    return (100 + 2 * months) * (1 + 0.2 * np.sin(2 * np.pi * months / 12))


def write_air(path: Path) -> None:
    """Write twelve years of it, from 1949 on."""
    values = enumerate(air_values(np.arange(144)))
    rows = [f"{1949 + k // 12}-{1 + k % 12:02d},{value:.1f}" for k, value in values]
    path.write_text("\n".join(["month,passengers", *rows]) + "\n")


def test_links_of_the_readme_exist() -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        assert (ROOT / target).exists(), target


def test_the_gate_runs_the_readmes_test_command() -> None:
    assert "make test" in commands("make") and "make test" in (ROOT / ".ci" / "run").read_text()


def test_tables_are_the_measured_ones() -> None:
    """They equal those of results/README.md, which stage report writes; `make readme` copies them."""
    measured = (ROOT / "results" / "README.md").read_text()
    assert measured.count("\n| ") > 2, "results/README.md holds no table; run `dvc repro report`"
    assert measured.split("\n\n", 2)[2].strip() in README, "run `make readme`"


@pytest.mark.slow
def test_the_commands_for_own_data_look_at_the_data(tmp_path: Path) -> None:
    """With --dry-run in place of --run; tests/end_to_end/test_own_data.py runs them as written."""
    write_pets(tmp_path / "pets")
    write_air(tmp_path / "air.csv")
    seen = []
    for command in commands("python -m pipeline.new "):
        if "net" not in command.split():
            here = command.replace("air.csv", str(tmp_path / "air.csv"))
            words = here.replace("~", str(tmp_path)).replace("--run", "--dry-run").split()
            seen.append(run(ROOT, sys.executable, *words[1:]))
    images, series = seen
    assert "classes   2: cat 30, dog 30" in images and "season    12" in series


def test_the_network_of_the_readme_is_whole(tmp_path: Path) -> None:
    """It gives logits of the stated shape, and every weight learns."""
    import torch

    space: dict[str, Any] = {}
    exec(network_file(), space)
    network = space["Model"](in_channels=1, size=(8, 8), classes=10)
    logits = network(torch.rand(2, 1, 8, 8))
    assert logits.shape == (2, 10)
    logits.sum().backward()
    assert all(p.grad is not None and p.grad.any() for p in network.parameters())
    assert network_file().splitlines()[-1].startswith("Model = ")


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
