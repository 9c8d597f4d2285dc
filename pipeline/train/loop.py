"""The training loop: epochs, validation, early stopping, checkpoints."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from pipeline.core.errors import StageError
from pipeline.core.stage import note, progress
from pipeline.data import dataset
from pipeline.network import build as network
from pipeline.network import modules, pretrained
from pipeline.params.schema import Training
from pipeline.train import augment, batch_norm, device, distributed, finetune
from pipeline.train.checkpoint import (
    LEAST_S,
    MOST_SHARE,
    State,
    read_checkpoint,
    record_epoch,
    write_checkpoint,
)
from pipeline.train.losses import autocast, conformal_offsets, objective, penalty
from pipeline.train.optim import lr_at, make_optimizer


@dataclass
class Batches:
    """A split on the device, with the network's inputs and the loss's targets."""

    x: Tensor  # uint8 (N, C, H, W) or standardised (M, T, D); with a calendar (M, T + S, D + F)
    y: Tensor  # int64 (N,) or standardised (M, S, targets)


def fit(
    recipe: Training,
    source: dataset.Data,
    *,
    on: torch.device,
    label: str,
    checkpoint: Path | None = None,
    on_epoch: Callable[[dict[str, float]], None] = lambda row: None,
    watch: Sequence[str] = (),
    base: pretrained.Base | None = None,
) -> tuple[modules.Classifier | modules.Forecaster, State]:
    """Return the trained network with the weights of the chosen epoch, and the training's state.

    watch: further splits whose loss and accuracy go into the history; nothing is chosen by them.
    base: the entry that the recipe starts from, where it is in memory; else it is read from out/.
    """
    train = recipe.train
    if train.loss == "pinball":  # the quantile levels that the validation split can calibrate
        recipe = recipe.updated(train={"levels": source.about["forecast"]["quantiles"]})
        train = recipe.train
    device.make_repeatable(recipe)
    torch.manual_seed(train.seed)
    net = network.build(recipe, source)
    device.require_repeatable(net, recipe, on, label)
    pretrained.load_start_weights(net, recipe, source.about.get("labels", []), base)
    net = device.place(net, on)
    optimizer = optimizer_of(recipe, net)
    state = State()
    if checkpoint and checkpoint.exists():
        state = read_checkpoint(checkpoint, net, optimizer)
    for row in state.history:
        on_epoch(row)
    if checkpoint:
        distributed.require_agreement(f"{checkpoint.name} after epoch {state.epoch}")
    fitting, validation = (load_batches(source, k, net, on) for k in ("train", "validation"))
    minimise = training_loss(recipe, net, fitting, validation, label, train.epochs - state.epoch)
    watched = {split: load_batches(source, split, net, on) for split in watch}
    spec = train.augment if source.task == "classification" else None
    change = augment.build(spec, fitting.x)
    saved, pause = time.monotonic(), LEAST_S
    bar = progress(train.epochs, f"train {label}", "epoch", state.epoch)
    patience = train.patience or train.epochs
    while state.epoch < train.epochs and state.epoch - state.best_epoch < patience:
        row = one_epoch(recipe, net, optimizer, fitting, validation, change, state, label, minimise)
        for split, part in watched.items():
            row[f"{split}_loss"], row[f"{split}_accuracy"] = evaluate(recipe, net, part)
        on_epoch(row)
        bar.update()
        bar.set_postfix_str(f"validation loss {row['validation_loss']:.4g}", refresh=False)
        if checkpoint and not distributed.rank() and (begun := time.monotonic()) - saved > pause:
            write_checkpoint(checkpoint, net, optimizer, state)
            saved = time.monotonic()
            pause = max(LEAST_S, (saved - begun) / MOST_SHARE)
    bar.close()
    if not train.epochs:  # the network is used as it was published
        row = untrained_row(recipe, net, fitting, validation)
        record_epoch(state, net, row, snapshot=False, losses={"": row["validation_loss"]})
        on_epoch(state.history[0])
    state.chosen_epoch = state.best_epoch if train.choose == "best" else state.epoch
    if train.choose == "best":
        net.load_state_dict(state.best)
        if "" not in state.least:
            state.kept = {"validation_loss": evaluate(recipe, net, validation)[0]}
    net.eval()  # a training that is resumed after its last epoch has not called `evaluate`
    if isinstance(net, modules.Forecaster):
        set_quantile_offsets(net, source, validation)
    return net, state


def optimizer_of(recipe: Training, net: Any) -> torch.optim.Optimizer:
    """Return the recipe's optimizer of the weights that it trains."""
    if recipe.head:
        groups = finetune.parameter_groups(net, recipe.head, recipe.train.epochs)
        return make_optimizer(recipe.train, groups)
    return make_optimizer(recipe.train, net.parameters())


