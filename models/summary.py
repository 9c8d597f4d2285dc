"""Describe a network: its layers, its parameter counts, and the least input it accepts.

Everything runs on the meta device (shapes without numbers), so VGG-16 costs no memory;
`layer_table` also takes a real network. Counts follow Keras's convention, as the lecture notes do:
moving statistics of batch normalisation and other fixed numbers count as parameters that are not
trainable.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

import models


def layer_table(model: nn.Module, input_shape: tuple[int, ...]) -> list[dict[str, Any]]:
    """Return one row per layer, in order of execution, for one sample of `input_shape` (without N).

    A row is {"layer": name in the network, "type": class, "output": shape without N, "parameters":
    all, "trainable": of these}, ready for JSON. A layer is a module without children, or one with
    parameters that are not its children's.
    """
    rows: list[dict[str, Any]] = []
    hooks = [
        module.register_forward_hook(_record(rows, name))
        for name, module in model.named_modules()
        if not list(module.children()) or _own(module)
    ]
    training = model.training
    try:
        model.eval()  # batch normalisation refuses to learn from a single sample
        with torch.no_grad():
            model(torch.zeros(1, *input_shape, device=_device(model)))
    finally:
        model.train(training)
        for hook in hooks:
            hook.remove()
    return rows


def trainable(module: nn.Module) -> int:
    """Return how many parameters training changes."""
    return sum(parameter.numel() for parameter in module.parameters() if parameter.requires_grad)


@runtime_checkable
class Trimmed(Protocol):
    """A network that the exported file has without some of its modules."""

    def training_only(self) -> list[nn.Module]:
        """Return the modules that are not in the file."""


def shipped(module: nn.Module) -> int:
    """Return how many weights of a network are in the exported file."""
    rest = module.training_only() if isinstance(module, Trimmed) else []
    left_out = {id(weight) for part in rest for weight in part.parameters()}
    return sum(p.numel() for p in module.parameters() if id(p) not in left_out)


def total(module: nn.Module) -> int:
    """Return how many numbers the network has, without step counters."""
    return sum(
        tensor.numel() for tensor in module.state_dict().values() if tensor.is_floating_point()
    )


def on_meta(arch: str, options: dict[str, Any]) -> nn.Module:
    """Return the network on the meta device, in eval mode: shapes and counts without numbers."""
    with torch.device("meta"):
        return models.build(arch, **options).eval()


def least_input(arch: str, reference: dict[str, Any]) -> int:
    """Return the least side of a square image, or the least series length, that builds and runs.

    Bisects below the reference's input.
    """
    too_small, enough = 0, int(reference["input"][1 if _is_image(reference) else 0])
    while enough - too_small > 1:
        middle = (too_small + enough) // 2
        if runs(arch, reference, middle):
            enough = middle
        else:
            too_small = middle
    return enough


def runs(arch: str, reference: dict[str, Any], extent: int) -> bool:
    """Return whether the network builds and runs at this image side or series length."""
    options, (first, *_, last) = reference["options"], reference["input"]
    shape: tuple[int, ...] = (extent, last)
    if _is_image(reference):
        options, shape = options | {"size": (extent, extent)}, (first, extent, extent)
    try:
        on_meta(arch, options)(torch.zeros(1, *shape, device="meta"))
    except (ValueError, RuntimeError):  # ours, and torch's for a map without pixels
        return False
    return True


def _is_image(reference: dict[str, Any]) -> bool:
    return "size" in reference["options"]


def _record(
    rows: list[dict[str, Any]], name: str
) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor | tuple[Tensor, ...]], None]:
    def hook(
        module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor | tuple[Tensor, ...]
    ) -> None:
        seen = any(
            row["layer"] == name for row in rows
        )  # a layer used twice has its parameters once
        own = [] if seen else _own(module)
        main = output[0] if isinstance(output, tuple) else output  # of an LSTM its hidden state
        rows.append(
            {
                "layer": name,
                "type": type(module).__name__,
                "output": list(main.shape[1:]),
                "parameters": sum(tensor.numel() for tensor in own),
                "trainable": sum(tensor.numel() for tensor in own if tensor.requires_grad),
            }
        )

    return hook


def _own(module: nn.Module) -> list[Tensor]:
    """Return the module's parameters and fixed numbers without those of its children."""
    state = module.state_dict(keep_vars=True)
    return [
        tensor for name, tensor in state.items() if "." not in name and tensor.is_floating_point()
    ]


def _device(model: nn.Module) -> torch.device:
    return next(model.parameters()).device
