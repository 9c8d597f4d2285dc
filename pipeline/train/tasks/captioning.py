"""Captioning: cross-entropy of each word of a caption, given the words before it."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from convline.images.captioner import START
from torch import Tensor
from torch.nn import functional as F

from pipeline.data.dataset import Data
from pipeline.params.schema import ResolvedTrain
from pipeline.train.batches import Batches, Split, image_batches

HAS_ACCURACY = True
NONE = -1  # in place of a word behind a caption's end
# Images whose features are computed together; on one core each of 256 takes twice the time of 16.
CHUNK = {"cpu": 16, "cuda": 256}


@torch.no_grad()
def load_batches(source: Data, split: str, net: Any, on: torch.device) -> Batches:
    """Return images uint8 (N, C, H, W) and their R captions as word ids int64 (N, R, L).

    In place of the images their features, float16 (N, C', H', W'), where the network leaves its own
    as they are: computed once, not in each epoch, in which they are more than half of a step. They
    take 2 N C' H' W' bytes, and while they are computed those of the images, too.
    """
    batches = image_batches(source, split, on)
    if not net.net.frozen:
        return batches
    shape = net.net.features(net.standardise(batches.x[:1])).shape[1:]
    features = torch.empty(len(batches.x), *shape, dtype=torch.float16, device=batches.x.device)
    chunk = CHUNK[on.type]
    for images, filled in zip(batches.x.split(chunk), features.split(chunk), strict=True):
        filled.copy_(net.net.features(net.standardise(images)))
    return Batches(features, batches.y)


def encode(net: Any, x: Tensor) -> tuple[Tensor, Tensor]:
    """Return the LSTM's state after images, or after the features that `load_batches` gives."""
    state: tuple[Tensor, Tensor]
    state = net.net.read(x.float()) if x.dtype == torch.float16 else net.encode(x)
    return state


def forward(net: Any, x: Tensor, y: Tensor, train: ResolvedTrain) -> Tensor:
    """Return log-probabilities (N, R, L, V) of the words of all captions of an image.

    Each word is told the true ones before it, in evaluation too. The image is encoded once.
    """
    before = F.pad(y[..., :-1], (1, 0), value=START).clamp(min=0)  # (N, R, L)
    hidden, cell = (part.repeat_interleave(y.shape[1], 0) for part in encode(net, x))
    return net.net.follow(before.flatten(0, 1), hidden, cell).unflatten(0, y.shape[:2])


def objective(outputs: Tensor, y: Tensor, train: ResolvedTrain) -> Tensor:
    """Return the mean cross-entropy over all words of a batch."""
    smoothing = train.label_smoothing
    words = outputs.flatten(0, 2), y.flatten()
    return F.cross_entropy(*words, ignore_index=NONE, label_smoothing=smoothing)


def auxiliary_loss(outputs: Tensor, y: Tensor, train: ResolvedTrain) -> float:
    """Return 0: there are no auxiliary heads."""
    return 0.0


def sum_correct(outputs: Tensor, y: Tensor) -> Tensor:
    """Return the sum over images of the share of words that are the most probable ones."""
    told = y != NONE
    right = (outputs.argmax(3) == y) & told
    return (right.sum((1, 2)) / told.sum((1, 2))).sum()


def statistics_forward(net: Any) -> Callable[[Tensor], object]:
    """Return the function from images to the state of the LSTM, which has no such layers."""
    return partial(encode, net)


def finish(net: Any, source: Data, validation: Split) -> None:
    """Leave the network as it is."""
