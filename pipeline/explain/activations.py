"""The layers of a classifier that are worth a look, and what they answer on images."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn

from models.lenet5 import Squash
from pipeline.data.dataset import spread
from pipeline.explain.modified_relu import Cap
from pipeline.explain.subject import Subject
from pipeline.network.modules import Classifier, parts, stages

BATCH = 32
ACTIVATIONS = (
    nn.ReLU,
    nn.LeakyReLU,
    nn.ELU,
    nn.GELU,
    nn.SiLU,
    nn.Hardswish,
    nn.Tanh,
    nn.Sigmoid,
    Squash,
)


@dataclass(frozen=True)
class Layer:
    """A convolution, dense layer or block with the normalisation and activation that follow: `module` is the last."""

    name: str
    module: nn.Module
    shape: tuple[int, ...]  # of one sample's output: (C, H, W) or (F,)

    @property
    def spatial(self) -> bool:
        return len(self.shape) == 3


def classifier(subject: Subject) -> Classifier | None:
    """Return the network proper: of an entry with a forest or the like as its head, the backbone; no forecaster."""
    net = subject.net.backbone.net if hasattr(subject.net, "backbone") else subject.net
    return net if isinstance(net, Classifier) else None


def layers(net: Classifier, images: Tensor) -> list[Layer]:
    """Return every layer before the head in its order, shapes as they are for these images (N, C, H, W)."""
    named = parts(net)
    with torch.no_grad():
        seen = outputs(net, images[:1], list(named.values()))
    found: list[Layer] = []
    for (name, module), output in zip(named.items(), seen, strict=True):
        shape = () if output is None else tuple(output.shape[1:])
        if shape and any(
            sum(n > 1 for n in p.shape) > 1 for p in module.parameters()
        ):  # mixes pixels or channels
            found.append(Layer(short(name), module, shape))
        elif found and shape == found[-1].shape and not isinstance(module, nn.AdaptiveAvgPool2d):
            found[-1] = replace(found[-1], module=module)
    return found


def short(name: str) -> str:
    """Return a layer's name as pictures print it: `stage1`, but `features.0`, a bare number says nothing."""
    last = name.removeprefix("net.").removeprefix("net.")
    inner = last.removeprefix("features.")
    return last if inner.isdigit() else inner


def chosen(found: Sequence[Layer], most: int) -> list[Layer]:
    """Return up to `most` layers spread evenly over the depth, the first and the last among them."""
    return [found[i] for i in spread(len(found), most)] if found else []


class _Enough(Exception):
    """Every layer that was asked for has answered."""


def outputs(
    net: Classifier, images: Tensor, layers: Sequence[nn.Module | str]
) -> list[Tensor | None]:
    """Return what each layer, or the one of that name, answers on the way to the logits of images (N, C, H, W).

    With gradients; None where it is not used; nothing after the last of them is run.
    """
    asked = [net.get_submodule(layer) if isinstance(layer, str) else layer for layer in layers]
    found: dict[nn.Module, Tensor] = {}

    def keep(module: nn.Module, answer: Tensor) -> None:
        found[module] = answer.clone()  # a ReLU that works in place may come next
        if len(found) == len({*asked}):
            raise _Enough

    with suppress(_Enough), hooked(asked, keep):
        net.logits(images)
    return [found.get(module) for module in asked]


@contextmanager
def hooked(
    modules: Iterable[nn.Module], seen: Callable[[nn.Module, Tensor], None]
) -> Iterator[None]:
    """Call seen(module, answer) for each of the modules as it answers."""
    handles = [
        m.register_forward_hook(lambda module, given, answer: seen(module, answer))
        for m in {*modules}
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@torch.no_grad()
def map_stages(net: Classifier, image: Tensor, least_px: int = 1) -> list[str]:
    """Return the stages whose answer is maps (C, h, w) of h, w >= least_px, in their order, batch norms apart."""
    found = [
        name for name in stages(net) if not isinstance(net.get_submodule(name), nn.BatchNorm2d)
    ]
    answers = dict(zip(found, outputs(net, image, found), strict=True))
    return [
        name
        for name, maps in answers.items()
        if maps.dim() == 4 and min(maps.shape[2:]) >= least_px
    ]


def bounded(stage: nn.Module) -> bool:
    """True where a stage ends in a ReLU6 (a `Cap`) or the like, whose gradient is 0 once the unit is at its bound."""
    return isinstance([*stage.modules()][-1], Cap | nn.Tanh | nn.Sigmoid)


@torch.no_grad()
def cost(net: Classifier, image: Tensor) -> int:
    """Return the multiply-adds of convolutions and dense layers; torch's own counter takes 4 s to import."""
    counts: list[int] = []
    layers = [layer for layer in net.modules() if isinstance(layer, nn.Conv2d | nn.Linear)]
    with hooked(
        layers, lambda layer, y: counts.append(y.numel() * math.prod(layer.weight.shape[1:]))
    ):
        net.logits(image)
    return sum(counts)


@torch.no_grad()
def batches(
    net: Classifier, images: Tensor, modules: Sequence[nn.Module]
) -> Iterator[list[Tensor]]:
    """Yield the modules' outputs batch by batch: those of all images at once would not fit where maps are large."""
    for part in images.split(BATCH):
        yield outputs(net, part, modules)


@torch.no_grad()
def last_hidden(net: Classifier, images: Tensor) -> np.ndarray:
    """Return (N, F) float32: what goes into the last layer with weights, maps averaged over their places."""
    head = net.net.head
    last = [m for m in head.modules() if list(m.parameters(recurse=False))] or [head]
    seen: list[Tensor] = []
    hook = last[-1].register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    try:
        for part in images.split(BATCH):
            net.logits(part)
    finally:
        hook.remove()
    features = torch.cat(seen)
    return (features.mean((2, 3)) if features.dim() == 4 else features.flatten(1)).numpy()


def rounded(value: float | Tensor) -> float:
    """Return a number as reports keep it: four significant digits repeat on one machine."""
    return float(f"{value:.4g}")
