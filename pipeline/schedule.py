"""Learning-rate schedules as plain functions of training progress: nothing to save, nothing to restore."""

from __future__ import annotations

import math
from typing import Any


def lr_at(train: dict[str, Any], epoch: float) -> float:
    """Return the learning rate at `epoch`, a number from 0 (start) to train["epochs"] (end).

    step: times `factor` after each epoch in `steps`, or after `every` so many. cosine: half a cosine to 0 (Loshchilov &
    Hutter 2017, arXiv:1608.03983, eq. 5 without restarts). onecycle: up from lr/25 over the first 30 %, down
    to lr/25e4, both by half a cosine (Smith & Topin 2019, arXiv:1708.07120). Before each, `warmup` epochs, linear.
    """
    lr, warmup = train["lr"], train["warmup"]
    if epoch < warmup:
        return lr * (epoch + 1e-3) / warmup
    done = (epoch - warmup) / max(train["epochs"] - warmup, 1e-9)
    if train["schedule"] == "step" and train["every"]:
        return lr * train["factor"] ** (epoch // train["every"])
    if train["schedule"] == "step":
        return lr * train["factor"] ** sum(epoch >= step for step in train["steps"])
    if train["schedule"] == "cosine":
        return cosine(lr, 0.0, done)
    if train["schedule"] == "onecycle":
        return cosine(lr / 25, lr, done / 0.3) if done < 0.3 else cosine(lr, lr / 25e4, (done - 0.3) / 0.7)
    return lr


def cosine(start: float, end: float, done: float) -> float:
    """Return the value after the fraction `done` of half a cosine from `start` to `end`."""
    return end + (start - end) * (1 + math.cos(math.pi * min(done, 1.0))) / 2
