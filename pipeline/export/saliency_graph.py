"""Gradient saliency as an output of the exported graph: torch's autograd in ordinary operators.

Simonyan, Vedaldi, Zisserman 2013, arXiv:1312.6034, section 3. The gradient is traced into a graph
of its own (`torch.func.grad` under `make_fx`). The exporter has no form for the gradients of
convolution and pooling, so these are decomposed here. Inputs and outputs of such a file:

    images         uint8 (N, H, W, C)
    target         int64 (1,), the class to explain; default -1, the predicted class
    probabilities  float32 (N, K)
    scores         float32 (N, K), before softmax
    saliency       float32 (N, H, W, C), d score / d pixel, signed, for one grey level (of 0..255)
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx
import torch
from torch import Tensor, nn
from torch.fx.experimental.proxy_tensor import make_fx

from pipeline.core.errors import StageError
from pipeline.export.graph import BATCH_AXIS, add_input_defaults, check_graph, trace_network
from pipeline.export.graph_analysis import run_graph
from pipeline.network.modules import Classifier

aten = torch.ops.aten
# Differences of the file's saliency from autograd's, as a share of the image's largest gradient.
CLOSE = 1e-4  # above it a map is counted
MAX_MEDIAN = 1e-2  # of the median map; a wrong derivative is off by tenths
OUTPUTS = ["probabilities", "scores", "saliency"]


def export_with_saliency(net: Classifier, example: np.ndarray) -> onnx.ModelProto:
    """Return one checked graph of a classifier with probabilities, scores and saliency.

    example: uint8 images (N, H, W, C), two or more.
    """
    inputs = torch.from_numpy(np.array(example[:2])), torch.tensor([-1])
    traced = trace_gradient(WithSaliency(net.eval()), *inputs)
    graph = trace_network(traced, inputs, ["images", "target"], OUTPUTS, (BATCH_AXIS, None))
    add_input_defaults(graph, {"target": inputs[1]})
    separate_max_pools(graph.graph)
    check_graph(graph)
    return graph


class WithSaliency(nn.Module):
    """uint8 images (N, H, W, C) and a class (1,) to OUTPUTS: (N, K), (N, K), (N, H, W, C)."""

    def __init__(self, net: Classifier):
        super().__init__()
        self.net = net

    def forward(self, images: Tensor, target: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        def target_score(x: Tensor) -> tuple[Tensor, Tensor]:
            scores = self.net.logits(x)
            label = torch.where(target < 0, scores.argmax(1, keepdim=True), target)  # (N, 1)
            chosen = torch.arange(scores.shape[1], device=x.device) == label
            return (scores * chosen).sum(), scores

        # contiguous: the exporter cannot follow the strides of channels-last tensors
        x = images.permute(0, 3, 1, 2).float().contiguous()
        gradient, scores = torch.func.grad(target_score, has_aux=True)(x)
        return scores.softmax(1), scores, gradient.permute(0, 2, 3, 1)


def trace_gradient(function: Callable[..., Any], *example: Tensor) -> torch.fx.GraphModule:
    """Return the function as a graph with decomposed gradients, for any batch size."""
    shape = example[0].shape[1:]
    # axes of equal size would become one symbol, so the batch gets a size of its own
    rows = next(n for n in itertools.count(2) if n not in shape)
    inputs = example[0].new_zeros(rows, *shape), *example[1:]
    with torch.no_grad():  # for weights; torch.func.grad has its own switch
        traced = make_fx(
            function, DECOMPOSITIONS, tracing_mode="symbolic", _allow_non_fake_inputs=True
        )
        return traced(*inputs)


def convolution_backward(
    grad: Tensor,
    x: Tensor,
    weight: Tensor,
    bias_sizes: Any,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    transposed: bool,
    output_padding: Sequence[int],
    groups: int,
    mask: Sequence[bool],
) -> Any:
    """Return (d / d input, None, None): a transposed convolution of the output's gradient.

    In 1, 2 or 3 dimensions. Dumoulin & Visin 2016, arXiv:1603.07285, relationship 14: output
    padding stands for the input pixels at the end that the stride does not reach.
    """
    if transposed or any(mask[1:]):
        return NotImplemented
    sizes = zip(
        x.shape[2:], grad.shape[2:], weight.shape[2:], stride, padding, dilation, strict=True
    )
    rest = [int(n - ((out - 1) * s - 2 * p + d * (k - 1) + 1)) for n, out, k, s, p, d in sizes]
    return (
        aten.convolution(grad, weight, None, stride, padding, dilation, True, rest, groups),
        None,
        None,
    )


def max_pool_backward(grad: Tensor, x: Tensor, *options: Any) -> Tensor:
    """Return d / d input: a window's gradient goes to its largest pixel, at index options[-1]."""
    zeros = grad.new_zeros(grad.shape[0], grad.shape[1], x.shape[2] * x.shape[3])
    return zeros.scatter_add(2, options[-1].flatten(2), grad.flatten(2)).view(x.shape)


