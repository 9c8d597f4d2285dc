"""Ensemble: the mean forecast of TCNs that differ in look-back and in normalisation.

Each member, a models/tcn.py, has weights and a loss of its own, as in Lakshminarayanan et al. 2017,
"Simple and scalable predictive uncertainty estimation using deep ensembles", arXiv:1612.01474,
section 2.4, whose members differ by their random start. Here they differ by what they assume of a
series that leaves the range of its training: `instance` that its level and spread move, `last` that
its level moves, `none` that neither does. The validation split may not show which assumption holds;
the mean needs no choice. The defaults are these three, which all see the whole context. Each
quantile level is averaged separately: Lichtendahl, Grushka-Cockayne, Winkler 2013, "Is it better to
average probabilities or quantiles?", section 3.

    member    layers                                        output for a window (504, 7), S = 96
    each      a TCN on its newest `look_backs` rows         96 x 7
              the mean of all, one for each pair of a look-back
              and a normalisation                           96 x 7

In training the network returns each member's forecast, for a loss of its own: `aux_weight: 1` gives
all members the same weight, and the training loss that is printed is the first member's. Each
member keeps the weights of its own best epoch.

Expected: on ETTh1, six members, three seeds, results/etth1.md; on sunspots, three members, mean
squared error 1,324, and .78 of the test rows inside the 80 % interval (`instance` alone: 1,020 to
1,080 and .86 to .89 over three seeds).
"""

import itertools
from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from models import layers, options, tcn
from models.options import Count, Fraction, Positive

PAPER = "after Lakshminarayanan et al. 2017"

REFERENCE = {
    "six TCNs": {
        "options": {
            "series": 7,
            "targets": 7,
            "calendar": 0,
            "horizon": 96,
            "context": 504,
            "quantiles": 1,
            "look_backs": [336, 504],
            "channels": 8,
            "patch": 24,
            "stride": 24,
        },
        "input": (504, 7),
        "trainable": 12_096,
        "fixed": 0,
        "source": "3 (200 + 3 * 272 + 9 * 96) + 3 (200 + 4 * 272 + 9 * 96)",
    },
}


def check_options(
    context: int,
    look_backs: Sequence[int] | None,
    normalise: Sequence[str],
    kernel_size: int,
    patch: int,
    stride: int,
) -> None:
    """Raise ValueError without members, or for members that do not fit the context."""
    rows = [context] if look_backs is None else look_backs
    if not rows or not normalise or min(rows) < 1 or max(rows) > context:
        got = f"look_backs {list(rows)}, normalise {list(normalise)}"
        needed = f"one and more of each, look-backs up to context {context}"
        raise ValueError(f"ensemble: expected {needed}, got {got}; raise context or lower them")
    options.require_patch("ensemble", kernel_size, patch, stride)


class Ensemble(nn.Module):
    """Return forecasts (N, S * Q, targets) for standardised series (N, T, D).

    In training a tuple, one for each member."""

    def __init__(
        self,
        *,
        series: int,
        targets: int,
        calendar: int,
        horizon: int,
        context: int,
        quantiles: int,
        look_backs: Sequence[Positive] | None = None,
        normalise: Sequence[Literal["instance", "last", "none"]] = ("instance", "last", "none"),
        channels: Positive = 32,
        kernel_size: Positive = 3,
        blocks: Count = 0,
        patch: Positive = 16,
        stride: Positive = 8,
        dropout: Fraction = 0.2,
        independent: bool = True,
        linear: bool = False,
    ) -> None:
        """`look_backs`: rows that members see, at most `context`; None: all see `context` rows;
        `normalise`: as the TCN's; each pair is a member.
        """
        super().__init__()
        look_backs = [context] if look_backs is None else look_backs
        check_options(context, look_backs, normalise, kernel_size, patch, stride)
        shared: dict[str, Any] = {
            "series": series,
            "targets": targets,
            "calendar": calendar,
            "horizon": horizon,
            "quantiles": quantiles,
            "channels": channels,
            "kernel_size": kernel_size,
            "blocks": blocks,
            "patch": patch,
            "stride": stride,
            "dropout": dropout,
            "independent": independent,
            "linear": linear,
        }
        pairs = itertools.product(look_backs, normalise)
        self.rows = context + (horizon if calendar else 0)
        members = [tcn.TCN(context=rows, normalise=kind, **shared) for rows, kind in pairs]
        self.members = nn.ModuleList(members)
        self.receptive_field = max(member.receptive_field for member in members)
        self.convolution_field = max(member.convolution_field for member in members)

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, ...]:
        layers.require_steps("ensemble", x, self.rows)
        forecasts = tuple(member(x) for member in self.members)
        return forecasts if self.training else torch.stack(forecasts).mean(0)


Model = Ensemble
