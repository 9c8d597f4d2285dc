"""Interrupted training: what it carries from epoch to epoch, and the checkpoint that it goes on from.

Checkpoints lie outside DVC's outputs, under a key of recipe, data, code and device: none is resumed under another.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import sys
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn

from pipeline.core import digest as code
from pipeline.core.paths import OUT
from pipeline.data import dataset
from pipeline.params.schema import Recipe
from pipeline.train import distributed

CHECKPOINTS = OUT / "checkpoints"
LEAST_S, MOST_SHARE = 1.0, 0.05  # between checkpoints; of the time that writing them may take


@dataclass
class State:
    """Everything that training carries from epoch to epoch besides the network and the optimizer."""

    epoch: int = 0
    history: list[dict[str, float]] = field(default_factory=list)
    gradients: list[dict[str, float]] = field(
        default_factory=list
    )  # mean |gradient| of each weight, last batch
    best_epoch: int = 0
    chosen_epoch: int = 0  # whose weights ship: the best or the last, by params
    best: dict[str, Tensor] = field(default_factory=dict)
    least: dict[str, float] = field(
        default_factory=dict
    )  # validation loss of `best`, by where its names begin
    kept: dict[str, float] = field(
        default_factory=dict
    )  # what `chosen` says otherwise than its history row
    snapshots: dict[str, dict[str, Tensor]] = field(default_factory=dict)

    @property
    def chosen(self) -> dict[str, float]:
        """The history row of the weights that ship; members of an ensemble may each be of another epoch."""
        row = self.history[self.chosen_epoch - 1]
        return row | self.kept if self.kept else row


def copy_weights(net: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.detach().cpu().clone() for name, tensor in net.state_dict().items()}


def record_epoch(
    state: State, net: nn.Module, row: dict[str, float], snapshot: bool, losses: dict[str, float]
) -> None:
    """Add the epoch to `state`; keep the weights of each part whose loss is its least, and a snapshot if asked for."""
    state.epoch += 1
    state.history.append(row)
    state.gradients.append(mean_gradients(net))
    if better := tuple(
        part for part, loss in losses.items() if loss < state.least.get(part, math.inf)
    ):
        weights = copy_weights(net)
        state.best |= {
            k: w for k, w in weights.items() if k.startswith(better) or k not in state.best
        }
        state.least |= {part: losses[part] for part in better}
        state.best_epoch = state.epoch
    if snapshot:
        state.snapshots[f"{state.epoch:03d}"] = copy_weights(net)


def mean_gradients(net: nn.Module) -> dict[str, float]:
    """Return the mean |gradient| of each weight, as the last batch left it."""
    weights = [(name.removeprefix("net."), p) for name, p in net.named_parameters() if p.dim() > 1]
    return {name: float(p.grad.abs().mean()) for name, p in weights if p.grad is not None}


def write_checkpoint(
    path: Path, net: nn.Module, optimizer: torch.optim.Optimizer, state: State
) -> None:
    """Write a checkpoint, whole or not at all: a kill while writing leaves the one before."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    torch.save(
        {"net": net.state_dict(), "optimizer": optimizer.state_dict(), "state": vars(state)}, part
    )
    os.replace(part, path)


def read_checkpoint(path: Path, net: nn.Module, optimizer: torch.optim.Optimizer) -> State:
    saved = torch.load(path, map_location="cpu", weights_only=True)
    net.load_state_dict(saved["net"])
    optimizer.load_state_dict(saved["optimizer"])
    state = State(**saved["state"])
    if not distributed.rank():
        print(
            f"   continuing after epoch {state.epoch}, from the checkpoint of an interrupted run",
            file=sys.stderr,
        )
    return state


def checkpoint_path(name: str, recipe: Recipe, source: dataset.Data, on: torch.device) -> Path:
    """Return this run's checkpoint: its key holds recipe, data, code and device, so none is resumed under another."""
    digest = code.hash_files(*code.stage_files("train"))
    key = json.dumps(
        [recipe.model_dump(mode="json"), source.about["hash"], digest, torch.__version__, on.type],
        sort_keys=True,
    )
    return CHECKPOINTS / f"{name}@{hashlib.sha256(key.encode()).hexdigest()[:16]}.pt"
