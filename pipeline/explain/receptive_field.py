"""Which input pixels a unit sees, by exact arithmetic on what the network runs: kernel, stride, padding and dilation.

Araujo, Norris, Sim 2019, "Computing Receptive Fields of Convolutional Neural Networks", Distill, section "Computing
the receptive field region". Where branches meet, a unit sees the union of what they see.
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
# operators that answer place i from place i of their inputs, beside those that torch calls pointwise
ALIKE = {
    aten.native_batch_norm.default,
    aten.cat.default,
    aten.clone.default,
    aten._to_copy.default,
}


@dataclass(frozen=True)
class Field:
    """Along one axis, the unit at place i sees the inputs `first + jump * i` to `last + jump * i`, both included."""

    first: int = 0
    last: int = 0
    jump: int = 1

    @property
    def size(self) -> int:
        return self.last - self.first + 1

    def slide(self, kernel: int, stride: int, padding: int, dilation: int = 1) -> Field:
        """Return the field of a window that slides over units with this one."""
        reach = dilation * (kernel - 1)
        return Field(
            self.first - padding * self.jump,
            self.last + (reach - padding) * self.jump,
            self.jump * stride,
        )

    def shift(self, steps: int, every: int = 1) -> Field:
        """Return the field where unit i is the one that was at `steps` + `every` * i."""
        return Field(
            self.first + steps * self.jump, self.last + steps * self.jump, self.jump * every
        )

    def within(self, place: int, length: int) -> tuple[int, int]:
        """Return the first input that the unit at `place` sees, and the one after the last, padding cut off."""
        return max(0, self.first + self.jump * place), min(
            length, self.last + self.jump * place + 1
        )


Fields = tuple[Field, ...] | None  # one for each axis of the map; None: every unit sees every input


def fields(function: Callable[[Tensor], Sequence[Tensor]], example: Tensor) -> list[Fields]:
    """Return the fields of each output of a function of images (N, C, H, W) or series (N, C, T).

    The function is run once on the example, so it may call modules, hooks and functions alike. What comes after an
    operator that is not known here to keep places apart sees everything.
    """
    known = Known(example)
    with torch.no_grad(), known:
        return [known.of(output) for output in function(example)]


class Known(TorchDispatchMode):
    """Follows each operator that runs, down to those of aten, and remembers what its output sees."""

    def __init__(self, example: Tensor):
        super().__init__()
        self.axes = example.dim() - 2
        self.seen: dict[
            int, tuple[Tensor, Fields]
        ] = {}  # with the tensor, so that no other gets its id
        self.put(example, (Field(),) * self.axes)

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # it would import torch's compiler to keep out of it: 5 s

    def put(self, tensor: Tensor, fields: Fields) -> None:
        self.seen[id(tensor)] = tensor, fields

    def of(self, tensor: Tensor) -> Fields:
        return self.seen[id(tensor)][1]

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        output = func(*args, **(kwargs or {}))
        sources = [self.of(t) for t in tree_leaves(args) if id(t) in self.seen]
        if sources:
            fields = (
                None
                if any(source is None for source in sources)
                else step(func, args, sources, self.axes)
            )
            for tensor in tree_leaves(output):
                self.put(tensor, fields)
        return output


def step(func: Any, args: tuple[Any, ...], sources: list[Any], axes: int) -> Fields:
    """Return the fields of an operator's output, from those of its inputs that depend on the image."""
    before = sources[0]

    def option(place: int, default: Any) -> list[int]:
        value = args[place] if len(args) > place and args[place] != [] else default
        value = [value] if isinstance(value, int) else list(value)
        return value * axes if len(value) == 1 else value

    def slid(
        kernel: list[int], stride: list[int], padding: list[int], dilation: list[int]
    ) -> Fields:
        return tuple(
            f.slide(*how) for f, *how in zip(before, kernel, stride, padding, dilation, strict=True)
        )

    def shifted(steps: Sequence[int], every: Sequence[int]) -> Fields:
        return tuple(f.shift(n, m) for f, n, m in zip(before, steps, every, strict=True))

    if func is aten.convolution.default and not args[6]:
        return slid(list(args[1].shape[2:]), option(3, 1), option(4, 0), option(5, 1))
    if func is aten.max_pool2d_with_indices.default:
        return slid(option(1, 1), option(2, args[1]), option(3, 0), option(4, 1))
    if func is aten.avg_pool2d.default:
        return slid(option(1, 1), option(2, args[1]), option(3, 0), [1, 1])
    if func is aten.constant_pad_nd.default:  # pairs (before, after), the last axis first
        return shifted([-n for n in [*args[1][::2], *[0] * axes][:axes][::-1]], [1] * axes)
    if func is aten.slice.Tensor:
        dim, start, _, every = (*args[1:], *(0, None, None, 1)[len(args) - 1 :])
        starts = range(args[0].shape[dim])[start or 0 :][:1]
        moves = [
            ((starts or [0])[0], every) if axis + 2 == dim % (axes + 2) else (0, 1)
            for axis in range(axes)
        ]
        return shifted(*zip(*moves, strict=True))
    if func in ALIKE or torch.Tag.pointwise in func.tags:
        return tuple(union(own) for own in zip(*sources, strict=True))
    return None


def union(fields: Sequence[Field]) -> Field:
    (jump,) = {field.jump for field in fields}  # maps that are joined have equal places
    return Field(min(f.first for f in fields), max(f.last for f in fields), jump)
