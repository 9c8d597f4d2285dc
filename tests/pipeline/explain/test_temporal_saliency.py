"""The influence of the history on a forecast, by hand."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from pipeline.explain import temporal_saliency


class Season(nn.Module):
    """Two steps ahead: each is 3 times the value 4 steps before it, plus half of the last value."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        forecast = torch.stack([3 * x[:, -4 + step] + 0.5 * x[:, -1] for step in range(2)], 1)
        return forecast, forecast


def test_the_influence_is_the_absolute_weight() -> None:
    """Signs do not cancel, over windows or series: |3| and |.5| for any history."""
    history = np.random.default_rng(0).normal(size=(5, 6, 2))
    expected = np.zeros((2, 6))
    expected[0, 2] = expected[1, 3] = 3
    expected[:, 5] = 0.5
    np.testing.assert_allclose(
        temporal_saliency.input_gradients(Season(), history, range(2)), expected
    )
