"""Compute which input pixels a unit sees, from the options of each operator that runs.

Araujo, Norris, Sim 2019, "Computing Receptive Fields of Convolutional Neural Networks", Distill,
section "Computing the receptive field region". Where branches join, a unit sees the union of what
they see.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

aten = torch.ops.aten
# operators whose output at place i depends on place i of the input, besides those that torch tags
# as pointwise
POINTWISE = {
    aten.native_batch_norm.default,
    aten.cat.default,
    aten.clone.default,
    aten._to_copy.default,
}


@dataclass(frozen=True)
class Field:
    """Along one axis, unit i sees the inputs `first + jump * i` to `last + jump * i`, inclusive."""

    first: int = 0
    last: int = 0
    jump: int = 1

    @property
    def size(self) -> int:
        return self.last - self.first + 1

    def slide(self, kernel: int, stride: int, padding: int, dilation: int = 1) -> Field:
        """Return the field of a window that slides over units with this field."""
        first = self.first - padding * self.jump
        last = self.last + (dilation * (kernel - 1) - padding) * self.jump
        return Field(first, last, self.jump * stride)

    def shift(self, start: int, stride: int = 1) -> Field:
        """Return the field after slicing: the new unit i is the old unit `start` + `stride` * i."""
        move = start * self.jump
        return Field(self.first + move, self.last + move, self.jump * stride)


Fields = tuple[Field, ...] | None  # one for each axis of the map; None: every unit sees every input


def compute_fields(
    function: Callable[[Tensor], Sequence[Tensor | None]], example: Tensor
) -> list[Fields]:
    """Return the fields of each output of a function of images (N, C, H, W) or series (N, C, T).

    The function runs once on the example, so it may call modules, hooks and functions. After an
    operator that is not known here, every unit sees every input.
    """
    tracker = FieldTracker(example)
    with torch.no_grad(), tracker:
        return [tracker.fields_of(output) for output in function(example) if output is not None]


class FieldTracker(TorchDispatchMode):
    """Follow each aten operator that runs, and store the fields of its outputs."""

    def __init__(self, example: Tensor):
        super().__init__()  # type: ignore[no-untyped-call]
        self.axes = example.dim() - 2
        # by the tensor's id; the tensor is stored too, so that no other gets its id
        self.known: dict[int, tuple[Tensor, Fields]] = {}
        self.store(example, (Field(),) * self.axes)

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # True would import torch's compiler: 5 s

    def store(self, tensor: Tensor, fields: Fields) -> None:
        self.known[id(tensor)] = tensor, fields

    def fields_of(self, tensor: Tensor) -> Fields:
        return self.known[id(tensor)][1]

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        output = func(*args, **(kwargs or {}))
        sources = [self.fields_of(t) for t in tree_leaves(args) if id(t) in self.known]
        if sources:
            known = [source for source in sources if source is not None]
            fields = propagate(func, args, known, self.axes) if known == sources else None
            for tensor in tree_leaves(output):
                self.store(tensor, fields)
        return output


def propagate(
    func: Any, args: tuple[Any, ...], sources: list[tuple[Field, ...]], axes: int
) -> Fields:
    """Return the fields of an operator's output from those of its inputs."""
    before = sources[0]

    def option(place: int, default: Any) -> list[int]:
        value = args[place] if len(args) > place and args[place] != [] else default
        values = [value] if isinstance(value, int) else list(value)
        return values * axes if len(values) == 1 else values

    def slide(*options: list[int]) -> Fields:
        return tuple(f.slide(*how) for f, *how in zip(before, *options, strict=True))

    if func is aten.convolution.default and not args[6]:  # not transposed
        return slide(list(args[1].shape[2:]), option(3, 1), option(4, 0), option(5, 1))
    if func is aten.max_pool2d_with_indices.default:
        return slide(option(1, 1), option(2, args[1]), option(3, 0), option(4, 1))
    if func is aten.avg_pool2d.default:
        return slide(option(1, 1), option(2, args[1]), option(3, 0))
    if func is aten.constant_pad_nd.default:  # pairs (before, after), the last axis first
        added = [*args[1][::2], *[0] * axes][:axes][::-1]
        return tuple(f.shift(-n) for f, n in zip(before, added, strict=True))
    if func is aten.slice.Tensor:
        dim, start, end, stride = args[1:] + (0, None, None, 1)[len(args) - 1 :]
        start = slice(start, end).indices(args[0].shape[dim])[0]
        sliced = dim % (axes + 2) - 2
        return tuple(f.shift(start, stride) if k == sliced else f for k, f in enumerate(before))
    if func in POINTWISE or torch.Tag.pointwise in func.tags:
        return tuple(unite(fields) for fields in zip(*sources, strict=True))
    return None


def unite(fields: Sequence[Field]) -> Field:
    (jump,) = {field.jump for field in fields}  # maps that are joined have equal places
    return Field(min(f.first for f in fields), max(f.last for f in fields), jump)
