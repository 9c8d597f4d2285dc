"""The training loop: epochs, validation, early stopping, checkpoints."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from models.ensemble import Choosing
from pipeline.core.errors import StageError
from pipeline.core.stage import note, progress
from pipeline.data import dataset
from pipeline.network import build as network
from pipeline.network import pretrained
from pipeline.params.schema import ResolvedTrain, Training
from pipeline.train import (
    augment,
    averaging,
    batch_norm,
    device,
    distributed,
    finetune,
    mixing,
    photo_batches,
)
from pipeline.train.batches import Split, TrainingSplit
from pipeline.train.checkpoint import (
    LEAST_S,
    MOST_SHARE,
    State,
    read_checkpoint,
    record_epoch,
    write_checkpoint,
)
from pipeline.train.losses import autocast, penalty
from pipeline.train.optim import lr_at, make_optimizer
from pipeline.train.tasks import TASKS, forecasting


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
) -> tuple[Any, State]:
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
    if train.start == "closed_form":
        forecasting.solve(net, source, train)
    optimizer = optimizer_of(recipe, net)
    average = averaging.copy_network(net, train)
    shipped = average or net
    state = State()
    if checkpoint and checkpoint.exists():
        state = read_checkpoint(checkpoint, net, optimizer, average)
    for row in state.history:
        on_epoch(row)
    if checkpoint:
        distributed.require_agreement(f"{checkpoint.name} {state.where}")
    fitting, validation = splits_of(recipe, source, net, on)
    minimise = training_loss(recipe, net, fitting, validation, label, train.epochs - state.epoch)
    watched = {split: load_batches(source, split, net, on) for split in watch}
    change = augment.build(train.augment, fitting.x, mixing.mixes(train))
    mix = mixing.build(train, len(source.about.get("labels", [])))
    keep = checkpoint_writer(checkpoint, net, optimizer, state, average)
    bar = progress(train.epochs, f"train {label}", "epoch", state.epoch)
    patience = train.patience or train.epochs
    while state.epoch < train.epochs and state.epoch - state.best_epoch < patience:
        row = one_epoch(
            recipe,
            net,
            optimizer,
            fitting,
            validation,
            change,
            state,
            label,
            minimise,
            keep,
            mix,
            average,
        )
        row |= evaluate_splits(recipe, shipped, watched)
        on_epoch(row)
        bar.update()
        bar.set_postfix_str(f"validation loss {row['validation_loss']:.4g}", refresh=False)
        keep()
    bar.close()
    if not train.epochs:  # the network is used as it was published, or solved for
        row = {"epoch": 0, "lr": 0.0}
        row |= evaluate_splits(recipe, net, {"train": fitting, "validation": validation})
        record_epoch(state, net, row, snapshot=False, losses={"": row["validation_loss"]})
        on_epoch(state.history[0])
    load_chosen(recipe, net, state, validation, average)
    net.eval()  # a training that is resumed after its last epoch has not called `evaluate`
    if isinstance(net.net, Choosing) and net.net.picks:
        state.members = forecasting.choose_members(net, validation)
        state.kept = {"validation_loss": evaluate(recipe, net, validation)[0]}
    TASKS[net.task].finish(net, source, validation)
    return net, state


def splits_of(
    recipe: Training, source: dataset.Data, net: Any, on: torch.device
) -> tuple[TrainingSplit, Split]:
    """Return the training and the validation split: on the device, or where one is in shards."""
    if source.shards:
        return photo_batches.open_splits(recipe, source, on)
    fitting, validation = (load_batches(source, k, net, on) for k in ("train", "validation"))
    return fitting, validation


def checkpoint_writer(
    path: Path | None, net: Any, optimizer: torch.optim.Optimizer, state: State, average: Any
) -> Callable[[], None]:
    """Return a function that writes a checkpoint when it is time for one, in process 0."""
    saved, pause = time.monotonic(), LEAST_S

    def keep() -> None:
        nonlocal saved, pause
        if path and not distributed.rank() and (begun := time.monotonic()) - saved > pause:
            write_checkpoint(path, net, optimizer, state, average)
            saved = time.monotonic()
            pause = max(LEAST_S, (saved - begun) / MOST_SHARE)

    return keep


def load_chosen(
    recipe: Training, net: Any, state: State, validation: Split, average: Any = None
) -> None:
    """Give the network the weights of the epoch that the recipe chooses, and note the epoch."""
    if recipe.train.choose == "last":
        state.chosen_epoch = state.epoch
        if average:
            net.load_state_dict(average.state_dict())
        return
    state.chosen_epoch = state.best_epoch
    net.load_state_dict(state.best)
    if "" not in state.least:
        state.kept = {"validation_loss": evaluate(recipe, net, validation)[0]}


def optimizer_of(recipe: Training, net: Any) -> torch.optim.Optimizer:
    """Return the recipe's optimizer of the weights that it trains."""
    if recipe.head:
        groups = finetune.parameter_groups(net, recipe.head, recipe.train.epochs)
        return make_optimizer(recipe.train, groups)
    return make_optimizer(recipe.train, net.parameters())


