"""Forecasting: squared error of the next rows, or the pinball loss of their quantiles."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pipeline.data.dataset import PIECE, Data, pieces
from pipeline.params.schema import ResolvedTrain
from pipeline.train.batches import Split, WindowBatches
from pipeline.train.losses import conformal_offsets, forecast_error

HAS_ACCURACY = False
CALIBRATED = 4096  # windows of training and validation that scaled intervals are made of


@torch.no_grad()
def load_batches(source: Data, split: str, net: Any, on: torch.device) -> WindowBatches:
    """Return windows and targets, cut from rows that the network's buffers have standardised.

    Values beyond the fences of the dataset, if it has any, count as these.
    """
    about, values, calendar = source.about, source.x[split], source.calendar(split)
    low, high = about.get("fences", (-np.inf, np.inf))
    columns, known = values.shape[1], 0 if calendar is None else calendar.shape[1]
    rows = torch.empty(len(values), columns + known, device=on)
    for into, part in zip(rows.split(PIECE), pieces(values), strict=True):
        within = part.clip(low, high).astype(np.float32)
        into[:, :columns] = net.standardise(torch.from_numpy(within).to(on))
    if calendar is not None:
        rows[:, columns:] = torch.from_numpy(calendar)
    places = source.places(split, about["train_stride" if split == "train" else "stride"])
    context, drawn = about["input"]["context"], about.get("windows_per_epoch")
    return WindowBatches(rows, places, context, columns, source.targets, drawn)


def forward(net: Any, x: Tensor, y: Tensor, train: ResolvedTrain) -> tuple[Tensor, ...]:
    """Return the architecture's forecasts (N, S or S * Q, D'), then those of further heads."""
    outputs = net.net(x)
    return outputs if isinstance(outputs, tuple) else (outputs,)


def training_loss(outputs: tuple[Tensor, ...], y: Tensor, train: ResolvedTrain) -> Tensor:
    """Return the error of the forecast and the weighted ones of further members."""
    zero = torch.zeros((), device=y.device)
    aside = sum((forecast_error(other, y, train) for other in outputs[1:]), zero)
    return objective(outputs, y, train) + train.aux_weight * aside


def objective(outputs: tuple[Tensor, ...], y: Tensor, train: ResolvedTrain) -> Tensor:
    """Return the mean error of the forecast."""
    return forecast_error(outputs[0], y, train)


def sum_correct(outputs: tuple[Tensor, ...], y: Tensor) -> Tensor:
    """Return 0: no forecast is right or wrong."""
    return torch.zeros((), device=y.device)


def statistics_forward(net: Any) -> Callable[[Tensor], object]:
    """Return the architecture, which takes standardised windows."""
    inner: Callable[[Tensor], object] = net.net
    return inner


@torch.no_grad()
def finish(net: Any, source: Data, validation: Split) -> None:
    """Set the offsets that make the forecast's quantiles hold on the validation split.

    Scaled ones hold on training and validation windows together: both splits see more of the year
    than the second alone. The offsets' guarantee is for windows that the network was not trained
    on; it is lost, and a network that overfits has intervals that are too narrow.
    """
    assert isinstance(validation, WindowBatches)
    splits = [validation]
    if net.usual is not None:
        splits.append(load_batches(source, "train", net, validation.device))
        net.usual.copy_(torch.cat([net.variance(x) for x, _ in windows(splits)]).mean(0))
    gaps = []
    for x, y in windows(splits):
        gap = net.to_units(y).unsqueeze(-1) - net.levels(net.net(x))
        gaps.append(gap if net.usual is None else gap / net.spread(x))
    net.offsets.copy_(conformal_offsets(torch.cat(gaps), source.about["forecast"]["quantiles"]))


def windows(splits: list[WindowBatches]) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield inputs and targets of all windows of one split; of several the same share of each,
    CALIBRATED together.
    """
    every = -(-sum(map(len, splits)) // CALIBRATED) if len(splits) > 1 else 1
    for split in splits:
        numbers = torch.arange(0, len(split), every, device=split.device)
        yield from split.read(numbers.split(500), None)
