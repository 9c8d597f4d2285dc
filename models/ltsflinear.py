"""LTSF-Linear: one linear layer from a window to all steps ahead, a baseline for forecasters.

Zeng, Chen, Zhang, Xu 2022, "Are Transformers Effective for Time Series Forecasting?",
arXiv:2205.13504, section 4. All series share the weights.

    kind      input of the layer                            output                 for (336, D), 96
    nlinear   the window less its last value                steps less that value  96 x D
    dlinear   the window's trend, and the rest, one each    the sum of the two     96 x D

The trend is a moving average over 25 steps, the window's ends repeated beyond it. The default is
nlinear.

Expected on co2 (104 weeks of history, 12 ahead): mean squared error .27 nlinear, .5 to .6 dlinear;
a second.
"""

from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from models import layers, options

PAPER = "Zeng et al. 2022"
KINDS = {"nlinear": False, "dlinear": True}  # whether the window is taken apart
AVERAGED = 25  # steps of the moving average, as in the paper's code

OPTIONS = {"series": 1, "horizon": 96, "context": 336, "quantiles": 1}
REFERENCE = {
    name: {
        "options": OPTIONS | {"kind": name.lower()},
        "input": (336, 1),
        "trainable": count,
        "fixed": 0,
        "source": source,
    }
    for name, count, source in (
        ("NLinear", 32_352, "336 * 96 + 96"),
        ("DLinear", 64_704, "2 (336 * 96 + 96)"),
    )
}


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
        kind: Literal["nlinear", "dlinear"] = "nlinear",
    ) -> None:
        super().__init__()
        self.series, self.horizon, self.context = series, horizon, context
        apart = options.choose("ltsflinear", "kind", kind, KINDS)
        self.trend = nn.Linear(context, horizon * quantiles) if apart else None
        self.head = nn.Linear(context, horizon * quantiles)

    @property
    def receptive_field(self) -> int:
        return self.context

    def forward(self, x: Tensor) -> Tensor:
        layers.require_steps("ltsflinear", x, self.context)
        rows = x[:, -self.context :].transpose(1, 2).reshape(-1, self.context)  # (N D, T)
        if self.trend is None:
            last = rows[:, -1:]
            y = self.head(rows - last) + last
        else:
            side = AVERAGED // 2
            padded = F.pad(rows.unsqueeze(1), (side, side), mode="replicate")
            trend = F.avg_pool1d(padded, AVERAGED, stride=1).squeeze(1)
            y = self.trend(trend) + self.head(rows - trend)
        return y.view(-1, x.shape[2], y.shape[1]).transpose(1, 2)


Model = LTSFLinear
