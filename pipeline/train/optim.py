"""Optimizers and learning-rate schedules."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from pipeline.params.schema import Train


def make_optimizer(
    train: Train, parameters: Iterable[Tensor] | Iterable[dict[str, Any]]
) -> torch.optim.Optimizer:
    """Return the optimizer that train.optimizer names, for weights or groups of weights.

    Adadelta's usual lr is 1 (Zeiler 2012, arXiv:1212.5701). `fused` updates in one pass over the
    weights, not a dozen, which halves the step of 60 million of them on the CPU. RMSprop has the
    constants of Szegedy et al. 2015, arXiv:1512.00567, section 8. torch's Muon is not offered: it
    refuses weights that are no matrices, as the filters of convolutions are, and leaves the last
    layer, which is often a network's only matrix, to another optimizer.
    """
    options: dict[str, Any] = {"lr": train.lr, "weight_decay": train.weight_decay}
    if train.optimizer == "sgd":
        options |= {"momentum": train.momentum, "nesterov": train.nesterov, "fused": True}
        return torch.optim.SGD(parameters, **options)
    if train.optimizer == "rmsprop":
        options |= {"alpha": 0.9, "eps": 1.0, "momentum": train.momentum}
        return torch.optim.RMSprop(parameters, **options)
    if train.optimizer == "adadelta":
        return torch.optim.Adadelta(parameters, **options)
    adam = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[train.optimizer]
    return adam(parameters, fused=True, **options)


def lr_at(train: Train, epoch: float) -> float:
    """Return the learning rate at `epoch`, a number from 0 (start) to train.epochs (end).

    Every schedule begins with `warmup` epochs, in which the rate rises linearly. Then step: times
    `factor` after each epoch in `steps`, or every `every` epochs; cosine: half a cosine to 0
    (Loshchilov & Hutter 2017, arXiv:1608.03983, eq. 5, no restarts); onecycle: from lr / 25 to lr
    over the first 30 %, then to lr / 25e4, both by half a cosine (Smith & Topin 2019,
    arXiv:1708.07120).
    """
    lr, warmup = train.lr, train.warmup
    if epoch < warmup:
        return lr * (epoch + 1e-3) / warmup
    done = (epoch - warmup) / max(train.epochs - warmup, 1e-9)
    if train.schedule == "step" and train.every:
        return lr * train.factor ** (epoch // train.every)
    if train.schedule == "step":
        return lr * train.factor ** sum(epoch >= step for step in train.steps)
    if train.schedule == "cosine":
        return cosine(lr, 0.0, done)
    if train.schedule == "onecycle" and done < 0.3:
        return cosine(lr / 25, lr, done / 0.3)
    if train.schedule == "onecycle":
        return cosine(lr, lr / 25e4, (done - 0.3) / 0.7)
    return lr


def cosine(start: float, end: float, done: float) -> float:
    """Return the value after the fraction `done` of half a cosine from `start` to `end`."""
    return end + (start - end) * (1 + math.cos(math.pi * min(done, 1.0))) / 2
