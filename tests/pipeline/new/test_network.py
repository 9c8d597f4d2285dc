"""`new net` writes a network that the line trains as it is."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from recipes import ROOT

from pipeline.core.errors import StageError
from pipeline.new import network, starter


@pytest.mark.parametrize(
    "name, answer",
    [
        ("my-net", "use 'my_net'"),
        ("MyNet", "use 'mynet'"),
        ("2net", "use 'net'"),
        ("class", "use 'class_net'"),
        ("é", "use 'my_net'"),
        ("resnet", r"models/resnet\.py is there already; choose another name, such as 'my_resnet'"),
        ("layers", r"models/layers\.py is there already"),
    ],
)
def test_names_that_are_refused(workspace: Path, name: str, answer: str) -> None:
    with pytest.raises(StageError, match=answer):
        network.propose(name)


def test_the_file_is_the_starter_under_another_name(workspace: Path) -> None:
    file, text, entry = network.propose("my_net")
    assert file == Path("models/my_net.py") and text.endswith("\n\nModel = MyNet\n")
    assert "starter" not in text.lower() and "class MyNet(nn.Module):" in text
    assert entry.name == "my-net-digits" and entry.recipe["arch"] == "my_net"
    assert entry.sections.keys() == {"line", "models"}


@pytest.mark.parametrize("name", ["mynet", "my_own_network"])
def test_the_file_passes_the_linter(workspace: Path, tmp_path: Path, name: str) -> None:
    text = network.propose(name)[1]
    for command in (["check", "--quiet"], ["format", "--check", "--quiet"]):
        done = subprocess.run(
            [sys.executable, "-m", "ruff", *command, f"--config={ROOT / 'pyproject.toml'}", "-"],
            input=text, text=True, capture_output=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("channels, side", [((32, 64, 128), 8), ((4,), 2), ((4, 8), 13)])
def test_the_network(channels: tuple[int, ...], side: int) -> None:
    """Its count is the sum in REFERENCE; the least image has one pixel before the mean."""
    options = {"in_channels": 3, "size": (side, side), "classes": 5}
    net = starter.Starter(**options, channels=channels)
    assert net(torch.randn(4, 3, side, side)).shape == (4, 5)
    expected = 9 * sum(a * b for a, b in zip((3, *channels), channels, strict=False))
    expected += 2 * sum(channels) + channels[-1] * 5 + 5
    assert sum(p.numel() for p in net.parameters()) == expected
    with pytest.raises(ValueError, match="starter: expected at least"):
        starter.Starter(**options | {"size": (2 ** len(channels) - 1,) * 2}, channels=channels)


def test_the_reference_count() -> None:
    reference = starter.REFERENCE["Starter"]
    net = starter.Starter(**reference["options"])
    assert sum(p.numel() for p in net.parameters()) == reference["trainable"]
    assert sum(b.numel() for b in net.buffers() if b.is_floating_point()) == reference["fixed"]
