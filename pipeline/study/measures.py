"""Measures of a trained network: one number for each run (MEASURES), or a curve (CURVES)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from pipeline.core.errors import StageError
from pipeline.data import dataset
from pipeline.network import build as network
from pipeline.params.schema import Training
from pipeline.train import loop
from pipeline.train.batches import Batches, TrainingSplit
from pipeline.train.checkpoint import State, mean_gradients
from pipeline.train.losses import weight_tensors

NEAR_ZERO = 1e-3  # a smaller weight has no effect: trained ones here are .01 to .5
REACHED = 0.9  # validation accuracy


@dataclass
class Run:
    """A trained network with its recipe and dataset.

    old_classes: the names of the classes that its backbone was trained on.
    """

    recipe: Training
    source: dataset.Data
    net: Any
    state: State
    old_classes: Sequence[str] = ()


@torch.no_grad()
def accuracy(run: Run, split: str = "test") -> float:
    """Return the accuracy on a split, without dropout and augmentation."""
    return loop.evaluate(run.recipe, run.net, batches(run, split))[1]


def batches(run: Run, split: str) -> TrainingSplit:
    """Return a split on the network's device."""
    return loop.load_batches(run.source, split, run.net, run.net.mean.device)


@torch.no_grad()
def loss(run: Run, split: str) -> float:
    """Return the mean loss on a split, without dropout, augmentation, penalties and smoothing."""
    return loop.evaluate(run.recipe, run.net, batches(run, split))[0]


def loss_gap(run: Run) -> float:
    """Return the test loss less the training loss: the overfitting that accuracy may hide."""
    return loss(run, "test") - loss(run, "train")


def accuracy_gap(run: Run) -> float:
    """Return the training accuracy less the test accuracy."""
    return accuracy(run, "train") - accuracy(run, "test")


@torch.no_grad()
def accuracy_on_old_classes(run: Run) -> float:
    """Return the accuracy, among all classes, on test images of the backbone's classes."""
    if not run.old_classes:
        cure = "give each setting one with `needs:`"
        raise StageError(f"study: accuracy on old classes needs a backbone; {cure}")
    test, labels = batches(run, "test"), run.source.about["labels"]
    assert isinstance(test, Batches)
    old = [labels.index(name) for name in run.old_classes]
    of_old = torch.isin(test.y, torch.tensor(old, device=test.y.device))
    return loop.evaluate(run.recipe, run.net, Batches(test.x[of_old], test.y[of_old]))[1]


def epochs_to_reach(run: Run) -> float:
    """Return the first epoch with a validation accuracy of REACHED, or one after the last."""
    accuracies = [row["validation_accuracy"] for row in run.state.history]
    reached = (k for k, value in enumerate(accuracies, 1) if value >= REACHED)
    return next(reached, len(accuracies) + 1)


@torch.no_grad()
def dead_units(run: Run) -> float:
    """Return the share of units (maps, or dense units) that are constant on all training images."""
    ranges: dict[nn.Module, tuple[Tensor, Tensor]] = {}

    def update_range(module: nn.Module, inputs: Any, output: Tensor) -> None:
        units = output.transpose(0, 1).flatten(1)
        low, high = units.amin(1), units.amax(1)
        before = ranges.get(module, (low, high))
        ranges[module] = torch.minimum(low, before[0]), torch.maximum(high, before[1])

    activations = nn.ReLU | nn.Tanh | nn.Sigmoid
    layers = [module for module in run.net.modules() if isinstance(module, activations)]
    hooks = [module.register_forward_hook(update_range) for module in layers]
    loop.evaluate(run.recipe, run.net, batches(run, "train"))
    for hook in hooks:
        hook.remove()
    dead = torch.cat([high - low < 1e-6 for low, high in ranges.values()])
    return float(dead.double().mean())


@torch.no_grad()
def near_zero_weights(run: Run) -> float:
    """Return the share of weights smaller than NEAR_ZERO, which L1 regularization increases."""
    flat = torch.cat([w.flatten() for w in weight_tensors(run.net)])
    return float((flat.abs() < NEAR_ZERO).double().mean())


@torch.no_grad()
def weight_diffuseness(run: Run) -> float:
    """Return (sum |w|)^2 / (n sum w^2), the mean of layers weighted by their sizes.

    It is 1 for weights of equal magnitude, and .64 for normal ones.
    """
    shares = [
        (w.numel(), float(w.abs().sum() ** 2 / (w.numel() * w.square().sum().clamp_min(1e-30))))
        for w in weight_tensors(run.net)
    ]
    return sum(n * share for n, share in shares) / sum(n for n, _ in shares)


def gradients_at_start(run: Run) -> dict[str, float]:
    """Return the mean |gradient| of each weight of the untrained network on a training batch."""
    settings = run.recipe.train
    torch.manual_seed(settings.seed)
    net = network.build(run.recipe, run.source)
    batch = loop.load_batches(run.source, "train", net, torch.device("cpu"))
    ((x, y),) = batch.read([torch.randperm(len(batch))[: settings.batch]], None)
    loss = loop.loss_and_outputs(run.recipe, net.train(), x, y)[0]
    loss.backward()
    return mean_gradients(net)