def training_loss(
    recipe: Training, net: Any, fitting: Batches, validation: Batches, label: str, epochs: int
) -> Callable[..., tuple[Tensor, Tensor]]:
    """Return `loss_and_output` of the network as a function of (x, y, weight).

    It is compiled where that saves time in the `epochs` that are left, and its gradients are the
    mean over all processes.
    """
    train = recipe.train
    least, count = min(train.batch, len(fitting.x), len(validation.x)), distributed.size()
    if count > 1 and least < 2 * count:
        needed = f"{count} processes share {least} rows, expected two each"
        raise StageError(f"train {label}: {needed}; lower `processes:`")
    loss = distributed.average_gradients(
        partial(loss_and_output, recipe), net, partly=bool(recipe.head)
    )
    on, auto = fitting.x.device, train.compile == "auto"
    # A choice by the clock can differ from run to run, and compiled sums differ in their last bits.
    if train.compile == "off" or (auto and (on.type == "cpu" or recipe.deterministic)):
        return loss
    if missing := device.missing_for_compiling(on):
        if not auto:
            needed = f"train.compile: on is not possible, {missing}"
            raise StageError(f"train {label}: {needed}, or set train.compile: off")
        note(f"{label}: not compiled: {missing}")
        return loss
    if auto:
        steps = epochs * math.ceil(len(fitting.x) / train.batch)
        return device.compile_where_it_pays(loss, net, on, steps, label)
    net.net.compile()
    return loss


def one_epoch(
    recipe: Training,
    net: Any,
    optimizer: torch.optim.Optimizer,
    fitting: Batches,
    validation: Batches,
    change: augment.Augment,
    state: State,
    label: str,
    minimise: Callable[..., tuple[Tensor, Tensor]],
) -> dict[str, float]:
    """Train one epoch, evaluate the validation split, record both; return the history's new row."""
    train = recipe.train
    net.train()
    if recipe.head:
        finetune.freeze_stages(net, recipe.head, state.epoch)
    epoch = state.epoch
    sums = take_steps(recipe, net, optimizer, fitting, change, epoch, minimise)
    reestimate_batch_norm(net, fitting, train.batch)
    distributed.average_statistics(net)
    total, right, seen = distributed.sum_over_processes(*sums)
    row = {"epoch": epoch + 1, "lr": optimizer.param_groups[0]["lr"], "train_loss": total / seen}
    row["validation_loss"], accuracy = evaluate(recipe, net, validation)
    if fitting.y.dtype == torch.int64:
        row |= {"train_accuracy": right / seen, "validation_accuracy": accuracy}
    if not math.isfinite(row["train_loss"]) or not math.isfinite(row["validation_loss"]):
        values = f"train {row['train_loss']}, validation {row['validation_loss']}"
        what = f"the loss is not finite in epoch {epoch + 1} ({values})"
        cure = f"lower train.lr ({train.lr}), add warmup, or set clip_norm"
        raise StageError(f"train {label}: {what}; {cure}")
    require_finite_weights(net, label, epoch + 1)
    losses = {  # each member of an ensemble keeps the weights of its own best epoch
        f"net.members.{k}.": evaluate(recipe, net, validation, member)[0]
        for k, member in enumerate(getattr(net.net, "members", []))
    }
    losses = losses or {"": row["validation_loss"]}
    record_epoch(state, net, row, epoch + 1 in train.snapshots, losses)
    return row


def take_steps(
    recipe: Training,
    net: Any,
    optimizer: torch.optim.Optimizer,
    fitting: Batches,
    change: augment.Augment,
    epoch: int,
    minimise: Callable[..., tuple[Tensor, Tensor]],
) -> tuple[Tensor, Tensor, int]:
    """Take one epoch's steps; return the sums of losses and of correct predictions, and the rows.

    The sums are scalars on the device.
    """
    train = recipe.train
    # Seeded by the epoch: order, dropout and augmentation repeat when a training is resumed.
    distributed.seed_epoch(train.seed * 1_000_003 + epoch)
    drawn = torch.randperm(len(fitting.x), generator=distributed.shared_generator())
    order = device.send(drawn, fitting.x.device).split(train.batch)
    least = 2 * distributed.size()  # batch norm cannot train on one sample
    order = [rows for rows in order if len(rows) >= least or len(order) == 1]
    # On the device, so that a GPU need not wait for its host.
    total = right = torch.zeros((), dtype=torch.float64, device=fitting.x.device)
    seen = 0
    for i, rows in enumerate(order):
        for group in optimizer.param_groups:
            group["lr"] = lr_at(train, epoch + i / len(order)) * group.get("factor", 1.0)
        own = distributed.own_rows(rows)
        x, y = change(fitting.x[own], len(rows)), fitting.y[own]
        weight = len(own) * distributed.size() / len(rows)
        loss, correct = optimizer_step(recipe, net, optimizer, x, y, minimise, weight)
        total, right, seen = total + loss.double() * len(own), right + correct, seen + len(own)
    return total, right, seen


def reestimate_batch_norm(net: Any, fitting: Batches, batch: int) -> None:
    """Estimate unsettled batch-norm statistics from the training split in random order.

    The order is random because a split is sorted by class, and a batch of one class has not the
    variance of all classes.
    """
    if not batch_norm.unsettled_layers(net):
        return
    forward = net.logits if fitting.y.dtype == torch.int64 else net.net
    drawn = torch.randperm(len(fitting.x), generator=distributed.shared_generator())
    order = device.send(drawn, fitting.x.device)
    own, full_batches = distributed.own_rows(order), len(order) // distributed.size() // batch
    # Equally many batches in each process: a synchronized layer waits for all processes.
    rows = own.split(batch)[:full_batches] if full_batches else [own]
    batch_norm.reestimate(net, forward, (fitting.x[part] for part in rows))


