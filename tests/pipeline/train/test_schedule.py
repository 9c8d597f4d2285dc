"""Learning rates at certain epochs, by hand, and compared with torch's own schedulers."""

import math
from typing import Any

import pytest
import torch
from recipes import ROOT

from pipeline.params.load import read_yaml
from pipeline.params.schema import Train
from pipeline.train.optim import lr_at


def train(schedule: str, **options: Any) -> Train:
    return Train(epochs=20, lr=0.1).updated(schedule=schedule, **options)


def test_constant() -> None:
    assert {lr_at(train("constant"), epoch) for epoch in (0, 0.5, 19.99)} == {0.1}


@pytest.mark.parametrize(
    ("epoch", "lr"), [(0, 0.1), (4.99, 0.1), (5, 0.01), (11.99, 0.01), (12, 0.001), (19, 0.001)]
)
def test_step_decays_after_the_given_epochs(epoch: float, lr: float) -> None:
    assert lr_at(train("step", steps=[5, 12]), epoch) == pytest.approx(lr, rel=1e-12)


def test_sparsetsf_decays_as_published() -> None:
    """The authors' `type3`: in epoch k lr from 0 to 3, then lr .8^(k - 3), to the last."""
    recipe = read_yaml(ROOT / "params.yaml")["models"]["sparsetsf-etth1"]["train"]
    rates = [lr_at(Train().updated(**recipe), epoch) for epoch in range(recipe["epochs"])]
    assert rates == pytest.approx([0.02] * 3 + [0.02 * 0.8**k for k in range(27)], rel=1e-12)


@pytest.mark.parametrize(("epoch", "falls"), [(0, 0), (1.99, 0), (2, 1), (19.5, 9)])
def test_step_decays_at_equal_intervals(epoch: float, falls: int) -> None:
    """Inception's schedule: times .94 after each second epoch."""
    assert lr_at(train("step", every=2, factor=0.94), epoch) == pytest.approx(
        0.1 * 0.94**falls, rel=1e-12
    )


@pytest.mark.parametrize(
    ("epoch", "share"), [(0, 1), (20 / 3, 0.75), (10, 0.5), (40 / 3, 0.25), (20, 0)]
)
def test_cosine(epoch: float, share: float) -> None:
    """(1 + cos(pi t)) / 2 at t = 0, 1/3, 1/2, 2/3, 1."""
    assert lr_at(train("cosine"), epoch) == pytest.approx(0.1 * share, abs=1e-15)


def test_cosine_equals_torch() -> None:
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.1)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=20)
    for epoch in range(20):
        assert lr_at(train("cosine"), epoch) == pytest.approx(scheduler.get_last_lr()[0], rel=1e-9)
        optimizer.step()
        scheduler.step()


@pytest.mark.parametrize(
    ("epoch", "lr"),
    [
        (0, 0.1 / 25),
        (3, (0.1 / 25 + 0.1) / 2),
        (6, 0.1),
        (13, (0.1 + 0.1 / 25e4) / 2),
        (20, 0.1 / 25e4),
    ],
)
def test_onecycle(epoch: float, lr: float) -> None:
    """Peak after 30 % of 20 epochs; the middle of either half cosine is the mean of its ends."""
    assert lr_at(train("onecycle"), epoch) == pytest.approx(lr, rel=1e-9)


def test_onecycle_equals_torch() -> None:
    """torch counts its last step as the end: 1,001 steps over 20 epochs."""
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0, momentum=0.9)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=0.1, total_steps=1001, cycle_momentum=False
    )
    for step in range(1001):
        # torch's peak is one step earlier (.3 * 1001 - 1): near the peak both are flat
        assert lr_at(train("onecycle"), step / 50) == pytest.approx(
            scheduler.get_last_lr()[0], abs=4e-4
        )
        optimizer.step()
        if step < 1000:
            scheduler.step()


@pytest.mark.parametrize("schedule", ["constant", "step", "cosine", "onecycle"])
def test_warm_up_is_linear_and_comes_first(schedule: str) -> None:
    """From (nearly) 0 up to lr in 4 epochs; then the schedule over the remaining 16."""
    options = train(schedule, warmup=4, steps=[10])
    ramp = [lr_at(options, epoch) for epoch in (0, 1, 2, 3)]
    assert ramp == pytest.approx([0, 0.025, 0.05, 0.075], abs=1e-4) and ramp[0] > 0
    later = {"constant": 0.1, "step": 0.01, "cosine": 0.05, "onecycle": None}[schedule]
    if later is not None:
        assert lr_at(options, 12) == pytest.approx(later, rel=1e-9)
    else:
        assert lr_at(options, 4 + 0.3 * 16) == pytest.approx(0.1, rel=1e-9)


@pytest.mark.parametrize("schedule", ["constant", "step", "cosine", "onecycle"])
@pytest.mark.parametrize("warmup", [0, 3, 20, 30])
def test_never_negative_never_above_lr(schedule: str, warmup: int) -> None:
    options = train(schedule, warmup=warmup, steps=[3, 9])
    for k in range(401):
        lr = lr_at(options, k / 20)
        assert math.isfinite(lr) and 0 <= lr <= 0.1 * (1 + 1e-3)
