"""Classification: cross-entropy of one label an image."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from pipeline.data.dataset import Data
from pipeline.params.schema import ResolvedTrain
from pipeline.train.batches import Batches, Split, image_batches
from pipeline.train.losses import cross_entropy

HAS_ACCURACY = True


def load_batches(source: Data, split: str, net: Any, on: torch.device) -> Batches:
    """Return images uint8 (N, C, H, W) and labels int64 (N,)."""
    return image_batches(source, split, on)


def forward(net: Any, x: Tensor, y: Tensor, train: ResolvedTrain) -> tuple[Tensor, ...]:
    """Return logits (N, K) of the network's own head, then those of auxiliary heads."""
    outputs = net.logits(x)
    return outputs if isinstance(outputs, tuple) else (outputs,)


def objective(outputs: tuple[Tensor, ...], y: Tensor, train: ResolvedTrain) -> Tensor:
    """Return the mean cross-entropy of the network's own head."""
    return cross_entropy(outputs[0], y, train)


def auxiliary_loss(outputs: tuple[Tensor, ...], y: Tensor, train: ResolvedTrain) -> Tensor | float:
    """Return the weighted cross-entropy of auxiliary heads."""
    return train.aux_weight * sum(cross_entropy(other, y, train) for other in outputs[1:])


def sum_correct(outputs: tuple[Tensor, ...], y: Tensor) -> Tensor:
    """Return how many images have their label as the most probable one.

    An image with a mixed label (N, K) counts by the share that the most probable class has in it.
    """
    top = outputs[0].argmax(1)
    return y.gather(1, top[:, None]).sum() if y.is_floating_point() else (top == y).sum()


def statistics_forward(net: Any) -> Callable[[Tensor], object]:
    """Return the function from images to logits."""
    logits: Callable[[Tensor], object] = net.logits
    return logits


def finish(net: Any, source: Data, validation: Split) -> None:
    """Leave the network as it is."""
