"""Mixup and CutMix: mix each image of a batch with the one before it, and their labels."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from pipeline.params.schema import Train
from pipeline.train.augment import seeds_of
from pipeline.train.distributed import size, torch_seeded

# Of images (N, C, H, W) and labels int64 (N,), each process's with its neighbour's row (`own_rows`)
# in front: to float32 images and labels float32 (N, K) of the process's own rows.
Mix = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


def mixes(train: Train) -> bool:
    """Return whether a recipe mixes images."""
    return bool(train.mixup or train.cutmix)


def build(train: Train, classes: int) -> Mix:
    """Return the function that mixes a batch; it changes nothing where the recipe does not mix.

    torchvision draws the share once for a batch and mixes neighbours, which the epoch's random
    order makes random pairs, as the authors' code does.
    """
    if not mixes(train):
        return lambda x, y: (x, y)
    from torchvision.transforms import v2  # 4 s

    of = {"num_classes": classes}
    kinds = [v2.MixUp(alpha=train.mixup, **of)] if train.mixup else []
    kinds += [v2.CutMix(alpha=train.cutmix, **of)] if train.cutmix else []
    transform = v2.RandomChoice(kinds)

    def mix(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        with torch_seeded(seeds_of(1)):
            x, y = transform(x.float(), y)
        own = slice(1 if size() > 1 else 0, None)
        return x[own], y[own]

    return mix