def require_finite_weights(net: nn.Module, label: str, epoch: int) -> None:
    """Raise StageError where a weight is not finite.

    The loss need not show it: the weight may meet only the zeros of a padding.
    """
    for name, weight in net.named_parameters():
        if not weight.isfinite().all():
            cure = "lower train.lr, or set train.precision: fp32 (bf16 kernels may fail on padding)"
            what = f"{name.removeprefix('net.')} is not finite in epoch {epoch}"
            raise StageError(f"train {label}: {what}; {cure}")


def optimizer_step(
    recipe: Training,
    net: Any,
    optimizer: torch.optim.Optimizer,
    x: Tensor,
    y: Tensor,
    minimise: Callable[..., tuple[Tensor, Tensor]] | None = None,
    weight: float = 1.0,
) -> tuple[Tensor, Tensor]:
    """Take one optimizer step; return the loss without penalties, and correct predictions.

    weight: the rows of x over the mean number of rows of a process.
    """
    train = recipe.train
    optimizer.zero_grad(set_to_none=True)  # before the step: the last gradients stay readable
    loss, output = minimise(x, y, weight) if minimise else loss_and_output(recipe, net, x, y)
    loss.backward()
    if train.clip_norm:
        nn.utils.clip_grad_norm_(net.parameters(), train.clip_norm)
    optimizer.step()
    output = output.detach()
    correct = torch.zeros((), device=x.device)
    if y.dtype == torch.int64:
        correct = (output.argmax(1) == y).sum()
    return objective(output, y, train), correct


def loss_and_output(
    recipe: Training, net: Any, x: Tensor, y: Tensor, weight: float = 1.0
) -> tuple[Tensor, Tensor]:
    """Return the loss of a step, with penalties and auxiliary heads, and the network's output."""
    train = recipe.train
    with autocast(train.precision, x.device):
        outputs = net.logits(x) if y.dtype == torch.int64 else net.net(x)
    outputs = outputs if isinstance(outputs, tuple) else (outputs,)
    output, *auxiliary = (part.float() for part in outputs)
    zero = torch.zeros((), device=x.device)
    aside = sum((objective(other, y, train) for other in auxiliary), zero)
    loss = weight * (objective(output, y, train) + train.aux_weight * aside)
    return loss + penalty(net, train), output


def untrained_row(
    recipe: Training, net: Any, fitting: Batches, validation: Batches
) -> dict[str, float]:
    """Return the history row of a network that is not trained."""
    row: dict[str, float] = {"epoch": 0, "lr": 0.0}
    for split, part in (("train", fitting), ("validation", validation)):
        row[f"{split}_loss"], row[f"{split}_accuracy"] = evaluate(recipe, net, part)
    return row


def load_batches(source: dataset.Data, split: str, net: Any, on: torch.device) -> Batches:
    """Return a split on the device; series windows are standardised by the network's buffers."""
    if source.task == "classification":
        images = torch.from_numpy(np.array(source.x[split])).permute(0, 3, 1, 2).contiguous()
        return Batches(images.to(on), torch.from_numpy(np.array(source.y[split])).to(on))
    stride = source.about["train_stride" if split == "train" else "stride"]
    *inputs, target = (torch.from_numpy(part).to(on) for part in source.samples(split, stride))
    return Batches(net.standardise(*inputs), net.standardise(target))


@torch.no_grad()
def evaluate(
    recipe: Training, net: Any, split: Batches, member: nn.Module | None = None
) -> tuple[float, float]:
    """Return a split's mean loss without penalty and smoothing, and its accuracy (series: 0).

    member: the member of an ensemble to evaluate alone.
    """
    net.eval()
    total, right = 0.0, 0.0
    plain = recipe.train.updated(label_smoothing=0.0)
    batch = 2 * plain.batch  # what fits with gradients fits twice without
    parts = distributed.own_rows(split.x).split(batch), distributed.own_rows(split.y).split(batch)
    for x, y in zip(*parts, strict=True):
        output = net.logits(x) if y.dtype == torch.int64 else (member or net.net)(x)
        total += float(objective(output, y, plain)) * len(x)
        right += float((output.argmax(1) == y).sum()) if y.dtype == torch.int64 else 0.0
    total, right = distributed.sum_over_processes(total, right)
    return total / len(split.x), right / len(split.x)


@torch.no_grad()
def set_quantile_offsets(
    net: modules.Forecaster, source: dataset.Data, validation: Batches
) -> None:
    """Set the offsets that make the forecast's quantiles hold on the validation split."""
    levels = torch.cat([net.levels(net.net(x)) for x in validation.x.split(500)])
    gaps = net.to_units(validation.y).unsqueeze(-1) - levels
    net.offsets.copy_(conformal_offsets(gaps, source.about["forecast"]["quantiles"]))
