"""Segmentation: cross-entropy of the class of every pixel, classes balanced."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from convline.metrics.segmentation import VOID
from torch import Tensor
from torch.nn import functional as F

from pipeline.data.dataset import Data
from pipeline.params.schema import ResolvedTrain
from pipeline.train.batches import Batches, Split, image_batches

HAS_ACCURACY = True


def load_batches(source: Data, split: str, net: Any, on: torch.device) -> Batches:
    """Return images uint8 (N, C, H, W) and masks uint8 (N, H, W)."""
    return image_batches(source, split, on)


def forward(net: Any, x: Tensor, y: Tensor, train: ResolvedTrain) -> Tensor:
    """Return logits (N, K, H, W)."""
    logits: Tensor = net.logits(x)
    return logits


def objective(outputs: Tensor, y: Tensor, train: ResolvedTrain) -> Tensor:
    """Return the weighted mean cross-entropy over the pixels that are not VOID, 0 without any.

    A pixel weighs n ** -balance, where n is the number of pixels of its class in the batch: with 0
    every pixel weighs alike, with 1 every class. Farabet et al. 2013, section 5, draw pixels by
    their natural frequency or each class equally often ("balanced"); these are the expectations.
    """
    # The softmax of maps takes a third of the time of rows; their likelihood, as rows, since that
    # of maps has no deterministic kernel on a GPU.
    logs, labels = outputs.log_softmax(1).movedim(1, 3).flatten(0, 2), y.flatten().long()
    classes = torch.arange(outputs.shape[1], device=y.device)
    counts = (labels == classes[:, None]).sum(1)
    weights = counts.clamp(min=1).to(logs.dtype) ** -train.balance
    total = F.nll_loss(logs, labels, weights, ignore_index=VOID, reduction="sum")
    return total / (weights * counts).sum().clamp(min=1e-30)


def auxiliary_loss(outputs: Tensor, y: Tensor, train: ResolvedTrain) -> float:
    """Return 0: there are no auxiliary heads."""
    return 0.0


def sum_correct(outputs: Tensor, y: Tensor) -> Tensor:
    """Return the sum over images of the share of pixels that are right, of those not VOID."""
    known = y != VOID
    right = (outputs.max(1).indices == y) & known  # argmax(1) takes four times as long on a CPU
    return (right.sum((1, 2)) / known.sum((1, 2)).clamp(min=1)).sum()


def statistics_forward(net: Any) -> Callable[[Tensor], object]:
    """Return the function from images to logits."""
    logits: Callable[[Tensor], object] = net.logits
    return logits


def finish(net: Any, source: Data, validation: Split) -> None:
    """Leave the network as it is."""
