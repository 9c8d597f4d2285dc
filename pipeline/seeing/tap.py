"""What the layers of a network answer, with gradients, and no more of the network run than that takes."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress

import torch
from torch import Tensor, nn

from pipeline.network import Classifier, stages


class _Enough(Exception):
    """Every layer that was asked for has answered."""


def outputs(net: Classifier, layers: Sequence[str], images: Tensor) -> list[Tensor]:
    """Return what the layers answer to images (N, C, H, W) in grey levels; nothing after the last of them is run."""
    found: dict[str, Tensor] = {}

    def keep(name: str, answer: Tensor) -> None:
        found[name] = answer.clone()  # a ReLU that works in place may come next
        if len(found) == len(layers):
            raise _Enough

    with suppress(_Enough), hooked(net, list(layers), keep):
        net.logits(images)
    return [found[name] for name in layers]


@torch.no_grad()
def map_stages(net: Classifier, image: Tensor, least_px: int = 1) -> list[str]:
    """Return the stages whose answer is maps (C, h, w) of h, w >= least_px, in their order, batch norms apart."""
    found = [name for name in stages(net) if not isinstance(net.get_submodule(name), nn.BatchNorm2d)]
    answers = dict(zip(found, outputs(net, found, image), strict=True))
    return [name for name, maps in answers.items() if maps.dim() == 4 and min(maps.shape[2:]) >= least_px]


def bounded(stage: nn.Module) -> bool:
    """True where a stage ends in a ReLU6 or the like, whose gradient is 0 once the unit is at its bound."""
    return isinstance([*stage.modules()][-1], nn.ReLU6 | nn.Tanh | nn.Sigmoid)


@torch.no_grad()
def cost(net: Classifier, image: Tensor) -> int:
    """Return the multiply-adds of convolutions and dense layers; torch's own counter takes 4 s to import."""
    counts: list[int] = []
    layers = {name: layer for name, layer in net.named_modules() if isinstance(layer, nn.Conv2d | nn.Linear)}
    with hooked(net, list(layers), lambda name, y: counts.append(y.numel() * math.prod(layers[name].weight.shape[1:]))):
        net.logits(image)
    return sum(counts)


@contextmanager
def hooked(net: Classifier, layers: list[str], seen: Callable[[str, Tensor], None]) -> Iterator[None]:
    """Call seen(name, answer) for each of the layers as it answers."""

    def hook(name: str) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], None]:
        return lambda module, given, answer: seen(name, answer)

    handles = [net.get_submodule(name).register_forward_hook(hook(name)) for name in layers]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
