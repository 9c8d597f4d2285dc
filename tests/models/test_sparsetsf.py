"""models/sparsetsf.py: the paper's sliding map by numpy, and lengths that are no multiple."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import models


def test_it_is_the_papers_sliding_map() -> None:
    """Lin et al. 2024, section 3.2, by numpy: the window less its mean, smoothed, is cut into rows
    of one season; row k ahead is a weighed sum of these rows.
    """
    torch.manual_seed(0)
    net = models.build("sparsetsf", series=2, horizon=8, context=12, quantiles=1, season=4)
    x = torch.randn(3, 12, 2)
    kernel, weight = (
        net.smooth.weight.detach()[0, 0].numpy(),
        net.ahead.weight.detach()[:, 0].numpy(),
    )
    got = net(x).detach().numpy()
    for n in range(3):
        for column in range(2):
            window = x[n, :, column].numpy()
            less = window - window.mean()
            smooth = less + np.convolve(np.pad(less, 2), kernel[::-1], mode="valid")
            ahead = weight @ smooth.reshape(3, 4)  # (2 seasons, 4 phases)
            np.testing.assert_allclose(got[n, :, column], ahead.ravel() + window.mean(), atol=1e-6)


def test_other_lengths_take_whole_seasons() -> None:
    """11 rows hold two seasons of 4, which 6 steps ahead need two of; levels stand side by side."""
    torch.manual_seed(0)
    given = {"series": 1, "context": 11, "quantiles": 3, "season": 4}
    net = models.build("sparsetsf", horizon=6, **given)
    whole = models.build("sparsetsf", horizon=8, **given)
    whole.load_state_dict(net.state_dict())
    x = torch.randn(2, 11, 1)
    torch.testing.assert_close(net(x), whole(x)[:, :18])
    x2 = x.clone()
    x2[:, :3] = 9.0
    torch.testing.assert_close(net(x2), net(x))
    moved = net(x + 5) - net(x)
    torch.testing.assert_close(moved, torch.full_like(moved, 5.0))


def test_a_window_below_a_season_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"at least a season, 24 rows, got 23; raise context"):
        models.build("sparsetsf", series=1, horizon=4, context=23, quantiles=1, season=24)
