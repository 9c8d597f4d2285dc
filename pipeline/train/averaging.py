"""The exponential moving average of a network's weights, which a recipe with `ema` ships."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from pipeline.params.schema import Train


def copy_network(net: Any, train: Train) -> Any | None:
    """Return the network that will hold the average, a copy of `net`; None without `ema`.

    Its batch norms count no step, so that their statistics are taken anew from the training split
    after each epoch (batch_norm.py): those of `net` belong to other weights.
    """
    if not train.ema:
        return None
    average = copy.deepcopy(net)
    for layer in average.modules():
        if isinstance(layer, nn.modules.batchnorm._BatchNorm) and layer.track_running_stats:
            assert layer.num_batches_tracked is not None
            layer.num_batches_tracked.zero_()
    return average


@torch.no_grad()
def update(average: Any, net: Any, decay: float, step: int) -> None:
    """Take the weights after optimizer step `step`, counted from 0, into the average.

    average <- d * average + (1 - d) * weights, d = min(decay, (1 + step) / (10 + step)): without
    the second term, which TensorFlow's ExponentialMovingAverage has, a short training would ship
    its random start. This is what torch's AveragedModel calls; its counter is a tensor, for which a
    GPU and its host would wait at every step.
    """
    weights: tuple[list[Tensor], ...] = ([*average.parameters()], [*net.parameters()])
    get_ema_multi_avg_fn(min(decay, (1 + step) / (10 + step)))(*weights, step)
