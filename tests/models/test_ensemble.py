"""models/ensemble.py: its members are independent TCNs, and its forecast is their mean."""

from __future__ import annotations

import copy
import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from shop import CALENDAR, CONTEXT, HORIZON, MEMBERS, NET, untrained

import models
from models import closed_form, ensemble
from models.ensemble import Ensemble, pick
from pipeline.core import stage
from pipeline.core.errors import StageError
from pipeline.data import prepare
from pipeline.export.tasks import forecasting
from pipeline.train import artifacts, loop
from pipeline.train import losses as loss
from pipeline.train.tasks import forecasting as windows_task

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


MAPS = [{"kind": "rlinear", "rank": 2}, {"look_back": 5}]
LINEAR = MEMBERS | {"normalise": [], "maps": MAPS, "choose": "greedy"}


def fitted(of_shop: Resolve, **net: Any) -> tuple[Any, Any, Any]:
    """Return the trained network, its state and its data: two TCNs and the maps, in two epochs."""
    recipe = of_shop(
        data={"targets": ["sales"]}, train={"start": "closed_form", "aux_weight": 1.0}
    ).updated(arch="ensemble", net=LINEAR | {"normalise": ["instance"]} | net)
    source = prepare.make(recipe.data)[0]
    return *loop.fit(recipe, source, on=torch.device("cpu"), label="shop"), source


def test_greedy_selection_finds_the_planted_best() -> None:
    """Errors by hand: of members 1 and 2 the errors cancel, 0 is the best alone, 3 the worst."""
    errors = torch.tensor([[1.0, 1, -1, 1], [2, 0, 2, 0], [-2, 0, -2, 0.1], [3, 3, 3, 3]])
    products = (errors @ errors.T / 4).double()
    assert pick(products, 1).tolist() == [1, 0, 0, 0]
    counts = pick(products, 10)
    share = (counts / counts.sum()).double()
    tens = (w for w in itertools.product(range(11), repeat=4) if sum(w) == 10)
    least = min(float(t @ products @ t) for t in (torch.tensor(w).double() / 10 for w in tens))
    assert counts[3] == 0 and float(share @ products @ share) == pytest.approx(least, abs=0.02)


