"""What a study measures on a trained network: one number a run (MEASURES), or a curve by epoch or by layer (CURVES)."""

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
from pipeline.train.checkpoint import State, mean_gradients

NEAR_ZERO = 1e-3  # a weight below it is as good as none: trained ones here are .01 to .5
REACHED = 0.9  # of validation accuracy


@dataclass
class Run:
    """One trained network, and what it was trained by and on."""

    recipe: Training
    source: dataset.Data
    net: Any
    state: State
    old: Sequence[str] = ()  # the classes that its backbone knew


@torch.no_grad()
def accuracy(run: Run, split: str = "test") -> float:
    """Accuracy on a split as it is: no dropout, no augmentation."""
    return loop.evaluate(
        run.recipe, run.net, loop.load_batches(run.source, split, run.net, run.net.mean.device)
    )[1]


@torch.no_grad()
def accuracy_on_old_classes(run: Run) -> float:
    """Accuracy, among all classes, on the test images of those that the backbone knew (R12)."""
    if not run.old:
        raise StageError(
            "study: accuracy on old classes needs a backbone; give each setting one with `needs:`"
        )
    test = loop.load_batches(run.source, "test", run.net, run.net.mean.device)
    labels = run.source.about["labels"]
    of_old = torch.isin(
        test.y, torch.tensor([labels.index(name) for name in run.old], device=test.y.device)
    )
    return loop.evaluate(run.recipe, run.net, loop.Batches(test.x[of_old], test.y[of_old]))[1]


def epochs_to_reach(run: Run) -> float:
    """Epochs until the validation accuracy is REACHED; one more than were trained where it never is."""
    accuracies = [row["validation_accuracy"] for row in run.state.history]
    return next(
        (k for k, value in enumerate(accuracies, 1) if value >= REACHED), len(accuracies) + 1
    )


@torch.no_grad()
def dead_units(run: Run) -> float:
    """Share of hidden units (maps of a convolution, units of a dense layer) that answer every training image alike."""
    ranges: dict[str, tuple[Tensor, Tensor]] = {}

    def watch(name: str) -> Callable[[nn.Module, Any, Tensor], None]:
        def hook(module: nn.Module, inputs: Any, output: Tensor) -> None:
            units = output.transpose(0, 1).flatten(1)
            low, high = units.amin(1), units.amax(1)
            before = ranges.get(name, (low, high))
            ranges[name] = torch.minimum(low, before[0]), torch.maximum(high, before[1])

        return hook

    layers = [
        (name, m)
        for name, m in run.net.named_modules()
        if isinstance(m, nn.ReLU | nn.Tanh | nn.Sigmoid)
    ]
    hooks = [module.register_forward_hook(watch(name)) for name, module in layers]
    loop.evaluate(
        run.recipe, run.net, loop.load_batches(run.source, "train", run.net, run.net.mean.device)
    )
    for hook in hooks:
        hook.remove()
    dead = torch.cat([high - low < 1e-6 for low, high in ranges.values()])
    return float(dead.double().mean())


def weights(net: nn.Module) -> list[Tensor]:
    return [
        p.detach()
        for name, p in net.named_parameters()
        if p.dim() > 1 and not name.endswith("bias")
    ]


def near_zero_weights(run: Run) -> float:
    """Share of weights of less than NEAR_ZERO: what L1 drives up (T23)."""
    flat = torch.cat([w.flatten() for w in weights(run.net)])
    return float((flat.abs() < NEAR_ZERO).double().mean())


def weight_diffuseness(run: Run) -> float:
    """(sum |w|)^2 / (n sum w^2), over the layers by their weights: 1 for equal sizes, .64 for a normal draw (T24)."""
    shares = [
        (w.numel(), float(w.abs().sum() ** 2 / (w.numel() * w.square().sum().clamp_min(1e-30))))
        for w in weights(run.net)
    ]
    return sum(n * share for n, share in shares) / sum(n for n, _ in shares)


def gradients_at_start(run: Run) -> dict[str, float]:
    """Return the mean |gradient| of each weight on a batch of the training split, in an untrained network."""
    settings = run.recipe.train
    torch.manual_seed(settings.seed)
    net = network.build(run.recipe, run.source)
    batch = loop.load_batches(run.source, "train", net, torch.device("cpu"))
    rows = torch.randperm(len(batch.x))[: settings.batch]
    loss = loop.loss_and_output(run.recipe, net.train(), batch.x[rows], batch.y[rows])[0]
    loss.backward()
    return mean_gradients(net)


