"""models/closed_form.py: least squares by numpy, reduced rank by its SVD, and a case by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

import models
from models import closed_form
from models.ltsflinear import LTSFLinear

T, S = 10, 4


@pytest.fixture
def windows() -> tuple[Tensor, Tensor]:
    """Histories (N, T, 2) and targets (N, S, 2) of two random walks."""
    walks = torch.randn(200, 2, generator=torch.Generator().manual_seed(0)).cumsum(0)
    cut = walks.unfold(0, T + S, 1).transpose(1, 2)
    return cut[:, :T], cut[:, T:]


def linear(
    kind: str, look_back: int = T, rank: int = 0, quantiles: int = 1, bias: bool = True
) -> LTSFLinear:
    given = {"series": 2, "horizon": S, "context": look_back, "quantiles": quantiles}
    net = models.build("ltsflinear", **given, kind=kind, rank=rank, bias=bias)
    assert isinstance(net, LTSFLinear)
    return net


def rows_of(net: LTSFLinear, x: Tensor, y: Tensor) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the newest rows and the targets, each less the level, and the level, as float64."""
    rows = x[:, -net.context :].double().transpose(1, 2).flatten(0, 1)
    level = net.level(rows)
    targets = y.double().transpose(1, 2).flatten(0, 1)
    return (rows - level).numpy(), (targets - level).numpy(), level.numpy()


@pytest.mark.parametrize("kind", ["linear", "nlinear", "rlinear"])
@pytest.mark.parametrize("look_back", [T, 6])
def test_the_weights_are_numpys_least_squares(
    windows: tuple[Tensor, Tensor], kind: str, look_back: int
) -> None:
    """numpy.linalg.lstsq with a column of ones; the sums are taken in two pieces."""
    x, y = windows
    net = linear(kind, look_back)
    sums = closed_form.window_sums(x[:70], y[:70]) + closed_form.window_sums(x[70:], y[70:])
    net.solve(sums, 1e-10, ())
    rows, targets, level = rows_of(net, x, y)
    ones = np.ones((len(rows), 1))
    fitted = np.hstack([rows, ones]) @ np.linalg.lstsq(np.hstack([rows, ones]), targets)[0] + level
    got = net(x).detach().transpose(1, 2).flatten(0, 1).numpy()
    np.testing.assert_allclose(got, fitted, atol=1e-4)


