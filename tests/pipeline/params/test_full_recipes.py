"""`size: full`: every recipe with a `full:` block resolves and builds its network, without data."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from recipes import ROOT

from benchmarks.gpu.recipes import like
from pipeline.network import build as network
from pipeline.params.load import check_set, read_yaml
from pipeline.params.recipe import built_on, check_recipe
from pipeline.params.schema import ImageData

PARAMS = read_yaml(ROOT / "params.yaml")
FULL = [name for name, recipe in PARAMS["models"].items() if "full" in recipe]
# The part of a photo that each ImageNet network's paper trains on.
CROPS = {
    **dict.fromkeys(("alexnet", "vgg", "zoo"), "random"),
    **dict.fromkeys(
        ("googlenet", "inception3", "inceptionresnet", "resnet", "densenet"), "random_resized"
    ),
}
# Parameters with 1,000 classes, as torchvision's documentation of its own networks has them.
PARAMETERS = {
    "vgg11-digits": 132_863_336,
    "vgg13-digits": 133_047_848,
    "vgg16-digits": 138_357_544,
    "vgg16bn-digits": 138_365_992,
    "vgg19-digits": 143_667_240,
    "inception3-digits": 27_161_264,
    "resnet18-digits": 11_689_512,
    "resnet34-digits": 21_797_672,
    "resnet50-digits": 25_557_032,
    "resnet101-digits": 44_549_160,
    "resnet152-digits": 60_192_808,
    "densenet121-digits": 7_978_856,
    "densenet161-digits": 28_681_000,
    "densenet169-digits": 14_149_480,
    "densenet201-digits": 20_013_928,
    "squeezenet-digits": 1_235_496,
}


@pytest.fixture(scope="module")
def sets() -> dict[str, Any]:
    return {name: check_set(name, spec) for name, spec in PARAMS["data"].items()}


@pytest.mark.parametrize("name", FULL)
def test_a_full_recipe_resolves_and_builds_its_network(name: str, sets: dict[str, Any]) -> None:
    """Of ImageNet the training split is in shards, from which the paper's crop is cut."""
    recipe = check_recipe(name, built_on(name, PARAMS["models"]), sets, "full")
    with torch.device("meta"):  # weights of no content
        net = network.assemble(recipe, like(recipe))
    if name in PARAMETERS:
        assert sum(weight.numel() for weight in net.parameters()) == PARAMETERS[name]
    data, augment = recipe.data, recipe.train.augment
    assert isinstance(data, ImageData)
    if min(data.size) > 200:
        assert data.set == "imagenet" and data.layout == "shards"
        assert augment is not None and augment.crop == CROPS[recipe.arch]
        assert data.shorter_px is not None and data.shorter_px > max(data.size)
    else:
        assert data.layout == "array" and (augment is None or augment.crop == "none")


def test_every_imagenet_network_is_among_them() -> None:
    found = {PARAMS["models"][name]["arch"] for name in FULL}
    assert set(CROPS) <= found and set(PARAMETERS) <= set(FULL)
