"""Forecasting: squared error of the next rows, or the pinball loss of their quantiles."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from pipeline.data.dataset import Data
from pipeline.params.schema import ResolvedTrain
from pipeline.train.batches import Batches, Split
from pipeline.train.losses import conformal_offsets, forecast_error

HAS_ACCURACY = False


def load_batches(source: Data, split: str, net: Any, on: torch.device) -> Batches:
    """Return windows and targets, standardised by the network's buffers."""
    stride = source.about["train_stride" if split == "train" else "stride"]
    *inputs, target = (torch.from_numpy(part).to(on) for part in source.samples(split, stride))
    return Batches(net.standardise(*inputs), net.standardise(target))


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
    assert isinstance(validation, Batches)  # series are on the device
    levels = torch.cat([net.levels(net.net(x)) for x in validation.x.split(500)])
    gaps = net.to_units(validation.y).unsqueeze(-1) - levels
    net.offsets.copy_(conformal_offsets(gaps, source.about["forecast"]["quantiles"]))
