"""Linear forecasters in closed form: least squares from sums over windows, which pieces add up to.

Toner & Darlow 2024, "An analysis of linear time series forecasting models", arXiv:2403.14587: maps
of a window less its last value, or less its mean, are linear regressions with an exact solution. Of
lower rank: reduced-rank regression, Izenman 1975, "Reduced-rank regression for the multivariate
linear model", Journal of Multivariate Analysis 5, with equal weights of all steps ahead.

Memory is that of one column of a piece of windows and of (T + S + 1)^2 sums, in float64, however
many windows and columns there are.
"""

from collections.abc import Sequence
from statistics import NormalDist
from typing import Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

WORST = 1e12  # condition number up to which float64 leaves four digits
ROUNDING = 1e-12  # of a level's square: windows that vary by less are constant


@runtime_checkable
class Solvable(Protocol):
    """A forecaster whose linear map has a closed form."""

    def solve(self, sums: Tensor, ridge: float, levels: Sequence[float]) -> list[nn.Parameter]:
        """Set the map's weights and return them; sums: `window_sums` of standardised windows.

        ridge, levels: as `solve_head` has them.
        """


def linear_head(context: int, steps: int, rank: int, bias: bool = True) -> nn.Module:
    """Return a dense layer from T rows to `steps` numbers; of a rank > 0, of r filters as wide as
    the window and a dense layer on what they answer.
    """
    if not rank:
        return nn.Linear(context, steps, bias=bias)
    return nn.Sequential(nn.Linear(context, rank, bias=False), nn.Linear(rank, steps, bias=bias))


def window_sums(x: Tensor, y: Tensor) -> Tensor:
    """Return the sums of products of each two numbers of a window, float64 (T + S + 1, T + S + 1).

    A window is a column of the targets y (N, S, D) behind its history, one of the first columns of
    x (N, T, D or more), and a 1. x has no rows of the steps ahead. Sums over two sets of windows
    add up.
    """
    sums = y.new_zeros((), dtype=torch.float64)
    for history, ahead in zip(x[:, :, : y.shape[2]].unbind(2), y.unbind(2), strict=True):
        rows = F.pad(torch.cat([history, ahead], 1).double(), (0, 1), value=1.0)  # (N, T + S + 1)
        sums = sums + rows.T @ rows
    return sums


@torch.no_grad()
def solve_head(
    head: nn.Module,
    sums: Tensor,
    taken: Tensor,
    ridge: float,
    levels: Sequence[float],
    bias: bool = True,
) -> list[nn.Parameter]:
    """Set a `linear_head` to the regression of targets on the newest T rows, each less the level.

    sums: `window_sums`. taken (T,): the weights of the level that is taken away: 1 for the last
    row, 1 / T for the mean, or 0. ridge: what is added to the rows' variances, a share of their
    mean; the bias has no penalty. levels: of the quantiles that stand side by side, none for a
    forecast alone; each is the mean and its share of the residuals' deviation, as if normal. bias:
    of the mean; without, the regression goes through the level, and second moments are in place of
    variances.

    Raises ValueError where the windows do not determine the map.
    """
    context, quantiles = len(taken), max(1, len(levels))
    first, last = head if isinstance(head, nn.Sequential) else (None, head)
    assert isinstance(last, nn.Linear)
    horizon = last.out_features // quantiles
    own = sums[-(context + horizon + 1) :, -(context + horizon + 1) :]
    less = torch.eye(len(own), dtype=own.dtype, device=own.device)
    less[:context, :-1] -= taken.to(less).unsqueeze(1)
    square = own.diagonal()[:context].mean() / own[-1, -1]
    own = less.T @ own @ less / own[-1, -1]
    mean = own[-1, :-1] if bias else torch.zeros_like(own[-1, :-1])
    spread = own[:-1, :-1] - torch.outer(mean, mean)  # covariances of rows and steps
    xx, xy, yy = spread[:context, :context], spread[:context, context:], spread[context:, context:]
    variance = xx.diagonal().mean()
    if variance > ROUNDING * square:
        values, vectors = torch.linalg.eigh(xx)
        values = values.clamp(min=0) + ridge * variance
        if (condition := float(values[-1] / values[0])) > WORST:
            what = f"{context} rows do not determine the map (condition number {condition:.0e})"
            raise ValueError(f"closed form: {what}; raise train.ridge, or shorten the look-back")
        weight = vectors @ ((vectors.T @ xy) / values.unsqueeze(1))  # (T, S)
    else:
        weight = torch.zeros_like(xy)  # constant windows: the level is forecast
    outer = torch.eye(horizon, dtype=weight.dtype, device=weight.device)
    if isinstance(first, nn.Linear):
        # Axes of the fitted values' covariance, with the ridge's share; eigenvalues ascend.
        outer = torch.linalg.eigh(weight.T @ xy).eigenvectors[:, -first.out_features :]
        first.weight.copy_((weight @ outer).T)
    weight = weight @ outer @ outer.T
    error = yy - 2 * weight.T @ xy + weight.T @ xx @ weight
    places = [NormalDist().inv_cdf(q) for q in levels] if quantiles > 1 else [0.0]
    away = error.diagonal().clamp(min=0).sqrt().unsqueeze(1) * torch.tensor(places).to(weight)
    constant = (mean[context:] - mean[:context] @ weight).unsqueeze(1) + away  # (S, Q)
    rows = weight.T if first is None else outer
    last.weight.copy_(rows.repeat_interleave(quantiles, 0))
    if last.bias is not None:
        last.bias.copy_(constant.flatten())
    return [*head.parameters()]
