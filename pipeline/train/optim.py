"""Optimizers and learning-rate schedules."""

from __future__ import annotations

import math

import torch
from torch import nn

from pipeline.params.schema import Head, Train
from pipeline.train import finetune


def make_optimizer(train: Train, net: nn.Module, head: Head | None = None) -> torch.optim.Optimizer:
    """Return the optimizer by name. Adadelta's usual lr is 1 (Zeiler 2012, arXiv:1212.5701).

    Fused: one pass over the weights in place of a dozen, which halves the step of 60 million of them on the CPU.
    """
    options = {"lr": train.lr, "weight_decay": train.weight_decay}
    if head:
        finetune.require_trained(net, head, train.epochs)
    parameters = finetune.parameter_groups(net, head) if head else net.parameters()
    if train.optimizer == "sgd":
        return torch.optim.SGD(
            parameters,
            momentum=train.momentum,
            nesterov=train.nesterov,
            fused=True,
            **options,
        )
    if (
        train.optimizer == "rmsprop"
    ):  # with the constants of Szegedy et al. 2015, arXiv:1512.00567, section 8
        return torch.optim.RMSprop(
            parameters, alpha=0.9, eps=1.0, momentum=train.momentum, **options
        )
    if train.optimizer == "adadelta":
        return torch.optim.Adadelta(parameters, **options)
    return {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[train.optimizer](
        parameters, fused=True, **options
    )


def lr_at(train: Train, epoch: float) -> float:
    """Return the learning rate at `epoch`, a number from 0 (start) to train.epochs (end).

    step: times `factor` after each epoch in `steps`, or after `every` so many. cosine: half a cosine to 0 (Loshchilov &
    Hutter 2017, arXiv:1608.03983, eq. 5 without restarts). onecycle: up from lr/25 over the first 30 %, down
    to lr/25e4, both by half a cosine (Smith & Topin 2019, arXiv:1708.07120). Before each, `warmup` epochs, linear.
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
    if train.schedule == "onecycle":
        return (
            cosine(lr / 25, lr, done / 0.3)
            if done < 0.3
            else cosine(lr, lr / 25e4, (done - 0.3) / 0.7)
        )
    return lr


def cosine(start: float, end: float, done: float) -> float:
    """Return the value after the fraction `done` of half a cosine from `start` to `end`."""
    return end + (start - end) * (1 + math.cos(math.pi * min(done, 1.0))) / 2