@pytest.mark.parametrize("rank", [0, 2])
def test_without_a_bias_the_fit_goes_through_the_level(
    windows: tuple[Tensor, Tensor], rank: int
) -> None:
    """numpy.linalg.lstsq without a column of ones, and the rank of the fitted values by its SVD.
    With levels, these stand about the same forecast.
    """
    x, y = windows
    found = []
    for quantiles in (1, 3):
        net = linear("rlinear", rank=rank, quantiles=quantiles, bias=False)
        levels = (0.1, 0.5, 0.9) if quantiles > 1 else ()
        net.solve(closed_form.window_sums(x, y), 1e-10, levels)
        found.append(net(x).detach().unflatten(1, (S, quantiles))[:, :, quantiles // 2])
    rows, targets, level = rows_of(linear("rlinear"), x, y)
    fitted = rows @ np.linalg.lstsq(rows, targets)[0]
    if rank:
        u, s, v = np.linalg.svd(fitted, full_matrices=False)
        fitted = (u[:, :rank] * s[:rank]) @ v[:rank]
    got = found[0].transpose(1, 2).flatten(0, 1).numpy()
    np.testing.assert_allclose(got, fitted + level, atol=1e-4)
    torch.testing.assert_close(found[1], found[0], atol=1e-4, rtol=1e-4)
    assert not any("bias" in name for name, _ in linear("rlinear", bias=False).named_parameters())


def test_a_piece_in_float64_is_of_one_column() -> None:
    """Each number that is made, however many columns the windows have."""

    class Largest(TorchDispatchMode):
        numbers = 0

        def __torch_dispatch__(self, func: Any, types: Any, args: Any, kwargs: Any = None) -> Any:
            out = func(*args, **(kwargs or {}))
            if isinstance(out, Tensor) and out.dtype == torch.float64:
                self.numbers = max(self.numbers, out.numel())
            return out

    x, y = torch.randn(50, T, 9), torch.randn(50, S, 9)
    with Largest() as largest:
        closed_form.window_sums(x, y)
    assert largest.numbers == 50 * (T + S + 1)


def test_a_straight_line_goes_on_by_hand() -> None:
    """Of 0 1 2 3 | 4 5 and 10 13 16 19 | 22 25, less their last value, with two rows of look-back:
    the step d between the two rows is all there is, and the targets are d and 2 d beyond the last.
    """
    x = torch.tensor([[0.0, 1, 2, 3], [10, 13, 16, 19]]).unsqueeze(2)
    y = torch.tensor([[4.0, 5], [22, 25]]).unsqueeze(2)
    head = closed_form.linear_head(2, 2, 0)
    sums = closed_form.window_sums(x, y)
    closed_form.solve_head(head, sums, torch.tensor([0.0, 1.0]), 1e-9, ())
    assert isinstance(head, nn.Linear)
    torch.testing.assert_close(head.weight, torch.tensor([[-1.0, 0], [-2, 0]]))
    torch.testing.assert_close(head.bias, torch.zeros(2), atol=1e-6, rtol=0)


def test_a_lower_rank_is_that_of_the_fitted_values(windows: tuple[Tensor, Tensor]) -> None:
    """numpy's SVD of the fitted values less their mean, of rank 2 (Izenman 1975)."""
    x, y = windows
    full, low = linear("nlinear"), linear("nlinear", rank=2)
    for net in (full, low):
        net.solve(closed_form.window_sums(x, y), 1e-9, ())
    rows, _, _ = rows_of(full, x, y)
    centred = rows - rows.mean(0)
    fitted = centred @ full.head.weight.detach().double().numpy().T
    u, s, v = np.linalg.svd(fitted, full_matrices=False)
    first, last = low.head
    got = centred @ (last.weight @ first.weight).detach().double().numpy().T
    np.testing.assert_allclose(got, (u[:, :2] * s[:2]) @ v[:2], atol=1e-4)
    assert first.weight.shape == (2, T) and last.weight.shape == (S, 2)


def test_levels_are_those_of_normal_residuals(windows: tuple[Tensor, Tensor]) -> None:
    """The share of the training targets below each level, of Gaussian steps."""
    x, y = windows
    net = linear("nlinear", quantiles=3)
    net.solve(closed_form.window_sums(x, y), 1e-3, (0.1, 0.5, 0.8))
    below = y.unsqueeze(2) <= net(x).detach().unflatten(1, (S, 3))
    for k, level in enumerate((0.1, 0.5, 0.8)):
        assert float(below[:, :, k].float().mean()) == pytest.approx(level, abs=0.03)


def test_windows_that_do_not_determine_the_map_are_an_error() -> None:
    """Six windows for ten rows; with a ridge there is an answer."""
    cut = torch.arange(19.0).square().sin().unfold(0, T + S, 1).unsqueeze(2)
    sums = closed_form.window_sums(cut[:, :T], cut[:, T:])
    net = linear("linear")
    with pytest.raises(ValueError, match=r"10 rows do not determine the map .*raise train.ridge"):
        net.solve(sums, 0.0, ())
    net.solve(sums, 1e-3, ())
    assert net.head.weight.isfinite().all()


@pytest.mark.parametrize("value", [0.0, 1e6])
def test_a_constant_series_goes_on(value: float) -> None:
    """Nothing is divided by its spread of 0."""
    x, y = torch.full((30, T, 2), value), torch.full((30, S, 2), value)
    net = linear("rlinear", rank=2)
    net.solve(closed_form.window_sums(x, y), 1e-3, ())
    torch.testing.assert_close(net(x), y)


def test_dlinear_has_none() -> None:
    with pytest.raises(ValueError, match=r"dlinear has no closed form here; set kind: rlinear"):
        linear("dlinear").solve(torch.eye(T + S + 1, dtype=torch.float64), 1e-3, ())
