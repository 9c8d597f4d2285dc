"""The loss of a batch, penalties on weights, quantile offsets, and the precision of a step."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pipeline.core.errors import StageError
from pipeline.params.schema import ResolvedTrain, Train


def cross_entropy(logits: Tensor, y: Tensor, train: ResolvedTrain) -> Tensor:
    """Return the mean cross-entropy of a batch: logits (N, K), labels y (N,) or mixed (N, K).

    softmax-clip is Keras's cross-entropy on probabilities, clipped to [1e-7, 1 - 1e-7]. A saturated
    wrong sample gets no gradient from it, which explains the accuracy of 76 % in the lecture notes'
    exercise. It is here for a study.
    """
    if train.loss == "softmax-clip":
        return F.nll_loss(logits.softmax(1).clamp(1e-7, 1 - 1e-7).log(), y)
    return F.cross_entropy(logits, y, label_smoothing=train.label_smoothing)


def forecast_error(output: Tensor, y: Tensor, train: ResolvedTrain) -> Tensor:
    """Return the mean squared error of forecasts, or the pinball loss of their quantiles."""
    return pinball(output, y, train.levels) if train.loss == "pinball" else F.mse_loss(output, y)


def pinball(output: Tensor, y: Tensor, levels: Sequence[float]) -> Tensor:
    """Return the mean of max(q e, (q - 1) e) over the quantile levels q, a scalar.

    e is the truth y (N, S, D) less its level in output (N, S * Q, D).

    Koenker & Bassett 1978, "Regression quantiles", eq. 2.3.
    """
    q = level_column(tuple(levels), y.device)
    gap = y.unsqueeze(2) - output.unflatten(1, (y.shape[1], -1))  # (N, S, Q, D)
    return torch.maximum(q * gap, (q - 1) * gap).mean()


@functools.cache
def level_column(levels: tuple[float, ...], on: torch.device) -> Tensor:
    """Return the levels (Q, 1) on the device, cached: each copy makes a GPU and its host wait."""
    return torch.tensor(levels, device=on).view(-1, 1)


def conformal_offsets(gaps: Tensor, levels: Sequence[float]) -> Tensor:
    """Return the offset of each quantile level (S, D, Q), calibrated on M windows.

    gaps (M, S, D, 1 or Q): the truth less the forecast, or less the forecast of each level. The
    offset of level q is the ceil((M + 1) q)-th smallest gap for q above .5, the floor((M + 1) q)-th
    below, the median for .5. The truth of one more, exchangeable window then lies beyond it with at
    most the level's probability (Romano, Patterson, Candes 2019, "Conformalized quantile
    regression", arXiv:1905.03222, theorem 2, for each tail). With fewer than 1 / (1 - q) windows
    there is no such gap, and the largest is taken.
    """
    count, ordered, offsets = len(gaps), gaps.sort(0).values, []
    for k, q in enumerate(levels):
        exact = round((count + 1) * q, 6)
        place = math.ceil(exact) if q > 0.5 else math.floor(exact)
        middle = [(count - 1) // 2, count // 2]
        by_rank = ordered[:, :, :, min(k, gaps.shape[3] - 1)]
        rank = min(max(place, 1), count) - 1
        offsets.append(by_rank[middle].mean(0) if q == 0.5 else by_rank[rank])
    return torch.stack(offsets, -1)


def penalty(net: nn.Module, train: Train) -> Tensor | float:
    """Return l1 * sum |w| + l2 * sum w^2 over all weights but biases and batch normalization.

    l2_convention `half` takes l2 / 2, whose gradient l2 * w is what `weight_decay` of sgd and adam
    adds to the gradient, there of biases too (adamw shrinks the weights apart from the gradient,
    Loshchilov & Hutter 2019, arXiv:1711.05101).
    """
    if not train.l1 and not train.l2:
        return 0.0
    half = 0.5 if train.l2_convention == "half" else 1.0
    l1 = sum((w.abs().sum() for w in weight_tensors(net)), torch.zeros(()))
    l2 = sum((w.square().sum() for w in weight_tensors(net)), torch.zeros(()))
    return train.l1 * l1 + half * train.l2 * l2


def weight_tensors(net: nn.Module) -> list[Tensor]:
    """Return the weights without biases and normalisation."""
    return [p for name, p in net.named_parameters() if p.dim() > 1 and not name.endswith("bias")]


def computes_in_bf16() -> bool:
    """Return whether the CPU has instructions for bf16; without them float32 is faster."""
    return bool(torch.cpu._is_avx512_bf16_supported())


def autocast(precision: str, on: torch.device) -> torch.autocast:
    """Return the autocast context of a precision.

    `auto` is bf16 on a GPU that computes in it, else float32; `fast` is bf16 on such a CPU, too.
    """
    on_cpu = on.type == "cpu"
    able = on_cpu or torch.cuda.is_bf16_supported(including_emulation=False)
    if precision == "bf16" and not able:
        what = "this GPU does not compute in bf16 (before Ampere)"
        raise StageError(f"train.precision: {what}; set fp32 or auto")
    fast = computes_in_bf16() if on_cpu else able
    bf16 = {"bf16": True, "fast": fast, "auto": able and not on_cpu}.get(precision, False)
    return torch.autocast(on.type, torch.bfloat16, enabled=bf16)