def training_loss(
    recipe: Training, net: Any, fitting: TrainingSplit, validation: Split, label: str, epochs: int
) -> Callable[..., tuple[Tensor, Tensor, Any]]:
    """Return `loss_and_outputs` of the network as a function of (x, y, weight).

    It is compiled where that saves time in the `epochs` that are left, and its gradients are the
    mean over all processes.
    """
    train = recipe.train
    least, count = min(train.batch, fitting.drawn, len(validation)), distributed.size()
    if count > 1 and least < 2 * count:
        needed = f"{count} processes share {least} rows, expected two each"
        raise StageError(f"train {label}: {needed}; lower `processes:`")
    loss = distributed.average_gradients(
        partial(loss_and_outputs, recipe), net, partly=bool(recipe.head)
    )
    on, auto = fitting.device, train.compile == "auto"
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
        steps = epochs * math.ceil(fitting.drawn / train.batch)
        return device.compile_where_it_pays(loss, net, on, steps, label)
    net.net.compile()
    return loss


def one_epoch(
    recipe: Training,
    net: Any,
    optimizer: torch.optim.Optimizer,
    fitting: TrainingSplit,
    validation: Split,
    change: augment.Augment,
    state: State,
    label: str,
    minimise: Callable[..., tuple[Tensor, Tensor, Any]],
    keep: Callable[[], None] = lambda: None,
    mix: mixing.Mix = lambda x, y: (x, y),
    average: Any = None,
) -> dict[str, float]:
    """Train one epoch, evaluate the validation split, record both; return the history's new row.

    keep: writes a checkpoint where it is time; called where the epoch may be interrupted.
    average: the network of the average weights, which is then the one that is evaluated and kept.
    """
    train, shipped = recipe.train, average or net
    for each in (net, average) if average else (net,):
        each.train()
        if recipe.head:
            finetune.freeze_stages(each, recipe.head, state.epoch)
    epoch = state.epoch
    sums = take_steps(recipe, net, optimizer, fitting, change, state, minimise, keep, mix, average)
    for each in (net, average) if average else (net,):
        reestimate_batch_norm(each, fitting, train)
        distributed.average_statistics(each)
    total, right, seen = sums.added_to(state.sums)
    row = {"epoch": epoch + 1, "lr": optimizer.param_groups[0]["lr"], "train_loss": total / seen}
    row["validation_loss"], accuracy = evaluate(recipe, shipped, validation)
    if TASKS[net.task].HAS_ACCURACY:
        row |= {"train_accuracy": right / seen, "validation_accuracy": accuracy}
    if not math.isfinite(row["train_loss"]) or not math.isfinite(row["validation_loss"]):
        values = f"train {row['train_loss']}, validation {row['validation_loss']}"
        what = f"the loss is not finite in epoch {epoch + 1} ({values})"
        cure = f"lower train.lr ({train.lr}), add warmup, or set clip_norm"
        raise StageError(f"train {label}: {what}; {cure}")
    require_finite_weights(net, label, epoch + 1)
    losses = {  # each member of an ensemble keeps the weights of its own best epoch
        f"net.members.{k}.": evaluate(recipe, shipped, validation, member)[0]
        for k, member in enumerate(getattr(shipped.net, "members", []))
    }
    losses = losses or {"": row["validation_loss"]}
    record_epoch(state, net, row, epoch + 1 in train.snapshots, losses, average)
    return row


