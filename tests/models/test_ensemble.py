"""models/ensemble.py: its members are independent TCNs, and its forecast is their mean."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from shop import CALENDAR, CONTEXT, HORIZON, MEMBERS, NET, untrained

import models
from models.ensemble import Ensemble
from pipeline.data import prepare
from pipeline.train import loop
from pipeline.train import losses as loss

Resolve = Callable[..., dict[str, Any]]


@pytest.fixture
def net() -> Ensemble:
    torch.manual_seed(0)
    given = {
        "series": 2,
        "targets": 1,
        "calendar": 4,
        "horizon": HORIZON,
        "context": CONTEXT,
        "quantiles": 3,
    }
    return models.build("ensemble", **given, **MEMBERS).eval()


def test_the_forecast_is_the_mean_of_tcns_with_their_own_contexts(net: Ensemble) -> None:
    """TCNs of the same weights on the newest rows alone, with the calendar of these and of the
    steps ahead.
    """
    x = torch.randn(3, CONTEXT + HORIZON, 6)
    expected = []
    for k, member in enumerate(net.members):
        rows, kind = (5, CONTEXT)[k // 3], ("instance", "last", "none")[k % 3]
        given = {
            "series": 2,
            "targets": 1,
            "calendar": 4,
            "horizon": HORIZON,
            "context": rows,
            "quantiles": 3,
        }
        alone = models.build("tcn", **given, **NET | {"normalise": kind}).eval()
        alone.load_state_dict(member.state_dict())
        expected.append(alone(x[:, CONTEXT - rows :]))
    assert len({tuple(y.flatten().tolist()) for y in expected}) == 6
    torch.testing.assert_close(net(x), sum(expected) / 6)
    assert net.receptive_field == max(member.convolution_field for member in net.members) >= CONTEXT


def test_members_train_as_they_would_alone(of_shop: Resolve) -> None:
    """Each member is compared with a TCN trained alone by the same steps on the same batches,
    without dropout.
    """
    members = MEMBERS | {"dropout": 0.0}
    recipe = of_shop(data=CALENDAR, train={"loss": "pinball", "aux_weight": 1.0}).updated(
        arch="ensemble", net=members
    )
    whole, source = untrained(recipe)
    alone = [copy.deepcopy(member) for member in whole.net.members]
    batch = loop.load_batches(source, "train", whole, torch.device("cpu"))
    ((x, y),) = batch.read([torch.arange(32)], None)
    for net, of in [(whole.train(), whole), *((copy.deepcopy(whole), member) for member in alone)]:
        if of is not whole:
            net.net = of.train()
        optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
        for _ in range(3):
            loop.optimizer_step(recipe, net, optimizer, x, y)
    for k, (member, by_itself) in enumerate(zip(whole.net.members, alone, strict=True)):
        for name, weight in by_itself.state_dict().items():
            torch.testing.assert_close(
                member.state_dict()[name], weight, msg=lambda m, k=k, n=name: f"{k} {n}: {m}"
            )


def test_each_member_ships_with_its_own_best_epoch(of_shop: Resolve) -> None:
    """By the snapshot of every epoch, and each member's pinball loss on validation rows."""
    asked = {
        "loss": "pinball",
        "aux_weight": 1.0,
        "epochs": 6,
        "lr": 0.1,
        "snapshots": [1, 2, 3, 4, 5, 6],
    }
    recipe = of_shop(data=CALENDAR, train=asked).updated(arch="ensemble", net=MEMBERS)
    source, cpu = prepare.make(recipe.data)[0], torch.device("cpu")
    net, state = loop.fit(recipe, source, on=cpu, label="shop")
    split = loop.load_batches(source, "validation", net, cpu)
    ((x, y),) = split.in_order(len(split))
    losses, other = torch.zeros(6, 6), copy.deepcopy(net)
    for epoch, weights in enumerate(state.snapshots.values()):
        other.load_state_dict(weights)
        with torch.no_grad():
            for k, member in enumerate(other.net.members):
                losses[epoch, k] = loss.pinball(member(x), y, recipe.train.levels)
    best = losses.argmin(0).tolist()
    assert len(set(best)) > 1 and state.best_epoch == max(best) + 1
    for k, epoch in enumerate(best):
        of = {
            name: w for name, w in net.state_dict().items() if name.startswith(f"net.members.{k}.")
        }
        assert of and all(
            torch.equal(w, state.snapshots[f"{epoch + 1:03d}"][name]) for name, w in of.items()
        )
    with torch.no_grad():
        whole = loss.pinball(net.net(x), y, recipe.train.levels)
    assert state.chosen["validation_loss"] == pytest.approx(float(whole), rel=1e-5)
    assert (
        state.chosen["validation_loss"] != state.history[state.chosen_epoch - 1]["validation_loss"]
    )


@pytest.mark.parametrize(
    "wrong", [{"look_backs": []}, {"look_backs": [CONTEXT + 1]}, {"normalise": []}]
)
def test_impossible_members_are_errors(wrong: dict[str, Any]) -> None:
    given = {
        "series": 2,
        "targets": 1,
        "calendar": 0,
        "horizon": HORIZON,
        "context": CONTEXT,
        "quantiles": 1,
    }
    with pytest.raises(
        ValueError, match=f"one and more of each, look-backs up to context {CONTEXT}"
    ):
        models.build("ensemble", **given, **MEMBERS | wrong)
