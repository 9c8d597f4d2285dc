"""The layers of a classifier that are worth a look, and what they answer on images."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn

from models.lenet5 import Squash
from pipeline.data import spread
from pipeline.network import Classifier, parts
from pipeline.seeing.subject import Subject

BATCH = 32
ACTIVATIONS = (nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.ELU, nn.GELU, nn.SiLU, nn.Hardswish, nn.Tanh, nn.Sigmoid, Squash)


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
        if shape and any(sum(n > 1 for n in p.shape) > 1 for p in module.parameters()):  # mixes pixels or channels
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


def outputs(net: Classifier, images: Tensor, modules: Sequence[nn.Module]) -> list[Tensor | None]:
    """Return what each module answers on the way to the logits of images (N, C, H, W); None where it is not used."""
    seen: dict[nn.Module, Tensor] = {}
    hooks = [m.register_forward_hook(lambda m, inputs, output: seen.__setitem__(m, output)) for m in set(modules)]
    try:
        net.logits(images)
    finally:
        for hook in hooks:
            hook.remove()
    return [seen.get(module) for module in modules]


@torch.no_grad()
def batches(net: Classifier, images: Tensor, modules: Sequence[nn.Module]) -> Iterator[list[Tensor]]:
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


def rounded(value: float) -> float:
    """Return a number as reports keep it: four significant digits repeat on one machine."""
    return float(f"{value:.4g}")
