"""The selection of layers, their activations, and the network of an entry."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from subjects import CIFAR, DENSENET, Chain, built, classifier, digits, subject
from torch import nn

from pipeline.data import dataset
from pipeline.explain import activations
from pipeline.explain.activations import capture_outputs
from pipeline.explain.image_grid import to_tensor
from pipeline.network.features import Backbone
from pipeline.train.heads import Head, Headed


def test_layers_end_with_their_activation_and_leave_pools_out() -> None:
    net = built("resnet", 16, **CIFAR)
    x = to_tensor(digits(16)[0][:2])
    found = activations.find_layers(net, x)
    shapes = {layer.name: layer.shape for layer in found}
    assert shapes == {
        "conv1": (16, 16, 16),
        "stage1": (16, 16, 16),
        "stage2": (32, 8, 8),
        "stage3": (64, 4, 4),
    }
    assert found[0].module is net.net.features.relu1
    last = activations.find_layers(built("densenet", 32, **DENSENET), to_tensor(digits(32)[0][:1]))[
        -1
    ]
    assert (last.name, last.shape, type(last.module)) == (
        "denseblock4",
        (1024, 1, 1),
        nn.ReLU,
    )  # not the pool of 1 x 1


def test_layers_are_spread_over_the_depth() -> None:
    found = [activations.Layer(str(k), nn.Identity(), (1, 2, 2)) for k in range(10)]
    assert [layer.name for layer in activations.select_evenly(found, 4)] == ["0", "3", "6", "9"]
    assert (
        activations.select_evenly(found[:2], 4) == found[:2]
        and activations.select_evenly([], 4) == []
    )


@pytest.mark.parametrize(
    ("dtype", "captured"),
    [
        (torch.bfloat16, torch.float32),
        (torch.float32, torch.float32),
        (torch.float64, torch.float64),
        (torch.int64, torch.int64),
    ],
)
def test_only_bf16_is_captured_in_another_dtype(dtype: torch.dtype, captured: torch.dtype) -> None:
    class Cast(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.to(dtype) * 3

    net = classifier(nn.Sequential(Cast()))
    (found,) = capture_outputs(net, torch.full((1, 1, 2, 2), 150.0), ["net.0"])
    assert found is not None and found.dtype == captured and (found == 3).all()


def test_captured_activations_equal_the_modules_and_no_hook_stays() -> None:
    """The modules are applied here to normalised images; one that does not run gives None."""
    conv, aside = nn.Conv2d(1, 2, 3), nn.Linear(1, 1)
    net = classifier(Chain([conv, nn.ReLU()], 2 * 36))
    x = to_tensor(digits(8)[0][:3])
    first, second, third = capture_outputs(net, x, [conv, net.net.features[1], aside])
    assert (
        torch.equal(first, conv((x - 100) * 0.02))
        and torch.equal(second, first.relu())
        and third is None
    )
    assert not conv._forward_hooks


def test_the_network_of_a_forest_on_features_is_its_backbone(
    tmp_path: Path, images_of: Callable[..., dataset.Data]
) -> None:
    net = built("cnn2", 8, dropout=0.0)
    headed = Headed(Backbone(net, "penultimate"), Head("forest", {}, None))
    assert subject(tmp_path, headed, images_of(*digits(8))).classifier is net
