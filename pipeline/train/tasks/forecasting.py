"""Forecasting: squared error of the next rows, or the pinball loss of their quantiles."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pipeline.data.dataset import PIECE, Data, pieces
from pipeline.params.schema import ResolvedTrain
from pipeline.train.batches import Split, WindowBatches
from pipeline.train.losses import conformal_offsets, forecast_error

HAS_ACCURACY = False


@torch.no_grad()
def load_batches(source: Data, split: str, net: Any, on: torch.device) -> WindowBatches:
    """Return windows and targets, cut from rows that the network's buffers have standardised."""
    about, values, calendar = source.about, source.x[split], source.calendar(split)
    columns, known = values.shape[1], 0 if calendar is None else calendar.shape[1]
    rows = torch.empty(len(values), columns + known, device=on)
    for into, part in zip(rows.split(PIECE), pieces(values), strict=True):
        into[:, :columns] = net.standardise(torch.from_numpy(part.astype(np.float32)).to(on))
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
    """Set the offsets that make the forecast's quantiles hold on the validation split."""
    assert isinstance(validation, WindowBatches)
    numbers = torch.arange(len(validation), device=validation.device)
    gaps = [
        net.to_units(y).unsqueeze(-1) - net.levels(net.net(x))
        for x, y in validation.read(numbers.split(500), None)
    ]
    net.offsets.copy_(conformal_offsets(torch.cat(gaps), source.about["forecast"]["quantiles"]))
