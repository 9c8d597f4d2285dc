"""Gradient saliency as an output of the exported graph (Q12): what torch's autograd computes, as ordinary operators.

Simonyan, Vedaldi, Zisserman 2013, arXiv:1312.6034, section 3. The gradient is traced into a graph of its own
(`torch.func.grad` under `make_fx`); what the exporter has no form for, the gradients of convolution and pooling, is
decomposed here. What such a file takes and answers:

    images         uint8 (N, H, W, C)
    target         int64 (1,), not needed: the class whose saliency is asked for; -1, the default: the image's top one
    probabilities  float32 (N, K)
    scores         float32 (N, K), before softmax
    saliency       float32 (N, H, W, C): d score / d pixel, signed, per channel, in score for one grey level (of 0..255)
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from torch import Tensor, nn
from torch.fx.experimental.proxy_tensor import make_fx

from pipeline.core.errors import StageError
from pipeline.export import graph as export
from pipeline.export import quantize
from pipeline.network.modules import Classifier

aten = torch.ops.aten
LIMIT = (
    1e-4  # of the file's saliency from autograd's, as a share of the largest gradient of the image
)
MOST = 1e-2  # of the median map: a derivative that is wrong is off by tenths
OUTPUTS = ["probabilities", "scores", "saliency"]


class Explained(nn.Module):
    """uint8 images (N, H, W, C) and a class (1,) to probabilities (N, K), scores (N, K) and saliency (N, H, W, C)."""

    def __init__(self, net: Classifier):
        super().__init__()
        self.net = net

    def forward(self, images: Tensor, target: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        def score(x: Tensor) -> tuple[Tensor, Tensor]:
            scores = self.net.logits(x)
            asked = torch.where(target < 0, scores.argmax(1, keepdim=True), target)  # (N, 1)
            return (
                scores * (torch.arange(scores.shape[1], device=x.device) == asked)
            ).sum(), scores

        # contiguous: all maps would be channels-last otherwise, by strides that the exporter cannot follow
        x = images.permute(0, 3, 1, 2).float().contiguous()
        gradient, scores = torch.func.grad(score, has_aux=True)(x)
        return scores.softmax(1), scores, gradient.permute(0, 2, 3, 1)


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
    """Return (d / d input, None, None), in 1, 2 or 3 dimensions: the transposed convolution of the output's gradient.

    Dumoulin & Visin 2016, arXiv:1603.07285, relationship 14: where a stride left input pixels over at the end, output
    padding gives them their place.
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
    """Return d / d input: each gradient goes to the pixel that was the largest, whose index is the last of options."""
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
    """Return d / d input of an average pool: the mean over a window is a product of means over rows and columns.

    A window ends with the padding; one that `ceil_mode` starts late is shorter. With `count_include_pad` pixels of the
    padding count as zeros, else not at all.
    """
    if divisor is not None:
        return NotImplemented

    def windows(d: int) -> Tensor:
        size, pad = int(x.shape[d - 2]), padding[d % len(padding)]
        start = (
            torch.arange(int(grad.shape[d - 2])) * (stride or kernel)[d % len(stride or kernel)]
            - pad
        )
        end = (start + kernel[d % len(kernel)]).clamp(max=size + pad)
        inside = start.clamp(min=0), end.clamp(max=size)
        return means(*inside, size, end - start if count_include_pad else inside[1] - inside[0])

    return windows(0).T @ grad @ windows(1)


def adaptive_pool_backward(grad: Tensor, x: Tensor) -> Tensor:
    """Return d / d input of an adaptive average pool: window i of n covers floor(i H / n) to ceil((i + 1) H / n)."""

    def windows(d: int) -> Tensor:
        size, count = int(x.shape[d]), int(grad.shape[d])
        i = torch.arange(count)
        start, end = i * size // count, -(-(i + 1) * size // count)
        return means(start, end, size, end - start)

    return windows(-2).T @ grad @ windows(-1)


