"""LTSF-Linear: one linear layer from a window to all steps ahead, a baseline for forecasters.

Zeng, Chen, Zhang, Xu 2022, "Are Transformers Effective for Time Series Forecasting?",
arXiv:2205.13504, section 4; rlinear after Li, Qi, Li, Xu 2023, "Revisiting long-term time series
forecasting: an investigation on linear mapping", arXiv:2305.10721. All series share the weights.

    kind      input of the layer                            output                 for (336, D), 96
    linear    the window                                    steps                  96 x D
    nlinear   the window less its last value                steps less that value  96 x D
    rlinear   the window less its mean                      steps less that mean   96 x D
    dlinear   the window's trend, and the rest, one each    the sum of the two     96 x D

The trend is a moving average over 25 steps, the window's ends repeated beyond it. The default is
nlinear. With `rank: 12` a layer is a convolution of 12 filters as wide as the window and a dense
layer on their answers. All kinds but dlinear have a closed form (models/closed_form.py).

Differs from Li et al.: windows are not divided by their spread, which changes nothing of a linear
map but its bias.

Expected on co2 (104 weeks of history, 12 ahead): mean squared error .27 nlinear, .5 to .6 dlinear;
a second.
"""

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models import closed_form, layers, options
from models.options import Count

PAPER = "Zeng et al. 2022"
KINDS = ("linear", "nlinear", "rlinear", "dlinear")
AVERAGED = 25  # steps of the moving average, as in the paper's code

OPTIONS = {"series": 1, "horizon": 96, "context": 336, "quantiles": 1}
REFERENCE = {
    name: {
        "options": OPTIONS | {"kind": name.split()[0].lower()} | more,
        "input": (336, 1),
        "trainable": count,
        "fixed": 0,
        "source": source,
    }
    for name, more, count, source in (
        ("NLinear", {}, 32_352, "336 * 96 + 96"),
        ("DLinear", {}, 64_704, "2 (336 * 96 + 96)"),
        ("RLinear of rank 12", {"rank": 12}, 5_280, "336 * 12 + 12 * 96 + 96"),
    )
}


def check_options(context: int, horizon: int, rank: int) -> None:
    """Raise ValueError for a rank that no map of the window has."""
    if rank > min(context, horizon):
        needed = f"rank up to context {context} and horizon {horizon}"
        raise ValueError(f"ltsflinear: expected {needed}, got {rank}; lower it, or 0 for any")


class LTSFLinear(nn.Module):
    """Return forecasts (N, S * Q, D) for standardised series (N, T, D).

    The Q levels of a step stand side by side."""

    def __init__(
        self,
        *,
        series: int,
        horizon: int,
        context: int,
        quantiles: int,
        kind: Literal["linear", "nlinear", "rlinear", "dlinear"] = "nlinear",
        rank: Count = 0,
        bias: bool = True,
    ) -> None:
        """`rank`: of each layer's map; 0: any; `bias`: false: none, but what sets quantile levels
        apart in closed form; several levels trained by gradient have a full one.
        """
        super().__init__()
        options.choose("ltsflinear", "kind", kind, dict.fromkeys(KINDS))
        check_options(context, horizon, rank)
        self.series, self.horizon, self.context, self.kind = series, horizon, context, kind
        self.bias = bias
        steps = horizon * quantiles
        shape = (context, steps, rank, bias or quantiles > 1)
        self.trend = closed_form.linear_head(*shape) if kind == "dlinear" else None
        self.head = closed_form.linear_head(*shape)

    @property
    def receptive_field(self) -> int:
        return self.context

    def forward(self, x: Tensor) -> Tensor:
        layers.require_steps("ltsflinear", x, self.context)
        rows = x[:, -self.context :].transpose(1, 2).reshape(-1, self.context)  # (N D, T)
        if self.trend is None:
            level = self.level(rows)
            y = self.head(rows - level) + level
        else:
            side = AVERAGED // 2
            padded = F.pad(rows.unsqueeze(1), (side, side), mode="replicate")
            trend = F.avg_pool1d(padded, AVERAGED, stride=1).squeeze(1)
            y = self.trend(trend) + self.head(rows - trend)
        return y.view(-1, x.shape[2], y.shape[1]).transpose(1, 2)

    def level(self, rows: Tensor) -> Tensor:
        """Return what is taken from each window (M, T) and given back to its forecast, (M, 1)."""
        if self.kind == "rlinear":
            return rows.mean(1, keepdim=True)
        last = rows[:, -1:]
        return last if self.kind == "nlinear" else torch.zeros_like(last)

    def solve(self, sums: Tensor, ridge: float, levels: Sequence[float]) -> list[nn.Parameter]:
        """Set the weights by the closed form, as `closed_form.Solvable` has it."""
        if self.trend is not None:
            raise ValueError("ltsflinear: dlinear has no closed form here; set kind: rlinear")
        taken = self.level(torch.eye(self.context, dtype=sums.dtype)).squeeze(1)
        return closed_form.solve_head(self.head, sums, taken, ridge, levels, self.bias)


Model = LTSFLinear
