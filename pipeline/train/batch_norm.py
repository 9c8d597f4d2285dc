"""Batch normalisation's running statistics, estimated from the training split while they have not arrived.

A layer keeps a moving average of its batches' statistics. After t steps of momentum m a share (1 - m)^t of it is still
the average's start, 0 and 1. With few images that is the whole training (Keras's momentum .99 needs 460 steps): the
network is right in training mode and near chance in evaluation, which is what ships.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn

ARRIVED = 0.01  # a moving average that holds less than this share of its start counts as arrived


def unsettled_layers(net: nn.Module) -> list[nn.modules.batchnorm._BatchNorm]:
    """Return the layers in training mode whose running statistics still hold more than ARRIVED of their start."""
    return [
        layer
        for layer in net.modules()
        if isinstance(layer, nn.modules.batchnorm._BatchNorm)
        and layer.training
        and layer.running_mean is not None
        and layer.num_batches_tracked is not None
        and layer.momentum is not None
        and (1 - layer.momentum) ** int(layer.num_batches_tracked) > ARRIVED
    ]


@torch.no_grad()
def reestimate(
    net: nn.Module, forward: Callable[[Tensor], object], batches: Iterable[Tensor]
) -> bool:
    """Set running statistics that have not arrived to the mean over `batches`; return whether there were any.

    The network stays in training mode, so that each layer sees what the layers before it answer in training. `forward`
    takes one batch. The count of steps is kept: it tells when the moving average has arrived.
    Cumulative average: Ioffe & Szegedy 2015, arXiv:1502.03167, algorithm 2, lines 8 to 10.
    """
    layers = unsettled_layers(net)
    if not layers:
        return False
    before = [(layer.momentum, int(layer.num_batches_tracked)) for layer in layers]
    for layer in layers:
        layer.reset_running_stats()
        layer.momentum = None  # torch then takes the plain mean over the batches
    for batch in batches:
        forward(batch)
    for layer, (momentum, steps) in zip(layers, before, strict=True):
        layer.momentum = momentum
        layer.num_batches_tracked.fill_(steps)
    return True
