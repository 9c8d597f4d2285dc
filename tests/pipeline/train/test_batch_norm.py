"""Running statistics of batch normalisation are those of the training split from the first epoch
on.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from pipeline.data import prepare
from pipeline.network.modules import Classifier
from pipeline.params.schema import ResolvedTrain
from pipeline.train import batch_norm, loop
from pipeline.train.batches import Batches

Resolve = Callable[..., dict[str, Any]]


def test_statistics_are_the_mean_over_batches_until_the_moving_average_has_arrived() -> None:
    """numpy's mean of each batch's mean and unbiased variance, layer by layer in training mode."""
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.BatchNorm1d(3, momentum=0.01), nn.Linear(3, 2), nn.BatchNorm1d(2, momentum=0.01)
    ).train()
    batches = [torch.randn(8, 3) * 5 + 7 for _ in range(4)]
    net(batches[0])
    assert batch_norm.reestimate(net, net, batches)
    first, linear, second = net
    expected = (
        np.mean([b.numpy().mean(0) for b in batches], 0),
        np.mean([b.numpy().var(0, ddof=1) for b in batches], 0),
    )
    np.testing.assert_allclose(first.running_mean, expected[0], rtol=1e-5)
    np.testing.assert_allclose(first.running_var, expected[1], rtol=1e-5)
    inner = []
    for b in batches:
        x = b.numpy().astype(np.float64)
        normal = (x - x.mean(0)) / np.sqrt(x.var(0) + first.eps)
        inner.append(normal @ linear.weight.detach().numpy().T + linear.bias.detach().numpy())
    np.testing.assert_allclose(
        second.running_mean, np.mean([x.mean(0) for x in inner], 0), rtol=1e-4, atol=1e-5
    )
    np.testing.assert_allclose(
        second.running_var, np.mean([x.var(0, ddof=1) for x in inner], 0), rtol=1e-4
    )
    assert [int(layer.num_batches_tracked) for layer in (first, second)] == [
        1,
        1,
    ]  # the steps of training, no more
    assert [layer.momentum for layer in (first, second)] == [0.01, 0.01]


def test_converged_and_frozen_statistics_are_kept() -> None:
    """(1 - .01)^459 is .0099: after 459 steps a layer keeps its moving average, and so does one in
    evaluation mode at any time.
    """
    net = nn.Sequential(nn.BatchNorm1d(3, momentum=0.01), nn.BatchNorm1d(3, momentum=0.1)).train()
    net[0].num_batches_tracked.fill_(459)
    net[1].num_batches_tracked.fill_(44)
    assert not batch_norm.reestimate(net, net, [torch.randn(4, 3)])
    assert (net[0].running_mean == 0).all() and (net[1].running_var == 1).all()
    net[0].num_batches_tracked.fill_(458)
    net[1].num_batches_tracked.fill_(43)
    assert len(batch_norm.unsettled_layers(net)) == 2
    net[1].eval()
    assert batch_norm.unsettled_layers(net) == [net[0]]


@pytest.mark.parametrize(("precision", "seen"), [("bf16", torch.bfloat16), ("fp32", torch.float32)])
def test_statistics_are_of_the_precision_of_training_steps(
    precision: Literal["bf16", "fp32"], seen: torch.dtype
) -> None:
    inner = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(16, 3))
    net, given = Classifier(inner, torch.zeros(1, 1, 1), torch.ones(1, 1, 1)).train(), []
    inner[1].register_forward_pre_hook(lambda layer, inputs: given.append(inputs[0].dtype))
    split = Batches(torch.randint(256, (12, 1, 4, 4), dtype=torch.uint8), torch.arange(12) % 3)
    loop.reestimate_batch_norm(net, split, ResolvedTrain(batch=4, precision=precision))
    assert given == [seen] * 3 and inner[1].running_mean.any()


@pytest.mark.slow
@pytest.mark.parametrize("batch", [8, 32])
def test_two_colours_are_learned_from_forty_photos(
    tmp_path: Path, resolved: Resolve, batch: int
) -> None:
    """Red against green, 40 images, ten epochs: the moving average of Keras's momentum would still
    be at its start. Any trained network separates colours that no test image shares. Once batch 32
    predicted one class for every image (validation accuracy one half) while its training accuracy
    was 1.
    """
    rng = np.random.default_rng(0)
    for k in range(40):
        pixels = rng.integers(0, 60, (8, 8, 3))
        pixels[..., k % 2] += rng.integers(120, 190)
        folder = tmp_path / "photos" / ("red", "green")[k % 2]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{k}.png")
    recipe = resolved(
        {
            "arch": "cnn2",
            "data": {"set": "photos", "size": [8, 8], "colour": "rgb"},
            "net": {"dropout": 0.3},
            "train": {"epochs": 10, "batch": batch},
        },
        {
            "photos": {
                "source": "folder",
                "path": str(tmp_path / "photos"),
                "licence": "none",
                "test": 8,
            }
        },
    )
    source, _ = prepare.make(recipe.data)
    _, state = loop.fit(recipe, source, on=torch.device("cpu"), label="photos")
    assert state.chosen["validation_accuracy"] == 1.0
