"""Convolutions whose result is a small map, as products of matrices, in training on the CPU.

oneDNN, which torch calls, is made for large maps. On one core of an Intel Xeon with AMX, in bf16,
the gradient of the weights of a 3x3 convolution of 512 channels on 32 maps of 2 x 2 took 43 ms, and
takes 4 as a product; that of a 1x1 one of 2,080 channels on 64 maps of one pixel 8 and .2 ms. With
AMX switched off it is 40 and 12 ms, 4.7 and .9. From 7 x 7 pixels on oneDNN is as fast.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

PIXELS = 16  # of the result, at most


def use_products(net: nn.Module) -> None:
    """Let the network's convolutions be products in training where their result is a small map.

    Their weights and names stay, and so does what they compute in evaluation.
    """
    for layer in net.modules():
        plain = type(layer) is nn.Conv2d and layer.padding_mode == "zeros"
        if plain and layer.groups == 1 and layer.dilation == (1, 1):
            layer.__class__ = Conv2d


class Axis(NamedTuple):
    """How a convolution sees the rows, or the columns, of maps with `side` of them.

    Of its taps only those that reach the map: on a map of one pixel one of three does.
    """

    side: int
    stride: int
    results: int
    first: int  # tap
    taps: int
    before: int  # rows of zeros around the map
    after: int

    @property
    def part(self) -> slice:
        """Return the taps in the kernel."""
        return slice(self.first, self.first + self.taps)

    def places(self, tap: int) -> slice:
        """Return where a tap is on the padded map for each result."""
        return slice(tap, tap + self.stride * (self.results - 1) + 1, self.stride)


def axis_of(side: int, kernel: int, stride: int, padding: int) -> Axis:
    """Return how a kernel of so many taps sees a side of a map."""
    results = (side + 2 * padding - kernel) // stride + 1
    first = max(0, padding - stride * (results - 1))
    taps = min(kernel, side + padding) - first
    after = stride * (results - 1) + first + taps - padding - side
    return Axis(side, stride, results, first, taps, padding - first, max(0, after))


class Conv2d(nn.Conv2d):
    """torch's layer, under its name in the table of layers."""

    def _conv_forward(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        if not self.training or x.dim() != 4:
            return super()._conv_forward(x, weight, bias)
        kernel, padding = self.kernel_size, self.padding
        if isinstance(padding, str):
            padding = tuple(side // 2 if padding == "same" else 0 for side in kernel)
        rows, columns = (
            axis_of(x.shape[2 + k], kernel[k], self.stride[k], padding[k]) for k in (0, 1)
        )
        even = self.padding == "same" and any(side % 2 == 0 for side in kernel)  # one-sided
        seen = min(rows.results, columns.results, rows.taps, columns.taps, len(x)) > 0
        if even or not seen or rows.results * columns.results > PIXELS:
            return super()._conv_forward(x, weight, bias)
        if torch.is_autocast_enabled("cpu"):
            to = torch.get_autocast_dtype("cpu")
            x, weight, bias = x.to(to), weight.to(to), None if bias is None else bias.to(to)
        result: Tensor = Product.apply(x, weight, bias, rows, columns)
        return result.view(len(x), rows.results, columns.results, -1).permute(0, 3, 1, 2)


class Product(torch.autograd.Function):
    """The convolution of maps (N, C, H, W) as one product (N h w, O), of what each result sees
    (N h w, a b C) and the kernel's a x b taps that reach the map (a b C, O): im2col.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, rows: Axis, columns: Axis
    ) -> Tensor:
        maps = F.pad(
            x.permute(0, 2, 3, 1), (0, 0, columns.before, columns.after, rows.before, rows.after)
        )
        image, down, right, channel = maps.stride()
        seen = maps.as_strided(
            (len(x), rows.results, columns.results, rows.taps, columns.taps, x.shape[1]),
            (image, rows.stride * down, columns.stride * right, down, right, channel),
        ).reshape(-1, rows.taps * columns.taps * x.shape[1])
        ctx.save_for_backward(seen, weight)
        ctx.axes = rows, columns
        return F.linear(seen, matrix_of(weight, rows, columns), bias)

    @staticmethod
    @once_differentiable  # what each result sees is saved without its own history
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        (seen, weight), (rows, columns) = ctx.saved_tensors, ctx.axes
        of_x, of_weight, of_bias = None, None, None
        taps = rows.taps, columns.taps, weight.shape[1]
        if ctx.needs_input_grad[0]:
            back = gradient @ matrix_of(weight, rows, columns)
            back = back.view(-1, rows.results, columns.results, *taps)
            of_x = add_up(back, rows, columns).permute(0, 3, 1, 2).to(gradient.dtype)
        if ctx.needs_input_grad[1]:
            of_taps = (gradient.T @ seen).view(-1, *taps).permute(0, 3, 1, 2)
            of_weight = torch.zeros_like(weight)
            of_weight[:, :, rows.part, columns.part] = of_taps
        if ctx.needs_input_grad[2]:
            of_bias = gradient.sum(0)
        return of_x, of_weight, of_bias, None, None


def matrix_of(weight: Tensor, rows: Axis, columns: Axis) -> Tensor:
    """Return the taps of a kernel (O, C, A, B) that reach the map as a matrix (O, a b C)."""
    return weight[:, :, rows.part, columns.part].permute(0, 2, 3, 1).flatten(1)


def add_up(back: Tensor, rows: Axis, columns: Axis) -> Tensor:
    """Return the gradient of maps (N, H, W, C), from what each tap of each result gives back (N, h,
    w, a, b, C), col2im; sums of bf16 are of float32.
    """
    one_tap = rows.taps == columns.taps == 1 and not (rows.before or columns.before)
    if one_tap and back.shape[1:3] == (rows.side, columns.side):
        return back[:, :, :, 0, 0]
    sides = (axis.before + axis.side + axis.after for axis in (rows, columns))
    dtype = torch.promote_types(back.dtype, torch.float32)
    maps = torch.zeros(len(back), *sides, back.shape[5], dtype=dtype, device=back.device)
    for i in range(rows.taps):
        for j in range(columns.taps):
            maps[:, rows.places(i), columns.places(j)] += back[:, :, :, i, j]
    return maps[:, rows.before :, columns.before :][:, : rows.side, : columns.side]
