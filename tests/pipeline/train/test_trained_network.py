"""Loading a trained network: no weight is drawn at random before the file sets it."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import line
import pytest
import torch

import models
from pipeline.core.errors import StageError
from pipeline.data import dataset
from pipeline.params import load as params
from pipeline.params.schema import ExportRecipe
from pipeline.train.trained_network import WithoutDraws, load_network

IMAGES = {"in_channels": 1, "classes": 10}
NETWORKS: dict[str, dict[str, Any]] = {
    "vgg": {"size": (32, 32), "init": "normal"},
    "resnet": {"size": (32, 32)},
    "inception3": {"size": (75, 75), "aux": False},
    "lenet5": {"size": (32, 32)},  # with buffers that are not in the file
    "fcnn": {"size": (8, 8), "hidden": [16]},
    "densenet": {"size": (32, 32)},
    "zoo": {"in_channels": 3, "size": (32, 32), "name": "mobilenet_v2"},
}
NETWORKS = {arch: IMAGES | options for arch, options in NETWORKS.items()}
NETWORKS |= {  # other tasks
    arch: next(iter(vars(import_module(f"models.{arch}"))["REFERENCE"].values()))["options"]
    for arch in ("captioner", "causal", "ensemble", "farabet", "fasterrcnn")
}


@pytest.mark.parametrize("arch", NETWORKS)
def test_weights_of_the_file_replace_all_that_is_not_drawn(arch: str) -> None:
    """The oracle is a network that was initialised: torch's generator has not moved, and with the
    same state dict every parameter and buffer is equal.
    """
    drawn = models.build(arch, **NETWORKS[arch])
    before = torch.get_rng_state()
    with WithoutDraws():
        net = models.build(arch, **NETWORKS[arch])
    assert torch.equal(torch.get_rng_state(), before)
    net.load_state_dict(drawn.state_dict())
    pairs = [(dict(a.named_parameters()) | dict(a.named_buffers())) for a in (net, drawn)]
    assert pairs[0].keys() == pairs[1].keys()
    assert all(torch.equal(pairs[0][name], pairs[1][name]) for name in pairs[1])


@pytest.mark.usefixtures("root")
def test_a_file_that_was_edited_after_training_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """One sentence, as when the network is built to be trained."""
    recipe, source = params.entry(line.DIGITS, ExportRecipe), dataset.load(line.DIGITS)
    before = torch.get_rng_state()
    load_network(line.DIGITS, recipe, source)
    assert torch.equal(torch.get_rng_state(), before)

    def fail(*_: object) -> None:
        raise RuntimeError("mat1 and mat2 do not fit")

    monkeypatch.setattr("pipeline.network.build.assemble", fail)
    with pytest.raises(StageError, match=r"models/fcnn\.py.*mat1 and mat2 do not fit"):
        load_network(line.DIGITS, recipe, source)