def take_steps(
    recipe: Training,
    net: Any,
    optimizer: torch.optim.Optimizer,
    fitting: TrainingSplit,
    change: augment.Augment,
    state: State,
    minimise: Callable[..., tuple[Tensor, Tensor, Any]],
    keep: Callable[[], None] = lambda: None,
    mix: mixing.Mix = lambda x, y: (x, y),
    average: Any = None,
) -> Sums:
    """Take the steps that are left of an epoch; return the sums of those since its last pause.

    At a pause `state` gets the sums of all steps before it. All processes are alike then, and what
    is drawn later depends on the step's number alone: an interrupted epoch is resumed there.
    The sums of mixed images are by mixed labels.
    """
    train, epoch, first = recipe.train, state.epoch, state.step
    # Seeded by the epoch: order, dropout and augmentation repeat when a training is resumed.
    seed = train.seed * 1_000_003 + epoch
    distributed.seed_epoch(seed)
    order = fitting.shuffled().split(train.batch)
    least = 2 * distributed.size()  # batch norm cannot train on one sample
    order = [rows for rows in order if len(rows) >= least or len(order) == 1]
    parts = [distributed.own_rows(rows, mixing.mixes(train)) for rows in order[first:]]
    pause = fitting.pause(train.batch)
    sums = Sums(fitting.device)
    bar = progress(len(order), f"epoch {epoch + 1}", "step", first)
    for i, (x, y) in enumerate(fitting.read(parts, seed), first):
        if i and i % pause == 0:
            if i > first:
                distributed.average_statistics(net)
                state.step, state.sums = i, sums.added_to(state.sums)
                sums = Sums(fitting.device)
                keep()
            distributed.seed_epoch(seed, i)
        for group in optimizer.param_groups:
            group["lr"] = lr_at(train, epoch + i / len(order)) * group.get("factor", 1.0)
        x, y = mix(*change(x, y, len(order[i]), parts[i - first] if fitting.in_memory else None))
        weight = len(x) * distributed.size() / len(order[i])
        sums.add(*optimizer_step(recipe, net, optimizer, x, y, minimise, weight), len(x))
        device.fill_new_tensors(False)  # after one step: does the network read what it left unset?
        if average:
            averaging.update(average, net, train.ema, epoch * len(order) + i)
        bar.update()
    bar.close()
    return sums


class Sums:
    """Sums over rows of losses and of correct predictions, and the rows.

    They are scalars on the device, so that a GPU need not wait for its host.
    """

    def __init__(self, on: torch.device):
        self.total = self.right = torch.zeros((), dtype=torch.float64, device=on)
        self.rows = 0

    def add(self, loss: Tensor, right: Tensor, rows: int) -> None:
        """Add a step's mean loss and correct predictions."""
        self.total, self.right = self.total + loss.double() * rows, self.right + right
        self.rows += rows

    def added_to(self, before: Sequence[float]) -> list[float]:
        """Return `before` and these sums over all processes, added; it waits for the device."""
        sums = distributed.sum_over_processes(self.total, self.right, self.rows)
        return [a + b for a, b in zip(before, sums, strict=True)]


