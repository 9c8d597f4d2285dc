"""Select layers of a classifier; capture their activations."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from pipeline.data.dataset import spread
from pipeline.explain.modified_relu import ClampAtSix
from pipeline.network.modules import Classifier, parts, stages

BATCH = 32
ACTIVATIONS = (nn.ReLU, nn.LeakyReLU, nn.ELU, nn.GELU, nn.SiLU, nn.Hardswish, nn.Tanh, nn.Sigmoid)
Item = TypeVar("Item")


@dataclass(frozen=True)
class Layer:
    """A convolution, dense layer or block with the normalisation and activation after it:
    `module` is the last.
    """

    name: str
    module: nn.Module
    shape: tuple[int, ...]  # of one sample's output: (C, H, W) or (F,)

    @property
    def spatial(self) -> bool:
        return len(self.shape) == 3


def find_layers(net: Classifier, images: Tensor) -> list[Layer]:
    """Return every layer before the head in order, with its output shape for the images."""
    named = parts(net)
    with torch.no_grad():
        outputs = capture_outputs(net, images[:1], list(named.values()))
    layers: list[Layer] = []
    for (name, module), output in zip(named.items(), outputs, strict=True):
        shape = () if output is None else tuple(output.shape[1:])
        if shape and mixes(module):
            layers.append(Layer(short_name(name), module, shape))
        elif layers and shape == layers[-1].shape and not isinstance(module, nn.AdaptiveAvgPool2d):
            layers[-1] = replace(layers[-1], module=module)
    return layers


def mixes(module: nn.Module) -> bool:
    """Return whether a module has weights that mix pixels or channels (batch norm has not)."""
    return any(sum(n > 1 for n in p.shape) > 1 for p in module.parameters())


def short_name(name: str) -> str:
    """Return a layer's name as pictures print it: `stage1`, but `features.0`, not 0."""
    last = name.removeprefix("net.").removeprefix("net.")
    inner = last.removeprefix("features.")
    return last if inner.isdigit() else inner


def select_evenly(items: Sequence[Item], count: int) -> list[Item]:
    """Return up to `count` items spread evenly, the first and the last among them."""
    return [items[i] for i in spread(len(items), count)] if items else []


class _AllCaptured(Exception):
    """Every layer that was asked for has run: the forward pass can stop."""


def capture_outputs(
    net: Classifier, images: Tensor, layers: Sequence[nn.Module | str]
) -> list[Tensor | None]:
    """Return the output of each layer, a module or its name, for images (N, C, H, W).

    bf16 as float32. None for a layer that does not run. The forward pass stops after the last of
    them.
    """
    modules = [net.get_submodule(layer) if isinstance(layer, str) else layer for layer in layers]
    outputs: dict[nn.Module, Tensor] = {}

    def keep(module: nn.Module, output: Tensor) -> None:
        # the next layer may be a ReLU that works in place
        outputs[module] = output.float() if output.dtype == torch.bfloat16 else output.clone()
        if len(outputs) == len({*modules}):
            raise _AllCaptured

    with suppress(_AllCaptured), watch_outputs(modules, keep):
        net.logits(images)
    return [outputs.get(module) for module in modules]


def capture_output(net: Classifier, images: Tensor, layer: nn.Module | str) -> Tensor:
    """Return the output of one layer that runs for images (N, C, H, W), with gradients."""
    (output,) = capture_outputs(net, images, [layer])
    assert output is not None, layer
    return output


def capture_maps(
    net: Classifier, images: Tensor, layers: Sequence[nn.Module | str]
) -> list[Tensor]:
    """Return the outputs of layers that all run for images (N, C, H, W), with gradients."""
    return [maps for maps in capture_outputs(net, images, layers) if maps is not None]


@contextmanager
def watch_outputs(
    modules: Iterable[nn.Module], callback: Callable[[nn.Module, Tensor], None]
) -> Iterator[None]:
    """Call callback(module, output) each time that one of the modules runs."""
    handles = [
        m.register_forward_hook(lambda module, _, output: callback(module, output))
        for m in {*modules}
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def find_map_stages(net: Classifier, image: Tensor, min_px: int = 1) -> list[str]:
    """Return the names of the stages with maps (N, C, h, w), h, w >= min_px; no batch norms."""
    names = [n for n in stages(net) if not isinstance(net.get_submodule(n), nn.BatchNorm2d)]
    return select_with_maps(net, image, names, min_px)


@torch.no_grad()
def select_with_maps(
    net: Classifier, image: Tensor, names: Sequence[str], min_px: int
) -> list[str]:
    """Return those of the named layers whose output is a map (N, C, h, w) with h, w >= min_px."""
    return [
        name
        for name, output in zip(names, capture_outputs(net, image, names), strict=True)
        if output is not None and output.dim() == 4 and min(output.shape[2:]) >= min_px
    ]


def is_bounded(stage: nn.Module) -> bool:
    """Return whether a stage ends in a ReLU6 or a sigmoid: no gradient for a unit at its bound."""
    return isinstance([*stage.modules()][-1], ClampAtSix | nn.Tanh | nn.Sigmoid)


@torch.no_grad()
def capture_in_batches(
    net: Classifier, images: Tensor, modules: Sequence[nn.Module]
) -> Iterator[list[Tensor]]:
    """Yield the modules' outputs batch by batch, because the maps of all images are large."""
    for batch in images.split(BATCH):
        yield capture_maps(net, batch, modules)


@torch.no_grad()
def penultimate_features(net: Classifier, images: Tensor) -> np.ndarray:
    """Return the input (N, F) of the last layer with weights, maps averaged over their pixels."""
    head = net.get_submodule("net.head")
    last = [m for m in head.modules() if list(m.parameters(recurse=False))] or [head]
    inputs: list[Tensor] = []
    hook = last[-1].register_forward_pre_hook(lambda module, args: inputs.append(args[0]))
    try:
        for batch in images.split(BATCH):
            net.logits(batch)
    finally:
        hook.remove()
    features = torch.cat(inputs)
    return (features.mean((2, 3)) if features.dim() == 4 else features.flatten(1)).numpy()
