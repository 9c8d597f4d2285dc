"""What training minimises and how it steps: the loss, the penalties on weights, and the optimizers by name."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pipeline.core.errors import StageError
from pipeline.params.schema import ResolvedTrain, Train


def objective(output: Tensor, y: Tensor, train: ResolvedTrain) -> Tensor:
    """Return the mean loss of a batch.

    softmax-clip is Keras's cross-entropy on probabilities, clipped to [1e-7, 1 - 1e-7]: a saturated wrong sample gets
    no gradient, which explains the notes' 76 % (X05). It is here to be measured, not to be used.
    """
    if y.dtype != torch.int64:
        return (
            pinball(output, y, train.levels) if train.loss == "pinball" else F.mse_loss(output, y)
        )
    if train.loss == "softmax-clip":
        return F.nll_loss(output.softmax(1).clamp(1e-7, 1 - 1e-7).log(), y)
    return F.cross_entropy(output, y, label_smoothing=train.label_smoothing)


def pinball(output: Tensor, y: Tensor, levels: Sequence[float]) -> Tensor:
    """Return the mean of max(q e, (q - 1) e), e the truth (N, S, D) less its level q in output (N, S * Q, D).

    Koenker & Bassett 1978, "Regression quantiles", eq. 2.3.
    """
    q = level_column(tuple(levels), y.device)
    gap = y.unsqueeze(2) - output.unflatten(1, (y.shape[1], -1))  # (N, S, Q, D)
    return torch.maximum(q * gap, (q - 1) * gap).mean()


@functools.cache
def level_column(levels: tuple[float, ...], on: torch.device) -> Tensor:
    """Return the levels (Q, 1) on the device; made once, since every copy makes a GPU and its host wait."""
    return torch.tensor(levels, device=on).view(-1, 1)


def conformal_offsets(gaps: Tensor, levels: Sequence[float]) -> Tensor:
    """Return what to add to each level (S, D, Q), from gaps (M, S, D, 1 or Q): the truth less what was answered for it.

    Of M + 1 windows that are alike the truth of the last lies beyond a level's offset in at most the share that the
    level leaves: the ceil((M + 1) q)-th smallest gap above the median, the floor of it below; the median is the usual
    one. Romano, Patterson, Candes 2019, "Conformalized quantile regression", arXiv:1905.03222, theorem 2, each tail by
    itself. Fewer windows than 1 / (1 - q) know no such gap; their last one is taken.
    """
    count, ordered, offsets = len(gaps), gaps.sort(0).values, []
    for k, q in enumerate(levels):
        exact = round((count + 1) * q, 6)
        place = math.ceil(exact) if q > 0.5 else math.floor(exact)
        middle = [(count - 1) // 2, count // 2]
        own = ordered[:, :, :, min(k, gaps.shape[3] - 1)]
        offsets.append(own[middle].mean(0) if q == 0.5 else own[min(max(place, 1), count) - 1])
    return torch.stack(offsets, -1)


def penalty(net: nn.Module, train: Train) -> Tensor | float:
    """Return l1 * sum |w| + l2 * sum w^2 (T23-T25) over weights, biases and batch norm left out.

    l2_convention `half` takes l2 / 2, whose gradient is l2 * w: what sgd's and adam's `weight_decay` add to it (adamw
    shrinks the weights apart from the gradient, Loshchilov & Hutter 2019, arXiv:1711.05101), biases included.
    """
    if not train.l1 and not train.l2:
        return 0.0
    weights = [p for name, p in net.named_parameters() if p.dim() > 1 and not name.endswith("bias")]
    half = 0.5 if train.l2_convention == "half" else 1.0
    l1 = sum((w.abs().sum() for w in weights), torch.zeros(()))
    l2 = sum((w.square().sum() for w in weights), torch.zeros(()))
    return train.l1 * l1 + half * train.l2 * l2


def autocast(precision: str, on: torch.device) -> torch.autocast:
    """Return the autocast context: `auto` is bf16 on a GPU that computes in it; `fast` on such a CPU, too."""
    fast = torch.cpu._is_avx512_bf16_supported() if on.type == "cpu" else False
    able = on.type == "cpu" or torch.cuda.is_bf16_supported(including_emulation=False)
    if precision == "bf16" and not able:
        raise StageError(
            "train.precision: this GPU does not compute in bf16 (before Ampere); set fp32 or auto"
        )
    on_gpu = precision in ("auto", "fast") and on.type == "cuda" and able
    bf16 = precision == "bf16" or on_gpu or (precision == "fast" and fast)
    return torch.autocast(on.type, torch.bfloat16, enabled=bf16)