def avg_pool_backward(
    grad: Tensor,
    x: Tensor,
    kernel: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    ceil_mode: bool,
    count_include_pad: bool,
    divisor: int | None,
) -> Tensor:
    """Return d / d input of an average pool, as a product of means over rows and over columns.

    A window ends with the padding; with `ceil_mode` the last one may be shorter. Pixels of the
    padding count as zeros with `count_include_pad`, else not at all.
    """
    if divisor is not None:
        return NotImplemented
    strides = stride or kernel

    def windows(d: int) -> Tensor:
        size, pad = int(x.shape[d - 2]), padding[d % len(padding)]
        start = torch.arange(int(grad.shape[d - 2])) * strides[d % len(strides)] - pad
        end = (start + kernel[d % len(kernel)]).clamp(max=size + pad)
        first, last = start.clamp(min=0), end.clamp(max=size)
        return averaging_matrix(
            first, last, size, end - start if count_include_pad else last - first
        )

    return windows(0).T @ grad @ windows(1)


def adaptive_pool_backward(grad: Tensor, x: Tensor) -> Tensor:
    """Return d / d input of an adaptive average pool.

    Window i of n covers the pixels floor(i H / n) to ceil((i + 1) H / n).
    """

    def windows(d: int) -> Tensor:
        size, count = int(x.shape[d]), int(grad.shape[d])
        i = torch.arange(count)
        start, end = i * size // count, -(-(i + 1) * size // count)
        return averaging_matrix(start, end, size, end - start)

    return windows(-2).T @ grad @ windows(-1)


def averaging_matrix(start: Tensor, end: Tensor, size: int, count: Tensor) -> Tensor:
    """Return the matrix (windows, size) that sums pixels start to end - 1 and divides by count."""
    pixel = torch.arange(size)
    inside = (pixel >= start[:, None]) & (pixel < end[:, None])
    return inside / count[:, None]


DECOMPOSITIONS: dict[Any, Callable[..., Any]] = {
    aten.convolution_backward.default: convolution_backward,
    aten.max_pool2d_with_indices_backward.default: max_pool_backward,
    aten.avg_pool2d_backward.default: avg_pool_backward,
    aten._adaptive_avg_pool2d_backward.default: adaptive_pool_backward,
}


def separate_max_pools(graph: onnx.GraphProto) -> None:
    """Give the gradient max pools of its own: a pool that returns indices too is slower."""
    for place, node in reversed(list(enumerate(graph.node))):
        if node.op_type == "MaxPool" and len(node.output) == 2:
            indexed = onnx.NodeProto()
            indexed.CopyFrom(node)
            indexed.name, indexed.output[0] = f"{node.name}_indices", f"{node.output[0]}_again"
            del node.output[1:]
            graph.node.insert(place + 1, indexed)


def check_saliency(graph: onnx.ModelProto, net: Classifier, images: np.ndarray) -> dict[str, float]:
    """Return the median and the largest difference of the file's saliency from autograd's.

    images: uint8 (N, H, W, C). A derivative has two values where a ReLU's input is 0 or two pixels
    of a max pool are equal, and rounding decides which is taken: one map of ResNet-20 in about 30
    has such a unit and differs by up to a hundredth. `beyond` counts these. Raises StageError where
    the median is too large.
    """
    (saliency,) = run_graph(graph, images, ["saliency"])
    differences = relative_difference(saliency, autograd_saliency(net, images))
    median, worst = float(np.median(differences)), float(differences.max())
    if not median <= MAX_MEDIAN:
        what = f"the file's saliency differs from autograd's by {median:.1e} of the largest"
        limit = f"the median (limit {MAX_MEDIAN})"
        raise StageError(f"export: {what}, {limit}; leave `saliency: true` out")
    return {
        "median": median,
        "worst": worst,
        "beyond": int((differences > CLOSE).sum()),
        "maps": len(images),
    }


def autograd_saliency(net: Classifier, images: np.ndarray) -> np.ndarray:
    """Return d score of the predicted class / d pixel by autograd, float32 (N, H, W, C)."""
    x = torch.from_numpy(images).float().requires_grad_()
    (gradient,) = torch.autograd.grad(net.logits(x.permute(0, 3, 1, 2)).amax(1).sum(), x)
    return np.asarray(gradient.numpy())


def relative_difference(got: np.ndarray, expected: np.ndarray) -> np.ndarray:
    """Return the largest difference of each map (N,), as a share of its largest expected value."""
    axes = tuple(range(1, expected.ndim))
    scale = np.abs(expected).max(axes)
    return np.asarray(np.abs(got - expected).max(axes) / np.where(scale > 0, scale, 1))
