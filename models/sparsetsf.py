"""SparseTSF: a phase ahead from the same phase of earlier seasons, with under 1,000 weights.

Lin, Lin, Wu, Chen, Yang 2024, "SparseTSF: modeling long-term time series forecasting with 1k
parameters", arXiv:2405.00946, section 3.2, with a linear map over the seasons. All series share the
weights.

    stage    layers                                         output for (720, 7), S = 96, season 24
    smooth   less its mean; x + conv over about a season    7 series, 720
    ahead    conv, dilation a season, without bias          7 x 4 seasons of 24
             the seasons one after the other, plus the mean 96 x 7

Each filter spans the window and answers once for each phase of the season; there is one for each
season ahead, or with quantiles one for each level of it, and then each has a bias.

Differs: a window or a horizon that is no multiple of the season is cut to its newest whole seasons,
or from the whole seasons that cover it; the season is the data set's.
"""

import math

from torch import Tensor, nn

from models import layers

PAPER = "Lin et al. 2024"

REFERENCE = {
    f"SparseTSF, {horizon} ahead": {
        "options": {
            "series": 7,
            "horizon": horizon,
            "context": 720,
            "quantiles": 1,
            "season": 24,
        },
        "input": (720, 7),
        "trainable": count,
        "fixed": 0,
        "source": f"25 + 30 * {horizon} / 24",
    }
    for horizon, count in ((96, 145), (720, 925))
}


def check_options(context: int, season: int) -> None:
    """Raise ValueError where the window has no whole season."""
    if context < season:
        raise ValueError(
            f"sparsetsf: expected a window of at least a season, {season} rows, got {context};"
            " raise context"
        )


class SparseTSF(nn.Module):
    """Return forecasts (N, S * Q, D) for standardised series (N, T, D).

    The Q levels of a step stand side by side."""

    def __init__(
        self, *, series: int, horizon: int, context: int, quantiles: int, season: int
    ) -> None:
        super().__init__()
        check_options(context, season)
        self.series, self.horizon, self.season = series, horizon, season
        self.context = context - context % season
        self.quantiles = quantiles
        width, seen = 1 + 2 * (season // 2), self.context // season
        self.smooth = nn.Conv1d(1, 1, width, padding=season // 2, bias=False)
        filters = math.ceil(horizon / season) * quantiles
        self.ahead = nn.Conv1d(1, filters, seen, dilation=season, bias=quantiles > 1)

    @property
    def receptive_field(self) -> int:
        return self.context

    def forward(self, x: Tensor) -> Tensor:
        layers.require_steps("sparsetsf", x, self.context)
        rows = x[:, -self.context :].transpose(1, 2).reshape(-1, 1, self.context)  # (N D, 1, T)
        mean = rows.mean(2)
        rows = rows - mean.unsqueeze(2)
        rows = rows + self.smooth(rows)
        y = self.ahead(rows).unflatten(1, (-1, self.quantiles))  # (N D, seasons, Q, phases)
        y = y.transpose(2, 3).flatten(1, 2)[:, : self.horizon].flatten(1) + mean
        return y.view(-1, x.shape[2], y.shape[1]).transpose(1, 2)


Model = SparseTSF
