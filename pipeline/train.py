"""Stage train: one loop for every architecture; the epoch is chosen, and training stopped, on the validation split.

Reads out/params/<entry>/train.json, out/<entry>/data and models/<arch>.py. Writes out/<entry>/train/ (weights, history,
gradients, layer table, snapshots), out/<entry>/curves (DVCLive) and results/<entry>/train.json.
Fails when the loss is not finite. Interrupted, it goes on from its last checkpoint and ends with the same numbers.

    python -m pipeline.train ENTRY
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from pipeline import augment, data, device, network, params, trained, tuning
from pipeline.checkpoint import CHECKPOINTS, LEAST_S, MOST_SHARE, State, checkpoint_path, copy_of, restore, store
from pipeline.loss import autocast, conformal, make_optimizer, objective, penalty
from pipeline.recipe import on_features
from pipeline.schedule import lr_at
from pipeline.stage import OUT, StageError, fresh, of_entry, progress, run

# Channels: on two CPU cores VGG-16's step halves, Inception's takes a third less, LeNet-5's would double.
CHANNELS_LAST_FROM = 128


@dataclass
class Batches:
    """A split on the device: inputs as the network takes them, targets as the loss takes them."""

    x: Tensor  # uint8 (N, C, H, W) or standardised (M, T, D); with a calendar (M, T + S, D + F)
    y: Tensor  # int64 (N,) or standardised (M, S, targets)


def fit(
    recipe: dict[str, Any],
    source: data.Data,
    *,
    on: torch.device,
    label: str,
    checkpoint: Path | None = None,
    on_epoch: Callable[[dict[str, float]], None] = lambda row: None,
    watch: Sequence[str] = (),
    base: network.Base | None = None,
) -> tuple[network.Classifier | network.Forecaster, State]:
    """Return the trained network, with the chosen epoch's weights, and the training's state.

    The history gets the loss and accuracy of the splits to `watch`, too; nothing is chosen by them. base: the
    entry that the recipe needs, where it is in memory.
    """
    train = recipe["train"]
    device.prepare(recipe)
    torch.manual_seed(train["seed"])
    net = network.build(recipe, source)
    network.start(net, recipe, source.about.get("labels", []), base)
    net = place(net, on)
    optimizer = make_optimizer(train, net, recipe.get("head"))
    state = restore(checkpoint, net, optimizer) if checkpoint and checkpoint.exists() else State()
    for row in state.history:
        on_epoch(row)
    fitting, validation = (batches(source, split, net, on) for split in ("train", "validation"))
    watched = {split: batches(source, split, net, on) for split in watch}
    change = augment.build(train["augment"], fitting.x) if source.task == "classification" else (lambda x: x)
    saved, pause = time.monotonic(), LEAST_S
    bar = progress(train["epochs"], label, "epoch", state.epoch)
    while state.epoch < train["epochs"] and not out_of_patience(state, train["patience"]):
        row = one_epoch(recipe, net, optimizer, fitting, validation, change, state, label)
        for split, part in watched.items():
            row[f"{split}_loss"], row[f"{split}_accuracy"] = evaluate(recipe, net, part)
        on_epoch(row)
        bar.update()
        bar.set_postfix_str(f"validation loss {row['validation_loss']:.4g}", refresh=False)
        if checkpoint and (begun := time.monotonic()) - saved > pause:
            store(checkpoint, net, optimizer, state)
            saved = time.monotonic()
            pause = max(LEAST_S, (saved - begun) / MOST_SHARE)
    bar.close()
    if not train["epochs"]:  # published weights as they are
        record(state, net, look(recipe, net, fitting, validation), snapshot=False)
        on_epoch(state.history[0])
    state.chosen_epoch = state.best_epoch if train["choose"] == "best" else state.epoch
    if train["choose"] == "best":
        net.load_state_dict(state.best)
    net.eval()  # a resume after the last epoch has not been through `evaluate`
    if isinstance(net, network.Forecaster):
        set_offsets(net, source, validation)
    return net, state


def place(net: Any, on: torch.device) -> Any:
    """Return the network on the device, its images channels last in memory where that is faster."""
    widest = max((m.out_channels for m in net.modules() if isinstance(m, nn.Conv2d)), default=0)
    last = widest >= (1 if on.type == "cuda" else CHANNELS_LAST_FROM)
    return net.to(on, memory_format=torch.channels_last) if last else net.to(on)


def one_epoch(
    recipe: dict[str, Any],
    net: Any,
    optimizer: torch.optim.Optimizer,
    fitting: Batches,
    validation: Batches,
    change: augment.Augment,
    state: State,
    label: str,
) -> dict[str, float]:
    """Train one epoch, look at the validation split, and record both in `state`; return the new history row."""
    train, epoch = recipe["train"], state.epoch
    # Seeded by the epoch, not carried along: order, dropout and augmentation repeat after a resume.
    torch.manual_seed(train["seed"] * 1_000_003 + epoch)
    order = torch.randperm(len(fitting.x)).to(fitting.x.device).split(train["batch"])
    order = [rows for rows in order if len(rows) > 1 or len(order) == 1]  # batch norm cannot train on one sample
    net.train()
    if recipe.get("head"):
        tuning.set_phase(net, recipe["head"], epoch)
    total, right, seen = 0.0, 0.0, 0
    for i, rows in enumerate(order):
        for group in optimizer.param_groups:
            group["lr"] = lr_at(train, epoch + i / len(order)) * group.get("factor", 1.0)
        loss, correct = step(recipe, net, optimizer, change(fitting.x[rows]), fitting.y[rows])
        total, right, seen = total + loss * len(rows), right + correct, seen + len(rows)
    row = {"epoch": epoch + 1, "lr": optimizer.param_groups[0]["lr"], "train_loss": total / seen}
    row["validation_loss"], accuracy = evaluate(recipe, net, validation)
    if fitting.y.dtype == torch.int64:
        row |= {"train_accuracy": right / seen, "validation_accuracy": accuracy}
    if not math.isfinite(row["train_loss"]) or not math.isfinite(row["validation_loss"]):
        raise StageError(
            f"train {label}: the loss is not finite in epoch {epoch + 1} (train {row['train_loss']}, validation "
            f"{row['validation_loss']}); lower train.lr ({train['lr']}), add warmup, or set clip_norm"
        )
    refuse_broken(net, label, epoch + 1)
    record(state, net, row, epoch + 1 in train["snapshots"])
    return row


def refuse_broken(net: nn.Module, label: str, epoch: int) -> None:
    """Raise StageError where a weight is not finite: the loss need not show it, where a kernel sees padding alone."""
    if broken := next((name for name, p in net.named_parameters() if not p.isfinite().all()), None):
        cure = "lower train.lr, or set train.precision: fp32 (a bf16 kernel may answer garbage where it sees padding)"
        raise StageError(f"train {label}: {broken.removeprefix('net.')} is not finite in epoch {epoch}; {cure}")


def step(
    recipe: dict[str, Any], net: Any, optimizer: torch.optim.Optimizer, x: Tensor, y: Tensor
) -> tuple[float, float]:
    """Take one optimizer step; return the batch's loss without penalties and the number of right answers."""
    train = recipe["train"]
    optimizer.zero_grad(set_to_none=True)  # here, not after the step: the last batch's gradients stay readable
    loss, output = loss_of(recipe, net, x, y)
    loss.backward()
    if train["clip_norm"]:
        nn.utils.clip_grad_norm_(net.parameters(), train["clip_norm"])
    optimizer.step()
    correct = float((output.argmax(1) == y).sum()) if y.dtype == torch.int64 else 0.0
    return float(objective(output.detach(), y, train)), correct


