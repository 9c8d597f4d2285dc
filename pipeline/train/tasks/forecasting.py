"""Forecasting: squared error of the next rows, or the pinball loss of their quantiles."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from models import closed_form
from pipeline.core.errors import StageError
from pipeline.core.stage import progress
from pipeline.data.dataset import PIECE, Data, pieces
from pipeline.data.series_sources import every_of
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
        values32 = torch.from_numpy(part.astype(np.float32))
        into[:, :columns] = net.standardise(values32.to(on))
    if calendar is not None:
        rows[:, columns:] = torch.from_numpy(calendar)
    places = source.places(split, about["train_stride" if split == "train" else "stride"])
    context, drawn = about["input"]["context"], about.get("windows_per_epoch")
    return WindowBatches(rows, places, context, columns, source.targets, drawn)


def forward(net: Any, x: Tensor, y: Tensor, train: ResolvedTrain) -> tuple[Tensor, ...]:
    """Return the architecture's forecasts (N, S or S * Q, D'), then those of further heads."""
    outputs = net.net(x)
    return outputs if isinstance(outputs, tuple) else (outputs,)


def objective(outputs: tuple[Tensor, ...], y: Tensor, train: ResolvedTrain) -> Tensor:
    """Return the mean error of the forecast."""
    return forecast_error(outputs[0], y, train)


def auxiliary_loss(outputs: tuple[Tensor, ...], y: Tensor, train: ResolvedTrain) -> Tensor | float:
    """Return the weighted error of further members."""
    return train.aux_weight * sum(forecast_error(other, y, train) for other in outputs[1:])


def sum_correct(outputs: tuple[Tensor, ...], y: Tensor) -> Tensor:
    """Return 0: no forecast is right or wrong."""
    return torch.zeros((), device=y.device)


def statistics_forward(net: Any) -> Callable[[Tensor], object]:
    """Return the architecture, which takes standardised windows."""
    inner: Callable[[Tensor], object] = net.net
    return inner


@torch.no_grad()
def solve(net: Any, source: Data, train: ResolvedTrain) -> None:
    """Give the network's linear maps their closed form, over all windows of the training split.

    They are not trained. Sums of all windows are taken piece by piece; the calendar is no part.
    """
    split = load_batches(source, "train", net, net.mean.device)
    sums = torch.zeros((), dtype=torch.float64, device=split.device)
    with progress(len(split), "closed form", "window") as bar:
        for x, y in windows([split]):
            # With a calendar the inputs have rows of the steps ahead, where the series are 0.
            sums = sums + closed_form.window_sums(x[:, : split.context], y)
            bar.update(len(x))
    levels = train.levels if train.loss == "pinball" else ()
    try:
        able = isinstance(net.net, closed_form.Solvable)
        solved = net.net.solve(sums, train.ridge, levels) if able else []
    except ValueError as error:
        raise StageError(f"train.start: {error}") from None
    if not solved:
        what = "expected a linear map for train.start: closed_form, as ltsflinear has, got none"
        raise StageError(f"{what} in {type(net.net).__name__}; set start: random")
    for weight in solved:
        weight.requires_grad_(False)
    if train.epochs and not any(weight.requires_grad for weight in net.parameters()):
        what = "train.start: closed_form leaves nothing to train"
        raise StageError(f"{what}, got train.epochs: {train.epochs}; set 0")


@torch.no_grad()
def choose_members(net: Any, validation: Split) -> dict[str, dict[str, float]]:
    """Let an ensemble pick its members by the squared errors of their median forecasts.

    Returns each member's share and its mean squared error, standardised, on validation rows, and
    those of the mean of the picked and of the mean of all, of which two may differ in their bias
    alone.
    """
    assert isinstance(validation, WindowBatches)
    inner, count = net.net, len(validation)
    parts = max(1, min(count, count * validation.stride // len(net.offsets)))
    part_of = torch.arange(count, device=validation.device) * parts // count
    sums = torch.zeros(
        parts, *2 * [len(inner.members)], dtype=torch.float64, device=validation.device
    )
    first = 0
    for x, y in windows([validation]):
        outputs = [member(x).unflatten(1, (y.shape[1], -1)) for member in inner.members]
        errors = torch.stack([(f[:, :, f.shape[2] // 2] - y).flatten(1) for f in outputs], 1)
        products = (errors @ errors.mT).double() / errors.shape[2]  # (N, K, K)
        sums.index_add_(0, part_of[first : first + len(x)], products)
        first += len(x)
    inner.pick(sums / part_of.bincount().view(-1, 1, 1))
    mean = sums.sum(0) / count  # (K, K)
    shares = (inner.counts / inner.counts.sum()).to(mean)
    rows = {
        label: {"share": float(share), "validation_mse": float(error)}
        for label, share, error in zip(inner.labels, shares, mean.diagonal(), strict=True)
    }
    return rows | {
        "picked": {"share": 1.0, "validation_mse": float(shares @ mean @ shares)},
        "mean of all": {"share": 1.0, "validation_mse": float(mean.mean())},
    }


@torch.no_grad()
def finish(net: Any, source: Data, validation: Split) -> None:
    """Set the offsets that make the forecast's quantiles hold on the validation split.

    Scaled ones hold on training and validation windows together: both splits see more of the year
    than the second alone. The offsets' guarantee is for windows that the network was not trained
    on; it is lost, and a network that overfits has intervals that are too narrow. A trained level
    .5, which is the forecast, has the offset that it has without scaling.
    """
    assert isinstance(validation, WindowBatches)
    levels = source.about["forecast"]["quantiles"]
    scaled, middle = net.usual is not None, len(levels) // 2
    splits = [validation]
    if scaled:
        splits.append(load_batches(source, "train", net, validation.device))
        net.usual.copy_(torch.cat([net.variance(x) for x, _ in windows(splits)]).mean(0))
    found = gaps(net, splits, scaled)
    offsets = conformal_offsets(found, levels)
    if scaled and found.shape[3] > 1:
        fixed = conformal_offsets(gaps(net, [validation], scaled=False), levels)
        offsets[..., middle] = fixed[..., middle]
    net.offsets.copy_(offsets)


def gaps(net: Any, splits: list[WindowBatches], scaled: bool) -> Tensor:
    """Return targets less the forecast or each of its levels, (M, S, D', 1 or Q), in units or in
    those of the window's spread.
    """
    found = []
    for x, y in windows(splits):
        gap = net.to_units(y).unsqueeze(-1) - net.levels(net.net(x))
        found.append(gap / net.spread(x) if scaled else gap)
    return torch.cat(found)


def windows(splits: list[WindowBatches]) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield inputs and targets of all windows of one split; of several the same share of each, as
    `every_of` says.
    """
    every = every_of([len(split) for split in splits])
    for split in splits:
        numbers = torch.arange(0, len(split), every, device=split.device)
        yield from split.read(numbers.split(500), None)
