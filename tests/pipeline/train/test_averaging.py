"""The exponential moving average: its formula, its batch norms, and that it is what ships."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from recipes import IMAGE_RECIPE, SERIES_RECIPE
from torch import nn

from pipeline.data import prepare
from pipeline.params.schema import Train
from pipeline.train import averaging, loop

CPU = torch.device("cpu")
Resolve = Callable[..., Any]


def test_the_average_follows_its_formula() -> None:
    """numpy: d = min(.5, (1 + t) / (10 + t)) is .1, 2/11, .25, ..., .5 from t = 8 on."""
    net = nn.Linear(3, 2)
    average = averaging.copy_network(net, Train(ema=0.5))
    assert average is not None and averaging.copy_network(net, Train()) is None
    expected, random = net.weight.detach().numpy().copy(), np.random.default_rng(0)
    for step in range(12):
        weight = random.standard_normal((2, 3)).astype(np.float32)
        net.weight.data = torch.from_numpy(weight)
        averaging.update(average, net, 0.5, step)
        decay = 0.5 if step >= 8 else (1 + step) / (10 + step)
        expected = decay * expected + (1 - decay) * weight
    np.testing.assert_allclose(average.weight.detach().numpy(), expected, rtol=1e-5, atol=1e-6)
    assert torch.equal(net.weight, torch.from_numpy(weight))


@pytest.mark.parametrize("choose", ["best", "last"])
@pytest.mark.parametrize("base", [IMAGE_RECIPE, SERIES_RECIPE], ids=["images", "series"])
def test_the_average_is_validated_and_shipped(
    resolved: Resolve, base: dict[str, Any], choose: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The chosen row is that of the weights that come back, which are the average's of that epoch,
    not the last step's.
    """
    kept: list[dict[str, torch.Tensor]] = []
    raw: list[dict[str, torch.Tensor]] = []
    real = loop.record_epoch

    def recorded(state: Any, net: Any, *rest: Any) -> None:
        kept.append({name: p.detach().clone() for name, p in rest[-1].named_parameters()})
        raw.append({name: p.detach().clone() for name, p in net.named_parameters()})
        real(state, net, *rest)

    monkeypatch.setattr(loop, "record_epoch", recorded)
    recipe = resolved(base, train={"ema": 0.9, "choose": choose, "snapshots": [2]})
    source, _ = prepare.make(recipe.data)
    net, state = loop.fit(recipe, source, on=CPU, label="tiny")
    validation = loop.load_batches(source, "validation", net, CPU)
    assert loop.evaluate(recipe, net, validation)[0] == state.chosen["validation_loss"]
    for name, weight in net.named_parameters():
        assert torch.equal(weight, kept[state.chosen_epoch - 1][name])
        assert not torch.equal(weight, raw[state.chosen_epoch - 1][name])
        assert torch.equal(state.snapshots["002"][name], kept[1][name])
    assert state.history[-1]["validation_loss"] < state.history[0]["validation_loss"]


def test_its_batch_norms_have_statistics_of_its_own(resolved: Resolve) -> None:
    """numpy: mean and variance of the dense layer's outputs over the whole batches of the training
    split, drawn at random, so near those of the split.
    """
    recipe = resolved(
        IMAGE_RECIPE, net={"dropout": 0.0}, train={"ema": 0.95, "batch": 50, "choose": "last"}
    )
    source, _ = prepare.make(recipe.data)
    net, _ = loop.fit(recipe, source, on=CPU, label="tiny")
    dense, norm = (
        next(layer for layer in net.modules() if isinstance(layer, kind))
        for kind in (nn.Linear, nn.BatchNorm1d)
    )
    seen: list[torch.Tensor] = []
    dense.register_forward_hook(lambda layer, inputs, output: seen.append(output.detach()))
    loop.evaluate(recipe, net, loop.load_batches(source, "train", net, CPU))
    outputs = torch.cat(seen).numpy()
    np.testing.assert_allclose(norm.running_mean.numpy(), outputs.mean(0), rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(norm.running_var.numpy(), outputs.var(0, ddof=1), rtol=0.05)