def reestimate_batch_norm(net: Any, fitting: TrainingSplit, train: ResolvedTrain) -> None:
    """Estimate unsettled batch-norm statistics from the training split in random order.

    The order is random because a split is sorted by class, and a batch of one class has not the
    variance of all classes. The precision is that of training steps, of which settled statistics
    are.
    """
    if not batch_norm.unsettled_layers(net):
        return
    forward = TASKS[net.task].statistics_forward(net)
    order = fitting.shuffled()
    own, full_batches = distributed.own_rows(order), len(order) // distributed.size() // train.batch
    # Equally many batches in each process: a synchronized layer waits for all processes.
    rows = own.split(train.batch)[:full_batches] if full_batches else [own]
    with autocast(train.precision, fitting.device):
        batch_norm.reestimate(net, forward, (x for x, _ in fitting.read(rows, None)))


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
    minimise: Callable[..., tuple[Tensor, Tensor, Any]] | None = None,
    weight: float = 1.0,
) -> tuple[Tensor, Tensor]:
    """Take one optimizer step; return the loss without penalties, and correct predictions.

    weight: the rows of x over the mean number of rows of a process.
    """
    train = recipe.train
    optimizer.zero_grad(set_to_none=True)  # before the step: the last gradients stay readable
    minimise = minimise or partial(loss_and_outputs, recipe, net)
    loss, objective, outputs = minimise(x, y, weight)
    loss.backward()
    if train.clip_norm:
        nn.utils.clip_grad_norm_(net.parameters(), train.clip_norm)
    optimizer.step()
    with torch.no_grad():
        return objective.detach(), TASKS[net.task].sum_correct(outputs, y)


def loss_and_outputs(
    recipe: Training, net: Any, x: Tensor, y: Tensor, weight: float = 1.0
) -> tuple[Tensor, Tensor, Any]:
    """Return the loss of a step, with auxiliary heads and penalties, and without, and the network's
    outputs.
    """
    train, task = recipe.train, TASKS[net.task]
    with autocast(train.precision, x.device):
        outputs = task.forward(net, x, y, train)
    outputs = tree_map(in_float32, outputs)
    objective = task.objective(outputs, y, train)
    loss = weight * (objective + task.auxiliary_loss(outputs, y, train)) + penalty(net, train)
    return loss, objective, outputs


def in_float32(part: Any) -> Any:
    """Return a tensor of autocast's type as float32, anything else as it is."""
    return part.float() if isinstance(part, Tensor) and part.is_floating_point() else part


def evaluate_splits(recipe: Training, net: Any, splits: Mapping[str, Split]) -> dict[str, float]:
    """Return each split's loss and, where the task has one, accuracy, by a history row's keys."""
    row = {}
    for split, part in splits.items():
        row[f"{split}_loss"], accuracy = evaluate(recipe, net, part)
        if TASKS[net.task].HAS_ACCURACY:
            row[f"{split}_accuracy"] = accuracy
    return row


def load_batches(source: dataset.Data, split: str, net: Any, on: torch.device) -> TrainingSplit:
    """Return a split on the device."""
    return TASKS[net.task].load_batches(source, split, net, on)


@torch.no_grad()
def evaluate(
    recipe: Training, net: Any, split: Split, member: nn.Module | None = None
) -> tuple[float, float]:
    """Return a split's mean loss without penalty and smoothing, and its accuracy, 0 without one.

    member: the member of an ensemble to evaluate alone.
    """
    net.eval()
    task, total, right = TASKS[net.task], 0.0, 0.0
    judged = SimpleNamespace(net=member) if member else net
    plain = recipe.train.updated(label_smoothing=0.0)
    batch = 2 * plain.batch  # what fits with gradients fits twice without
    for x, y in split.in_order(batch):
        outputs = task.forward(judged, x, y, plain)
        total += float(task.objective(outputs, y, plain)) * len(x)
        right += float(task.sum_correct(outputs, y))
    total, right = distributed.sum_over_processes(total, right)
    return total / len(split), right / len(split)
