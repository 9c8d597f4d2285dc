"""Re-estimate batch normalization's running statistics while too few steps have been taken.

A layer keeps a moving average of its batches' statistics. After t steps of momentum m the share
(1 - m)^t of it is still the initial 0 and 1. With few images that can be the whole training
(Keras's momentum .99 needs 460 steps): the network is right in training mode and near chance in
evaluation mode, which is what ships.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn

SETTLED = 0.01  # a moving average has settled when it holds less than this share of its start


def unsettled_layers(net: nn.Module) -> list[nn.modules.batchnorm._BatchNorm]:
    """Return the layers in training mode whose running statistics have not settled."""
    return [
        layer
        for layer in net.modules()
        if isinstance(layer, nn.modules.batchnorm._BatchNorm)
        and layer.training
        and layer.running_mean is not None
        and layer.num_batches_tracked is not None
        and layer.momentum is not None
        and (1 - layer.momentum) ** int(layer.num_batches_tracked) > SETTLED
    ]


def steps_taken(layer: nn.modules.batchnorm._BatchNorm) -> Tensor:
    """Return the layer's step count, an int64 scalar tensor."""
    assert layer.num_batches_tracked is not None
    return layer.num_batches_tracked


@torch.no_grad()
def reestimate(
    net: nn.Module, forward: Callable[[Tensor], object], batches: Iterable[Tensor]
) -> bool:
    """Set unsettled running statistics to their mean over `batches`; return whether there were any.

    The network stays in training mode, so that each layer gets the input that it gets in training.
    `forward` takes one batch. The step counts are kept: they tell when a moving average has
    settled. Cumulative average: Ioffe & Szegedy 2015, arXiv:1502.03167, algorithm 2, lines 8 to 10.
    """
    layers = unsettled_layers(net)
    if not layers:
        return False
    momenta = [layer.momentum for layer in layers]
    counts = [steps_taken(layer).clone() for layer in layers]
    for layer in layers:
        layer.reset_running_stats()
        layer.momentum = None  # torch then takes the plain mean over the batches
    for batch in batches:
        forward(batch)
    for layer, momentum, count in zip(layers, momenta, counts, strict=True):
        layer.momentum = momentum
        steps_taken(layer).copy_(count)
    return True