def gradient_ratio(run: Run) -> float:
    """Mean |gradient| of the first weight over that of the last hidden one, at the start: 1 is an even flow (T34)."""
    values = [*gradients_at_start(run).values()]
    return values[0] / values[-2]


def ahead(run: Run, steps: int) -> float:
    """Test mean squared error over `steps` steps, each test series forecast once from its first context of samples.

    Beyond the trained horizon the forecast is fed back as history.
    """
    history, target = first_windows(run.source, steps)
    return float(((roll_out(run.net, history, steps) - target) ** 2).mean())


def first_windows(source: dataset.Data, steps: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the first context of every test series (M, T, D) and the `steps` samples after it (M, steps, D)."""
    context = source.about["input"]["context"]
    starts = source.y["test"]
    if (shortest := int(np.diff(starts).min())) < context + steps:
        raise StageError(
            f"study: the test series have {shortest} samples, {context + steps} are needed; set a longer `length:`"
        )
    rows = dataset.window_rows(starts, context + steps, stride=10**9)
    both = source.x["test"][rows]
    return both[:, :context], both[:, context:]


@torch.no_grad()
def roll_out(net: Any, history: np.ndarray, steps: int) -> np.ndarray:
    """Return the forecast (M, steps, D), the network's own answers fed back as often as needed."""
    path = torch.from_numpy(history.astype(np.float32)).to(net.mean.device)
    context, made = history.shape[1], 0
    while made < steps:
        path = torch.cat([path, net(path[:, -context:])[0]], dim=1)
        made = path.shape[1] - context
    return path[:, context : context + steps].double().cpu().numpy()


MEASURES: dict[str, Callable[[Run], float]] = {
    "accuracy": accuracy,
    "accuracy on old classes": accuracy_on_old_classes,
    "training accuracy": lambda run: accuracy(run, "train"),
    "epochs to 90 %": epochs_to_reach,
    "dead units": dead_units,
    "near-zero weights": near_zero_weights,
    "weight diffuseness": weight_diffuseness,
    "parameters": lambda run: sum(p.numel() for p in run.net.parameters()),
    "gradient ratio": gradient_ratio,
    "mse 10 ahead": lambda run: ahead(run, 10),
    "mse 100 ahead": lambda run: ahead(run, 100),
    "validation loss": lambda run: run.state.chosen["validation_loss"],
}


def by_epoch(run: Run, split: str) -> list[tuple[float, float]]:
    """Return (epoch, error); of the training split the running one, while weights move, dropout and augmentation on."""
    return [(row["epoch"], 1 - row[f"{split}_accuracy"]) for row in run.state.history]


def by_layer(values: dict[str, float]) -> list[tuple[float, float]]:
    """Return (place, value) of each weight, in order: place 0 is next to the input, 1 next to the answer."""
    last = max(len(values) - 1, 1)
    return [(round(k / last, 4), value) for k, value in enumerate(values.values())]


def epochs_to_settle(run: Run) -> dict[str, float]:
    """Return, for each weight, the epoch from which on it has at most half as far to its end as after epoch 1 (R18).

    Needs a snapshot of every epoch (`train.snapshots`).
    """
    if len(run.state.snapshots) < len(run.state.history):
        raise StageError(
            "study: epochs to settle needs train.snapshots of every epoch, [1, 2, ...]"
        )
    steps = [run.state.snapshots[name] for name in sorted(run.state.snapshots)]
    names = [name for name, p in run.net.named_parameters() if p.dim() > 1]
    settled = {}
    for name in names:
        left = [float((step[name] - steps[-1][name]).norm()) for step in steps]
        settled[name] = (
            1 + max((k for k, gap in enumerate(left) if gap > left[0] / 2), default=-1) + 1
        )
    return settled


CURVES: dict[str, Callable[[Run], list[tuple[float, float]]]] = {
    "training error": lambda run: by_epoch(run, "train"),
    "test error": lambda run: by_epoch(run, "test"),
    "gradient at the start": lambda run: by_layer(gradients_at_start(run)),
    "gradient at the end": lambda run: by_layer(run.state.gradients[-1]),
    "epochs to settle": lambda run: by_layer(epochs_to_settle(run)),
}
