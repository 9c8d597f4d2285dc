"""Receptive fields, drawn and measured: causal stacks, residual blocks and effective fields."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from recipes import SERIES_RECIPE
from subjects import CIFAR, Chain, built, classifier, digits, subject
from torch import nn

from models.causal import Causal
from pipeline.data import dataset, prepare
from pipeline.explain import receptive_field_maps
from pipeline.explain.image_grid import to_tensor
from pipeline.explain.temporal_saliency import input_gradients
from pipeline.network import build as network


@pytest.mark.parametrize(
    ("kernel", "dilations", "size"), [(2, [1] * 4, 5), (2, [1, 2, 4, 8], 16), (5, [1, 2, 4, 8], 61)]
)
def test_the_graph_and_the_gradient_give_the_same_oldest_step(
    kernel: int, dilations: list[int], size: int
) -> None:
    """4 and 15 steps back."""
    net = Causal(
        series=2, horizon=3, channels=3, kernel_size=kernel, dilations=dilations, activation="none"
    )
    edges = receptive_field_maps.find_dependencies(kernel, dilations)
    assert max(start for start, _ in edges[0]) == size - 1
    assert receptive_field_maps.measure_field(net, 70, 2) == size
    assert edges[-1] == [(k * dilations[-1], 0) for k in range(kernel)]


def test_the_receptive_field_of_a_forecaster(
    tmp_path: Path, resolved: Callable[..., dict[str, Any]]
) -> None:
    """Kernel 3, dilations 1 and 2: 7 steps; of 32 in the window the forecasts of 4 steps leave 22
    unused.
    """
    torch.manual_seed(0)
    recipe = resolved(SERIES_RECIPE)
    source = prepare.make(recipe.data)[0]
    net = network.build(recipe, source).eval().requires_grad_(False)
    found = receptive_field_maps.make_section(subject(tmp_path, net, source))
    assert found.facts["formula"] == found.facts["gradient"] == 7
    assert "Dilations [1, 1] would see 5" in found.pictures[0].caption
    assert "oldest 22 steps" in found.pictures[0].caption


def test_the_receptive_field_of_residual_blocks(
    tmp_path: Path, resolved: Callable[..., dict[str, Any]]
) -> None:
    """Patches of 4 every 2, one block 3 wide: 4 + 2 * 2 = 8 steps; there is no gradient before
    them.
    """
    torch.manual_seed(0)
    net = {"channels": 4, "kernel_size": 3, "blocks": 1, "patch": 4, "stride": 2, "dropout": 0.1}
    net |= {"independent": True, "normalise": "none", "linear": False}
    recipe = resolved(
        {key: SERIES_RECIPE[key] for key in ("data", "train")} | {"arch": "tcn", "net": net}
    )
    source = prepare.make(recipe.data)[0]
    seer = subject(tmp_path, network.build(recipe, source).eval().requires_grad_(False), source)
    found = receptive_field_maps.make_section(seer)
    assert found.facts["formula"] == 8 and found.facts["half"] <= 8
    strength = input_gradients(seer.net, source.served("test"), [-1])[0]
    assert (strength[-8:] > 0).all() and (strength[:-8] == 0).all()
    assert "see 8 steps by formula, of a context of 32. Half" in found.pictures[0].caption


def test_the_effective_field_of_one_mean_filter_is_the_filter() -> None:
    """The middle unit of a 5 x 5 mean has equal gradients on 25 pixels; 90 % of them are on 23."""
    conv = nn.Conv2d(1, 1, 5, padding=2)
    conv.weight.data.fill_(1 / 25)
    net = classifier(Chain([conv], 256))
    (strength,) = receptive_field_maps.effective_fields(
        net, to_tensor(digits(16)[0][:4]), [conv], 0
    )
    assert (strength > 0).sum() == 25 and (strength[6:11, 6:11] > 0).all()
    assert receptive_field_maps.effective_side(strength) == pytest.approx(np.sqrt(23))


def test_the_section_of_images(tmp_path: Path, images_of: Callable[..., dataset.Data]) -> None:
    """ResNet-8: 3 pixels, then two 3 x 3 a stage, strides 2: 3 + 4 = 7, 7 + 2 + 4 = 13 + 2 ...
    by hand below.
    """
    net = built("resnet", 40, **CIFAR)
    found = receptive_field_maps.make_section(subject(tmp_path, net, images_of(*digits(40))))
    pixels = {name: row["pixels"] for name, row in found.facts.items()}
    # stage2: a 3 x 3 with stride 2 adds 2, one at jump 2 adds 4; stage3: 3 x 3 stride 2 at jump 2
    # adds 4, at 4 adds 8
    assert pixels == {"conv1": 3, "stage1": 7, "stage2": 13, "stage3": 25}
    assert all(1 <= row["effective"] <= min(row["pixels"], 40) + 1 for row in found.facts.values())