def gradient_ratio(run: Run) -> float:
    """Return the first weight's mean |gradient| before training, over the last hidden one's."""
    values = [*gradients_at_start(run).values()]
    return values[0] / values[-2]


def recursive_error(run: Run, steps: int) -> float:
    """Return the mean squared error over `steps` steps after the first context of each test series.

    Beyond the trained horizon, the forecast becomes history.
    """
    history, target = first_windows(run.source, steps)
    return float(((forecast_recursively(run.net, history, steps) - target) ** 2).mean())


def first_windows(source: dataset.Data, steps: int) -> tuple[np.ndarray, np.ndarray]:
    """Return each test series' first context (M, T, D) and the next samples (M, steps, D)."""
    context = source.about["input"]["context"]
    starts = source.y["test"]
    if (shortest := int(np.diff(starts).min())) < context + steps:
        what = f"the test series have {shortest} samples, {context + steps} are needed"
        raise StageError(f"study: {what}; set a longer `length:`")
    places = dataset.Places.of(starts, context + steps, stride=10**9)
    windows = source.x["test"][places.rows(np.arange(len(places)))]
    return windows[:, :context], windows[:, context:]


@torch.no_grad()
def forecast_recursively(net: Any, history: np.ndarray, steps: int) -> np.ndarray:
    """Return the forecast (M, steps, D); forecasts are appended to the history (M, T, D)."""
    series, context = torch.from_numpy(history.astype(np.float32)), history.shape[1]
    series = series.to(net.mean.device)
    while series.shape[1] < context + steps:
        series = torch.cat([series, net(series[:, -context:])[0]], dim=1)
    return np.asarray(series[:, context : context + steps].double().cpu().numpy())


def errors_by_epoch(run: Run, split: str) -> list[tuple[float, float]]:
    """Return (epoch, error).

    The training error is the running one, with dropout and augmentation, while weights change.
    """
    return [(row["epoch"], 1 - row[f"{split}_accuracy"]) for row in run.state.history]


def values_by_depth(values: dict[str, float]) -> list[tuple[float, float]]:
    """Return (depth, value) of each weight: depth 0 is next to the input, 1 next to the output."""
    last = max(len(values) - 1, 1)
    return [(round(k / last, 4), value) for k, value in enumerate(values.values())]


def epochs_to_settle(run: Run) -> dict[str, float]:
    """Return the epoch from which on each weight stays close to its final value.

    Close: at most half as far from it as after epoch 1. Needs a snapshot of every epoch
    (`train.snapshots`).
    """
    if len(run.state.snapshots) < len(run.state.history):
        needed = "train.snapshots of every epoch, [1, 2, ...]"
        raise StageError(f"study: epochs to settle needs {needed}")
    epochs = [run.state.snapshots[name] for name in sorted(run.state.snapshots)]
    settled: dict[str, float] = {}
    for name in [name for name, p in run.net.named_parameters() if p.dim() > 1]:
        distances = [float((epoch[name] - epochs[-1][name]).norm()) for epoch in epochs]
        far = [k for k, distance in enumerate(distances, 1) if distance > distances[0] / 2]
        settled[name] = max(far, default=0) + 1
    return settled


def settling_lag(run: Run) -> float:
    """Return how many epochs the last weight settles after the first one (see epochs_to_settle)."""
    settled = [*epochs_to_settle(run).values()]
    return settled[-1] - settled[0]


MEASURES: dict[str, Callable[[Run], float]] = {
    "accuracy": accuracy,
    "accuracy on old classes": accuracy_on_old_classes,
    "training accuracy": lambda run: accuracy(run, "train"),
    "accuracy gap": accuracy_gap,
    "training loss": lambda run: loss(run, "train"),
    "test loss": lambda run: loss(run, "test"),
    "loss gap": loss_gap,
    "epochs to 90 %": epochs_to_reach,
    "settling lag": settling_lag,
    "dead units": dead_units,
    "near-zero weights": near_zero_weights,
    "weight diffuseness": weight_diffuseness,
    "parameters": lambda run: sum(p.numel() for p in run.net.parameters()),
    "gradient ratio": gradient_ratio,
    "mse 10 ahead": lambda run: recursive_error(run, 10),
    "mse 100 ahead": lambda run: recursive_error(run, 100),
    "validation loss": lambda run: run.state.chosen["validation_loss"],
}

CURVES: dict[str, Callable[[Run], list[tuple[float, float]]]] = {
    "training error": lambda run: errors_by_epoch(run, "train"),
    "test error": lambda run: errors_by_epoch(run, "test"),
    "gradient at the start": lambda run: values_by_depth(gradients_at_start(run)),
    "gradient at the end": lambda run: values_by_depth(run.state.gradients[-1]),
    "epochs to settle": lambda run: values_by_depth(epochs_to_settle(run)),
}
