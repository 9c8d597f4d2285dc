"""The state of a training, and the checkpoint from which an interrupted one continues.

Checkpoints are outside DVC's outputs. Their name has a digest of recipe, data, code and device, so
that a training never continues from the checkpoint of another one.
"""

from __future__ import annotations

import math
import os
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn

from pipeline.core import digest as code
from pipeline.core.paths import OUT
from pipeline.core.stage import note
from pipeline.data import dataset
from pipeline.params.schema import Recipe
from pipeline.train import distributed

CHECKPOINTS = OUT / "checkpoints"
LEAST_S = 1.0  # between two checkpoints
MOST_SHARE = 0.05  # of the time may go into writing them


@dataclass
class State:
    """What training carries from epoch to epoch besides the network and the optimizer."""

    epoch: int = 0
    step: int = 0  # of the epoch that has begun
    sums: list[float] = field(default_factory=lambda: [0.0] * 3)  # loss, right and rows up to there
    history: list[dict[str, float]] = field(default_factory=list)
    gradients: list[dict[str, float]] = field(default_factory=list)  # of `mean_gradients`
    best_epoch: int = 0
    chosen_epoch: int = 0  # whose weights are shipped: the best or the last, by params
    best: dict[str, Tensor] = field(default_factory=dict)
    least: dict[str, float] = field(default_factory=dict)  # loss of `best`, by name prefix
    kept: dict[str, float] = field(default_factory=dict)  # replaces values of the chosen row
    snapshots: dict[str, dict[str, Tensor]] = field(default_factory=dict)
    members: dict[str, dict[str, float]] = field(default_factory=dict)  # of `choose_members`

    @property
    def where(self) -> str:
        """How far the training is: "after epoch 3", or "after 120 steps of epoch 4"."""
        inside = f"{self.step:,} steps of " if self.step else ""
        return f"after {inside}epoch {self.epoch + bool(self.step)}"

    @property
    def chosen(self) -> dict[str, float]:
        """The history row of the shipped weights; members of an ensemble may be of other epochs."""
        row = self.history[self.chosen_epoch - 1]
        return row | self.kept if self.kept else row


def copy_weights(net: nn.Module) -> dict[str, Tensor]:
    """Return a copy of the network's state dict on the CPU."""
    return {name: tensor.detach().cpu().clone() for name, tensor in net.state_dict().items()}


def record_epoch(
    state: State,
    net: nn.Module,
    row: dict[str, float],
    snapshot: bool,
    losses: dict[str, float],
    average: nn.Module | None = None,
) -> None:
    """Add an epoch to `state`, with a snapshot of all weights if asked for.

    average: the network whose weights are kept, where they are not those of `net`.
    losses: validation loss by prefix of parameter names; where it is the least so far, the weights
    with this prefix become the best ones. The prefix of a whole network is "".
    """
    state.epoch += 1
    state.step, state.sums = 0, [0.0] * 3
    state.history.append(row)
    state.gradients.append(mean_gradients(net))
    shipped = average or net
    before = state.least
    better = tuple(p for p, loss in losses.items() if loss < before.get(p, math.inf))
    if better:
        for name, weight in copy_weights(shipped).items():
            if name.startswith(better) or name not in state.best:
                state.best[name] = weight
        state.least |= {prefix: losses[prefix] for prefix in better}
        state.best_epoch = state.epoch
    if snapshot:
        state.snapshots[f"{state.epoch:03d}"] = copy_weights(shipped)


def mean_gradients(net: nn.Module) -> dict[str, float]:
    """Return the mean |gradient| of each weight tensor in the last batch."""
    weights = [(name.removeprefix("net."), p) for name, p in net.named_parameters() if p.dim() > 1]
    return {name: float(p.grad.abs().mean()) for name, p in weights if p.grad is not None}


def write_checkpoint(
    path: Path,
    net: nn.Module,
    optimizer: torch.optim.Optimizer,
    state: State,
    average: nn.Module | None = None,
) -> None:
    """Write a checkpoint atomically: a kill while writing leaves the previous one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    states = {"net": net.state_dict(), "optimizer": optimizer.state_dict(), "state": vars(state)}
    states |= {"average": average.state_dict()} if average else {}
    torch.save(states, part)
    os.replace(part, path)


def read_checkpoint(
    path: Path,
    net: nn.Module,
    optimizer: torch.optim.Optimizer,
    average: nn.Module | None = None,
) -> State:
    """Load a checkpoint into the networks and the optimizer; return the training's state."""
    saved = torch.load(path, map_location="cpu", weights_only=True)
    net.load_state_dict(saved["net"])
    optimizer.load_state_dict(saved["optimizer"])
    if average:
        average.load_state_dict(saved["average"])
    state = State(**saved["state"])
    if not distributed.rank():
        note(f"continuing {state.where}, from the checkpoint of an interrupted run")
    return state


def checkpoint_path(name: str, recipe: Recipe, source: dataset.Data, on: torch.device) -> Path:
    """Return a training's checkpoint; its name depends on recipe, data, code and device."""
    digest = code.hash_files(*code.stage_files("train"))
    data = source.about["hash"]
    known = recipe.model_dump(mode="json", exclude={"workers"})  # any number gives equal batches
    key = code.hash_values(known, data, digest, torch.__version__, on.type)
    return CHECKPOINTS / f"{name}@{key}.pt"