def means(start: Tensor, end: Tensor, size: int, count: Tensor) -> Tensor:
    """Return the matrix (windows, size) that sums the pixels from start to before end and divides by count."""
    pixel = torch.arange(size)
    inside = (pixel >= start[:, None]) & (pixel < end[:, None])
    return inside / count[:, None]


TABLE: dict[Any, Callable[..., Any]] = {
    aten.convolution_backward.default: convolution_backward,
    aten.max_pool2d_with_indices_backward.default: max_pool_backward,
    aten.avg_pool2d_backward.default: avg_pool_backward,
    aten._adaptive_avg_pool2d_backward.default: adaptive_pool_backward,
}


def traced(function: Callable[..., Any], *example: Tensor) -> torch.fx.GraphModule:
    """Return the function as a graph in which the gradients above are decomposed, for any batch of the first input."""
    shape = example[0].shape[1:]
    rows = next(
        n for n in itertools.count(2) if n not in shape
    )  # axes of one size would be one symbol
    given = example[0].new_zeros(rows, *shape), *example[1:]
    with torch.no_grad():  # of weights; torch.func.grad has its own switch
        return make_fx(function, TABLE, tracing_mode="symbolic", _allow_non_fake_inputs=True)(
            *given
        )


def to_onnx(net: Classifier, example: np.ndarray) -> onnx.ModelProto:
    """Return one checked graph of a classifier with probabilities, scores and saliency; the batch is dynamic."""
    given = torch.from_numpy(np.array(example[:2])), torch.tensor([-1])
    net_of = traced(Explained(net.eval()), *given)
    graph = export.program_of(net_of, given, ["images", "target"], OUTPUTS, (export.BATCH, None))
    # an input with an initializer of its name has that as its default (onnx/docs/IR.md, "Graphs")
    graph.graph.initializer.append(numpy_helper.from_array(given[1].numpy(), "target"))
    part_pools(graph.graph)
    export.check_graph(graph)
    return graph


def part_pools(graph: onnx.GraphProto) -> None:
    """Give the gradient max pools of its own: one that must also say where its largest pixels are is slower."""
    for place, node in reversed(list(enumerate(graph.node))):
        if node.op_type == "MaxPool" and len(node.output) == 2:
            indexed = onnx.NodeProto()
            indexed.CopyFrom(node)
            indexed.name, indexed.output[0] = f"{node.name}_indices", f"{node.output[0]}_again"
            del node.output[1:]
            graph.node.insert(place + 1, indexed)


def gradient(net: Classifier, images: np.ndarray) -> np.ndarray:
    """Return what autograd says: d score of the top class / d pixel, float32 (N, H, W, C)."""
    x = torch.from_numpy(images).float().requires_grad_()
    (found,) = torch.autograd.grad(net.logits(x.permute(0, 3, 1, 2)).amax(1).sum(), x)
    return found.numpy()


def apart(got: np.ndarray, expected: np.ndarray) -> np.ndarray:
    """Return the largest difference of each map (N,), as a share of the largest gradient of its image."""
    axes = tuple(range(1, expected.ndim))
    scale = np.abs(expected).max(axes)
    return np.abs(got - expected).max(axes) / np.where(scale > 0, scale, 1)


def check(graph: onnx.ModelProto, net: Classifier, images: np.ndarray) -> dict[str, float]:
    """Return how far the file's saliency is from autograd's on images (N, H, W, C), map by map; an error if most are.

    A derivative has two values where a ReLU's input is 0 or two pixels of a max pool are equal, and rounding decides
    which is taken: one map of ResNet-20 in about 30 has such a unit and differs by up to a hundredth. They are counted.
    """
    (got,) = quantize.run(graph, images, ["saliency"])
    found = apart(got, gradient(net, images))
    median, worst = float(np.median(found)), float(found.max())
    if not median <= MOST:
        what = f"the file's saliency differs from autograd's by {median:.1e} of the largest, the median (limit {MOST})"
        raise StageError(f"export: {what}; leave `saliency: true` out")
    return {
        "median": median,
        "worst": worst,
        "beyond": int((found > LIMIT).sum()),
        "maps": len(images),
    }