def test_what_is_picked_is_the_forecast_and_is_recorded(
    of_shop: Resolve, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Squared errors of every member's own forecasts, and the share-weighed mean of these; a second
    network with the same weights picks the same.
    """
    monkeypatch.setattr(ensemble, "LEAST", 0)
    net, state, source = fitted(of_shop)
    split = loop.load_batches(source, "validation", net, torch.device("cpu"))
    ((x, y),) = split.in_order(len(split))
    inner = net.net
    with torch.no_grad():
        forecasts = [member(x) for member in inner.members]
        whole = inner(x)
    rows = list(state.members.items())
    assert [label for label, _ in rows[:4]] == inner.labels
    for (_, row), forecast in zip(rows, forecasts, strict=False):
        assert row["validation_mse"] == pytest.approx(
            float((forecast - y).square().mean()), rel=1e-5
        )
    shares = [row["share"] for _, row in rows[:4]]
    assert sum(shares) == pytest.approx(1) and 0 in shares
    mean = sum(share * forecast for share, forecast in zip(shares, forecasts, strict=True))
    torch.testing.assert_close(whole, mean, atol=1e-5, rtol=0)
    picked = float((whole - y).square().mean())
    assert state.members["picked"]["validation_mse"] == pytest.approx(picked, rel=1e-5)
    assert state.chosen["validation_loss"] == pytest.approx(picked, rel=1e-5)
    assert picked <= min(row["validation_mse"] for _, row in rows[:4])
    again = copy.deepcopy(net)
    again.net.picked = [0]
    again.load_state_dict(net.state_dict())
    torch.testing.assert_close(again.net(x), whole)


@pytest.mark.parametrize(
    ("members", "expected"), [({}, [0, 0, 1, 1]), ({"maps": [], "normalise": ["last"]}, [1, 1])]
)
def test_too_few_windows_that_do_not_overlap_pick_the_maps(
    members: dict[str, Any], expected: list[int]
) -> None:
    """By products of errors, a TCN is the best; nine windows cannot tell, ten can."""
    net = untrained_of(members)
    products = torch.eye(len(expected), dtype=torch.float64)
    products[0, 0] = 1e-3
    net.pick(products.expand(9, -1, -1))
    assert net.counts.tolist() == expected
    net.pick(products.expand(10, -1, -1))
    assert net.picked == [0] * len(net.picked)


def untrained_of(members: dict[str, Any]) -> Ensemble:
    given = {"series": 1, "targets": 1, "calendar": 0, "horizon": HORIZON, "context": CONTEXT}
    options = LINEAR | {"normalise": ["instance"]} | members
    net = models.build("ensemble", **given, quantiles=1, **options)
    assert isinstance(net, Ensemble)
    return net


@pytest.mark.parametrize(
    ("gains", "picked"),
    [
        ([0.1, 0.2, 0.3], {2, 3}),  # .2, with a standard error of .1 / sqrt(3)
        ([-0.1, 0.1, 0.15], {3, 4}),  # .05, with one of .132 / sqrt(3)
        ([0.5], {3, 4}),  # one window says nothing of its error
        ([-0.1, 0.1, 0.15] * 10, {2}),  # .05, with one of .0195
        ([-0.1, 0.1, -0.15] * 10, {4}),
    ],
)
def test_a_bias_must_gain_more_than_its_standard_error(
    gains: list[float], picked: set[int]
) -> None:
    """Of maps on 5 rows with and without bias, members 2 and 4, by hand. Those with a twin are good
    here, two TCNs and another map are not; what is left out would help.
    """
    maps = [{"look_back": 5}, {"rank": 2}, {"look_back": 5, "bias": False}]
    net = untrained_of({"maps": maps})
    products = torch.eye(5, dtype=torch.float64).repeat(len(gains), 1, 1)
    products[:, [0, 1, 3], [0, 1, 3]] = 100
    products[:, 2, 2] -= torch.tensor(gains, dtype=torch.float64)
    net.pick(products)
    assert set(net.picked) == picked


@pytest.mark.parametrize(
    ("stride", "bounds"),
    [
        (1, [0, 4, 7, 10, 14, 17, 20]),  # 20 windows, of which 6 of 3 rows do not overlap
        (2, [0, 2, 4, 5, 7, 9, 10]),
        (5, [0, 1, 2, 3, 4]),  # none overlap
    ],
)
def test_errors_are_taken_apart_by_windows_ahead(
    of_shop: Resolve, monkeypatch: pytest.MonkeyPatch, stride: int, bounds: list[int]
) -> None:
    """Each member's squared error in each part of the validation windows, one after the other; the
    parts' bounds by hand.
    """
    recipe = of_shop(data={"targets": ["sales"], "stride": stride})
    net, source = untrained(recipe.updated(arch="ensemble", net=LINEAR))
    split = loop.load_batches(source, "validation", net, torch.device("cpu"))
    got = []
    monkeypatch.setattr(type(net.net), "pick", lambda _, products: got.append(products))
    windows_task.choose_members(net, split)
    ((x, y),) = split.in_order(len(split))
    assert len(split) == bounds[-1] and len(got[0]) == len(bounds) - 1
    with torch.no_grad():
        errors = torch.stack([(member(x) - y).square().mean((1, 2)) for member in net.net.members])
    for products, (first, end) in zip(got[0], itertools.pairwise(bounds), strict=True):
        torch.testing.assert_close(
            products.diagonal().float(), errors[:, first:end].mean(1), rtol=1e-4, atol=1e-6
        )


def test_maps_in_closed_form_are_not_trained(of_shop: Resolve) -> None:
    """The closed form of all windows at once, over the same network's rows."""
    net, _, source = fitted(of_shop)
    split = loop.load_batches(source, "train", net, torch.device("cpu"))
    ((x, y),) = split.in_order(len(split))
    for number, kind, rank, rows in ((2, "rlinear", 2, CONTEXT), (3, "nlinear", 0, 5)):
        alone = models.build(
            "ltsflinear", series=1, horizon=HORIZON, context=rows, quantiles=1, kind=kind, rank=rank
        )
        alone.solve(closed_form.window_sums(x, y), 1e-3, ())
        torch.testing.assert_close(
            net.net.members[number](x), alone(x[:, :, :1]), atol=1e-4, rtol=1e-4
        )


def test_a_calendar_changes_no_closed_form(
    of_shop: Resolve, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a calendar the inputs have rows of the steps ahead, whose series are 0. The progress is
    counted in windows.
    """
    bars = []

    def progress(total: int, *words: str) -> Any:
        bars.append(stage.progress(total, *words))
        return bars[-1]

    monkeypatch.setattr(windows_task, "progress", progress)
    found = []
    for data in ({"targets": ["sales"]}, CALENDAR):
        recipe = of_shop(data=data, train={"epochs": 0, "start": "closed_form"})
        net, source = untrained(recipe.updated(arch="ensemble", net=LINEAR))
        windows_task.solve(net, source, recipe.train)
        found.append([member.net.state_dict() for member in net.net.members])
        split = loop.load_batches(source, "train", net, torch.device("cpu"))
        assert bars[-1].n == bars[-1].total == len(split)
    torch.testing.assert_close(*found)


@pytest.mark.parametrize(("counts", "members"), [([3, 0, 0, 1], [0, 3]), ([0, 0, 2, 0], [2])])
def test_the_weights_of_the_file_are_counted(
    of_shop: Resolve, workspace: Path, counts: list[int], members: list[int]
) -> None:
    """And of all members, where none is picked out."""
    net, state, source = fitted(of_shop)
    sizes = [sum(p.numel() for p in member.parameters()) for member in net.net.members]
    for choice, expected in ((counts, members), ([1, 1, 1, 1], [0, 1, 2, 3])):
        net.net.counts.copy_(torch.tensor(choice))
        net.load_state_dict(net.state_dict())
        Path("out/shop/train").mkdir(parents=True, exist_ok=True)
        artifacts.save("shop", net, state, source)
        facts = json.loads(Path("results/shop/train.json").read_text())
        assert facts["parameters"] == sum(sizes[k] for k in expected)


def test_an_option_choose_of_another_network_picks_no_members(
    of_shop: Resolve, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = of_shop(train={"epochs": 1})
    build = loop.network.build
    monkeypatch.setattr(loop.network, "build", lambda _, source: build(recipe, source))
    other = recipe.updated(net=recipe.net | {"choose": "softmax"})
    source = prepare.make(recipe.data)[0]
    assert not loop.fit(other, source, on=torch.device("cpu"), label="shop")[1].members


def test_the_exported_file_has_the_picked_members_alone(of_shop: Resolve) -> None:
    """onnxruntime beside torch, and the weights of the file by hand."""
    net, _, source = fitted(of_shop, normalise=["last"])
    net.net.counts.copy_(torch.tensor([0, 0, 0, 1]))
    net.load_state_dict(net.state_dict())
    x = source.served("test")
    file = forecasting.export(net, x)
    weights = {tuple(tensor.dims) for tensor in file.graph.initializer}
    assert (HORIZON, 5) in weights and (2, CONTEXT) not in weights
    ours = onnxruntime.InferenceSession(file.SerializeToString()).run(None, {"series": x})
    with torch.no_grad():
        theirs = net(torch.from_numpy(x))
    for got, expected in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(got, expected.numpy(), rtol=1e-4, atol=1e-3)


def test_a_closed_form_needs_a_map_and_leaves_something_to_train(of_shop: Resolve) -> None:
    with pytest.raises(StageError, match=r"expected a linear map .*got none in Ensemble"):
        fitted(of_shop, maps=[])
    with pytest.raises(StageError, match=r"leaves nothing to train, got train.epochs: 2; set 0"):
        fitted(of_shop, normalise=[])


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
