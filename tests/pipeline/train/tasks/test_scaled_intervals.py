"""`intervals: scaled`: coverage where the noise changes, widths by hand, and an unchanged forecast."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from pipeline.data import dataset, prepare
from pipeline.network.modules import Forecaster
from pipeline.train.tasks import forecasting

Resolve = Callable[..., Any]
CPU = torch.device("cpu")
CONTEXT, HORIZON = 24, 4


class Zero(nn.Module):
    """The best forecast of noise."""

    def forward(self, x: Tensor) -> Tensor:
        return x.new_zeros(len(x), HORIZON, 1)


@pytest.fixture
def noise(tmp_path: Path, resolved: Resolve) -> dataset.Data:
    """Noise that is calm or twice as strong for 100 rows each while it trains, strong while it
    validates, calm in the test.
    """
    deviation = np.concatenate(
        [np.tile(np.repeat([1.0, 2.0], 100), 10), np.full(600, 2), np.ones(800)]
    )
    values = deviation * np.random.default_rng(0).normal(size=len(deviation))
    path = tmp_path / "noise.csv"
    path.write_text("y\n" + "\n".join(map(str, values.tolist())))
    sets = {"noise": {"source": "csv", "path": str(path), "splits": [2000, 2600, 3400]}}
    sets["noise"]["licence"] = "own"
    data = {"set": "noise", "context": CONTEXT, "horizon": HORIZON}
    recipe = {"arch": "ltsflinear", "data": data, "train": {"epochs": 1}}
    return prepare.make(resolved(recipe, sets).data)[0]


class Levels(nn.Module):
    """Three levels of noise about a median that is .1 too high."""

    def forward(self, x: Tensor) -> Tensor:
        return x.new_tensor([-1.0, 0.1, 1.0]).repeat(HORIZON).view(1, -1, 1).repeat(len(x), 1, 1)


def calibrated(
    source: dataset.Data, scaled: bool, architecture: Callable[[], nn.Module] = Zero
) -> Forecaster:
    mean, scale = (torch.from_numpy(np.array(part)) for part in (source.mean, source.scale))
    usual = torch.ones(1) if scaled else None
    net = Forecaster(architecture(), mean, scale, torch.zeros(HORIZON, 1, 3), usual)
    forecasting.finish(net, source, forecasting.load_batches(source, "validation", net, CPU))
    return net


def test_scaled_intervals_hold_where_noise_changes(noise: dataset.Data) -> None:
    """80 % intervals from strong noise hold nearly every calm target; scaled ones about as many as
    they should, half the way between.
    """
    history, target = (torch.from_numpy(part) for part in noise.windows("test"))
    inside, answers = {}, {}
    for scaled in (False, True):
        forecast, quantiles = calibrated(noise, scaled)(history)
        low, high = quantiles[..., 0], quantiles[..., -1]
        inside[scaled] = float(((low <= target) & (target <= high)).float().mean())
        answers[scaled] = forecast
    assert inside[False] > 0.97 and 0.77 < inside[True] < 0.86, inside
    assert torch.equal(answers[False], answers[True])


def test_a_median_that_is_the_forecast_is_not_scaled(noise: dataset.Data) -> None:
    """The forecast equals that with fixed intervals, and by hand what validation rows say: their
    median, far from the trained one. The outer levels follow the noise of the window.
    """
    history, _ = (torch.from_numpy(part) for part in noise.windows("test"))
    (fixed, _), (forecast, quantiles) = (
        calibrated(noise, scaled, Levels)(history) for scaled in (False, True)
    )
    torch.testing.assert_close(forecast, fixed, rtol=0, atol=1e-6)
    _, target = noise.windows("validation")
    by_hand = torch.from_numpy(np.median(target, axis=0)).expand_as(forecast)
    torch.testing.assert_close(forecast, by_hand, rtol=0, atol=1e-5)
    assert len(quantiles[..., 0].unique()) > len(history) / 2


@pytest.mark.parametrize(
    ("rows", "intervals", "windows"),
    [
        ((100, 112, 124), "fixed", 9),  # 12 - 4 + 1
        ((100, 112, 124), "scaled", 82),  # and 100 - 28 + 1
        ((5000, 5012, 5024), "scaled", 2492),  # every second of 9, and of 4,973
    ],
)
def test_levels_are_those_that_the_calibrating_windows_allow(
    tmp_path: Path,
    resolved: Resolve,
    monkeypatch: pytest.MonkeyPatch,
    rows: tuple[int, ...],
    intervals: str,
    windows: int,
) -> None:
    """Level q needs 1 / q - 1 windows, of the splits that calibrate, as the note counts them and as
    the training stage takes them.
    """
    path = tmp_path / "long.csv"
    path.write_text("y\n" + "\n".join(str(k % 7 + k % 5) for k in range(rows[-1])))
    sets = {"long": {"source": "csv", "path": str(path), "splits": [*rows], "licence": "own"}}
    for least, able in ((windows, True), (windows + 1, False)):
        q = 1 / (least + 1)
        data = {"set": "long", "context": CONTEXT, "horizon": HORIZON, "intervals": intervals}
        data["quantiles"] = [q, 0.5, 1 - q]
        recipe = {"arch": "ltsflinear", "data": data, "train": {"epochs": 1}}
        source = prepare.make(resolved(recipe, sets).data)[0]
        assert (len(source.about["forecast"]["quantiles"]) == 3) == able
        note = [text for text in source.about["notes"] if "interval" in text]
        cure = "a longer validation split" if intervals == "fixed" else "more rows"
        expected = [f" {windows} windows", f"; give {cure}, or"]
        assert bool(note) != able and all(part in text for text in note for part in expected)
    taken = []
    monkeypatch.setattr(
        forecasting, "conformal_offsets", lambda gaps, levels: taken.append(len(gaps)) or gaps[0]
    )
    calibrated(source, intervals == "scaled")
    assert taken == [windows]


def test_the_spread_by_hand(noise: dataset.Data) -> None:
    """Windows -1, 1, -1, ... in standard units have variance 1; with half the usual deviation of 2
    beside it the spread is sqrt(1 + 1), and 1 where nothing varies.
    """
    net = calibrated(noise, scaled=True)
    assert net.usual is not None
    net.usual.fill_(4.0)
    varied = torch.tensor([-1.0, 1.0]).repeat(CONTEXT // 2)
    x = torch.stack([varied, torch.full((CONTEXT,), 3.0)]).unsqueeze(2)
    torch.testing.assert_close(net.spread(x).flatten(), torch.tensor([2**0.5, 1.0]))
    units = x / net.scale + net.mean
    width = net(units)[1].diff(dim=-1)
    torch.testing.assert_close(width[0], 2**0.5 * width[1])
    assert (width > 0).all()