def loss_of(recipe: dict[str, Any], net: Any, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Return what a step minimises (penalties and auxiliary heads with it), and the network's own output."""
    train = recipe["train"]
    with autocast(train["precision"], x.device):
        output = net.logits(x) if y.dtype == torch.int64 else net.net(x)
    output, *auxiliary = (part.float() for part in (output if isinstance(output, tuple) else (output,)))
    aside = sum((objective(other, y, train) for other in auxiliary), torch.zeros((), device=x.device))
    return objective(output, y, train) + train["aux_weight"] * aside + penalty(net, train), output


def record(state: State, net: nn.Module, row: dict[str, float], snapshot: bool) -> None:
    """Add the epoch to `state`; keep its weights if they are the best so far or a snapshot is asked for."""
    state.epoch += 1
    state.history.append(row)
    state.gradients.append(gradients(net))
    if state.best_epoch == 0 or row["validation_loss"] < state.history[state.best_epoch - 1]["validation_loss"]:
        state.best_epoch, state.best = state.epoch, copy_of(net)
    if snapshot:
        state.snapshots[f"{state.epoch:03d}"] = copy_of(net)


def look(recipe: dict[str, Any], net: Any, fitting: Batches, validation: Batches) -> dict[str, float]:
    """Return the history row of a network that is not trained."""
    row: dict[str, float] = {"epoch": 0, "lr": 0.0}
    for split, part in (("train", fitting), ("validation", validation)):
        row[f"{split}_loss"], row[f"{split}_accuracy"] = evaluate(recipe, net, part)
    return row


def gradients(net: nn.Module) -> dict[str, float]:
    """Return the mean |gradient| of each weight, as the last batch left it."""
    weights = [(name.removeprefix("net."), p) for name, p in net.named_parameters() if p.dim() > 1]
    return {name: float(p.grad.abs().mean()) for name, p in weights if p.grad is not None}


def out_of_patience(state: State, patience: int | None) -> bool:
    return patience is not None and state.epoch - state.best_epoch >= patience


def batches(source: data.Data, split: str, net: Any, on: torch.device) -> Batches:
    """Return a split on the device. Series windows are standardised here once, by the network's own arithmetic."""
    if source.task == "classification":
        images = torch.from_numpy(np.array(source.x[split])).permute(0, 3, 1, 2).contiguous()
        return Batches(images.to(on), torch.from_numpy(np.array(source.y[split])).to(on))
    stride = source.about["train_stride" if split == "train" else "stride"]
    *given, target = (torch.from_numpy(part).to(on) for part in source.samples(split, stride))
    return Batches(net.standardise(*given), net.standardise(target))


@torch.no_grad()
def evaluate(recipe: dict[str, Any], net: Any, split: Batches) -> tuple[float, float]:
    """Return the mean loss (no penalty, no smoothing) and the accuracy of a split; for forecasts the accuracy is 0."""
    net.eval()
    total, right = 0.0, 0.0
    plain = recipe["train"] | {"label_smoothing": 0.0}
    batch = 2 * plain["batch"]  # what fits with gradients fits twice without
    for x, y in zip(split.x.split(batch), split.y.split(batch), strict=True):
        output = net.logits(x) if y.dtype == torch.int64 else net.net(x)
        total += float(objective(output, y, plain)) * len(x)
        right += float((output.argmax(1) == y).sum()) if y.dtype == torch.int64 else 0.0
    return total / len(split.x), right / len(split.x)


@torch.no_grad()
def set_offsets(net: network.Forecaster, source: data.Data, validation: Batches) -> None:
    """Set what the graph adds to its forecast, or to its own levels, so that they hold on the validation split."""
    answers = torch.cat([net.levels(net.net(x)) for x in validation.x.split(500)])
    gaps = net.own_units(validation.y).unsqueeze(-1) - answers
    net.offsets.copy_(conformal(gaps, source.about["forecast"]["quantiles"]))


def main() -> None:
    with of_entry("train") as name:
        recipe, source = params.entry(name, "data", "train"), data.load(name)
        on = device.choose(recipe["device"])
        print(f"   device {recipe['device']}: {device.describe(on)}, CPU threads {recipe['threads']}", file=sys.stderr)
        if on_features(recipe):
            from pipeline import heads  # scikit-learn: 3 s

            heads.make(name, recipe, source, on)
            return
        checkpoint = checkpoint_path(name, recipe, source, on)
        for old in CHECKPOINTS.glob(f"{name}@*.pt"):
            if old != checkpoint:
                old.unlink()
        fresh(OUT / name / "train")
        with trained.curves(OUT / name / "curves") as log:
            try:
                net, state = fit(recipe, source, on=on, label=name, checkpoint=checkpoint, on_epoch=log)
            except (torch.OutOfMemoryError, MemoryError):
                cure = f"lower train.batch ({recipe['train']['batch']}) or data.size"
                raise StageError(f"train {name}: {device.describe(on)} has too little memory; {cure}") from None
        trained.save(name, net, state, source)
        checkpoint.unlink(missing_ok=True)


if __name__ == "__main__":
    run(main)
