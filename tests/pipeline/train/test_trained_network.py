"""Loading a trained network: no weight is drawn at random before the file sets it."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import models
from pipeline.train.trained_network import WithoutDraws

IMAGES = {"in_channels": 1, "classes": 10}
NETWORKS: dict[str, dict[str, Any]] = {
    "vgg": {"size": (32, 32), "init": "normal"},
    "resnet": {"size": (32, 32)},
    "inception3": {"size": (75, 75), "aux": False},
    "lenet5": {"size": (32, 32)},  # with buffers that are not in the file
    "fcnn": {"size": (8, 8), "hidden": [16]},
}


@pytest.mark.parametrize("arch", NETWORKS)
def test_weights_of_the_file_replace_all_that_is_not_drawn(arch: str) -> None:
    """The oracle is a network that was initialised: torch's generator has not moved, and with the
    same state dict every parameter and buffer is equal.
    """
    options = IMAGES | NETWORKS[arch]
    drawn = models.build(arch, **options)
    before = torch.get_rng_state()
    with WithoutDraws():
        net = models.build(arch, **options)
    assert torch.equal(torch.get_rng_state(), before)
    net.load_state_dict(drawn.state_dict())
    pairs = [(dict(a.named_parameters()) | dict(a.named_buffers())) for a in (net, drawn)]
    assert pairs[0].keys() == pairs[1].keys()
    assert all(torch.equal(pairs[0][name], pairs[1][name]) for name in pairs[1])
