"""What is seen, drawn and measured: the notes' walk-through, causal stacks, and effective fields."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from recipes import SERIES_RECIPE
from subjects import CIFAR, Chain, built, classifier, digits, subject
from torch import nn

from models.causal import Causal
from pipeline.data import dataset, prepare
from pipeline.explain import receptive_field_maps
from pipeline.explain.pixels import tensor
from pipeline.network import build as network


def test_the_walk_through_has_the_right_numbers(tmp_path: Path) -> None:
    """O01 and O02 of FEATURES.md; the slides print the transpose."""
    steps = receptive_field_maps.walk()
    expected = [
        [32.5, -105.5, -44, -60.5],
        [-105.5, 104, 224, 213.5],
        [185.5, 217.5, 38.5, 52.5],
        [54, 31, -18, 36.5],
    ]
    np.testing.assert_allclose(steps["map of sums"], expected)
    np.testing.assert_allclose(steps["ReLU"], np.maximum(expected, 0))
    np.testing.assert_allclose(steps["2 x 2 max pool"], [[104, 224], [217.5, 52.5]])
    picture = receptive_field_maps.walk_through(tmp_path / "walk.png")
    assert "= 32.5, and the first maximum 104" in picture.alt
    shown = (
        Path(__file__).parents[3] / "docs" / "img" / "convolution.png"
    )  # docs/findings.md has it
    drawn, kept = (
        np.asarray(Image.open(path).convert("L"), float) for path in (tmp_path / "walk.png", shown)
    )
    assert drawn.shape == kept.shape and np.abs(drawn - kept).mean() < 0.05


@pytest.mark.parametrize(
    ("kernel", "dilations", "size"), [(2, [1] * 4, 5), (2, [1, 2, 4, 8], 16), (5, [1, 2, 4, 8], 61)]
)
def test_dependencies_by_graph_and_by_gradient(
    kernel: int, dilations: list[int], size: int
) -> None:
    """O10 of FEATURES.md: 4 and 15 steps back; the graph's oldest input is the oldest that has a gradient."""
    net = Causal(
        series=2, horizon=3, channels=3, kernel_size=kernel, dilations=dilations, activation="none"
    )
    edges = receptive_field_maps.dependencies(kernel, dilations)
    assert max(start for start, _ in edges[0]) == size - 1
    assert receptive_field_maps.measured(net, 70, 2) == size
    assert edges[-1] == [(k * dilations[-1], 0) for k in range(kernel)]


def test_what_a_forecaster_sees(tmp_path: Path, resolved: Callable[..., dict[str, Any]]) -> None:
    """Kernel 3, dilations 1 and 2: 7 steps; of 32 in the window the forecasts of 4 steps leave 22 unseen."""
    torch.manual_seed(0)
    recipe = resolved(SERIES_RECIPE)
    source = prepare.make(recipe.data)[0]
    net = network.build(recipe, source).eval().requires_grad_(False)
    found = receptive_field_maps.section(subject(tmp_path, net, source))
    assert found.facts["fields"]["formula"] == found.facts["fields"]["gradient"] == 7
    assert "dilations [1, 1] would see 5" in found.shown[0].caption
    assert "oldest 22 of the 32" in found.shown[0].caption


def test_what_residual_blocks_see(tmp_path: Path, resolved: Callable[..., dict[str, Any]]) -> None:
    """Oracle: patches of 4 every 2, one block 3 wide: 4 + 2 * 2 = 8 steps; no gradient falls before them."""
    torch.manual_seed(0)
    net = {"channels": 4, "kernel_size": 3, "blocks": 1, "patch": 4, "stride": 2, "dropout": 0.1}
    net |= {"independent": True, "normalise": "none", "linear": False}
    recipe = resolved(
        {key: SERIES_RECIPE[key] for key in ("data", "train")} | {"arch": "tcn", "net": net}
    )
    source = prepare.make(recipe.data)[0]
    seer = subject(tmp_path, network.build(recipe, source).eval().requires_grad_(False), source)
    found = receptive_field_maps.section(seer)
    assert found.facts["fields"]["formula"] == 8 and found.facts["fields"]["half"] <= 8
    strength = receptive_field_maps.gradient(seer, source.served("test"))
    assert (strength[-8:] > 0).all() and (strength[:-8] == 0).all()
    assert "see 8 steps by formula, of a context of 32. Half" in found.shown[0].caption


def test_the_effective_field_of_one_mean_filter_is_the_filter() -> None:
    """Oracle: the middle unit of a 5 x 5 mean has equal gradient on 25 pixels; 90 % of it is on 23 of them."""
    conv = nn.Conv2d(1, 1, 5, padding=2)
    conv.weight.data.fill_(1 / 25)
    net = classifier(Chain([conv], 256))
    (strength,) = receptive_field_maps.effective(net, tensor(digits(16)[0][:4]), [conv], 0)
    assert (strength > 0).sum() == 25 and (strength[6:11, 6:11] > 0).all()
    assert receptive_field_maps.side_of(strength) == pytest.approx(np.sqrt(23))


def test_the_section_of_images(tmp_path: Path, images_of: Callable[..., dataset.Data]) -> None:
    """ResNet-8: 3 pixels, then two 3 x 3 a stage, strides 2: 3 + 4 = 7, 7 + 2 + 4 = 13 + 2 ... by hand below."""
    net = built("resnet", 40, **CIFAR)
    found = receptive_field_maps.section(subject(tmp_path, net, images_of(*digits(40))))
    pixels = {name: row["pixels"] for name, row in found.facts["fields"].items()}
    # stage2: a 3 x 3 with stride 2 adds 2, one at jump 2 adds 4; stage3: 3 x 3 stride 2 at jump 2 adds 4, at 4 adds 8
    assert pixels == {"conv1": 3, "stage1": 7, "stage2": 13, "stage3": 25}
    assert all(
        1 <= row["effective"] <= min(row["pixels"], 40) + 1
        for row in found.facts["fields"].values()
    )
