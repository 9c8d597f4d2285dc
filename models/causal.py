"""Causal 1D convolutions, plain or dilated: forecasts a series from its own past.

Notes S1, "1D CNNs for sequence data", and the notebook they point to (tensorchiefs/dl_book, nb_ch02_04); dilation
after van den Oord et al. 2016, WaveNet, arXiv:1609.03499, section 2.1. Four layers of 32 filters 5 wide; dilations
[1, 1, 1, 1] are the plain stack, [1, 2, 4, 8] the dilated one. The notebook trains by Adam, MSE, batch 128.

    stage    layers                                     output for a series (T, 1), S = 10
    stages   4 x (pad left, conv 5, activation)         32 x T
    head     conv 1 (the notebook's Dense(1))           1 x T
             keep the last S steps                      10 x 1

The output of step t forecasts step t + S, so every forecast looks exactly S steps ahead: the first of them uses nothing
of the newest S - 1 samples. The notebook's network is linear (`activation: none`).

Differs from the notebook: any number of series D at once, and weights start from torch's uniform distribution, not
Keras's Glorot one.

Expected on waves with noise .1 (800 curves, Adam 1e-3, 100 epochs, one core: 20 s), mean squared error over 10 steps of
noise-free curves: .008 plain, 3e-4 dilated; over 100 steps by recursion: above 1 plain, 3e-3 dilated (FEATURES.md F08).
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from models import layers
from models.layers import CausalConv1d

PAPER = "notes S1, after WaveNet 2016"
ACTIVATIONS = {"none": nn.Identity, "relu": nn.ReLU}

NOTEBOOK = {"series": 1, "horizon": 10, "channels": 32, "kernel_size": 5, "activation": "none"}
COUNTS = {
    "input": (128, 1),
    "trainable": 15_681,  # 32 * 5 + 32, 3 * (32 * 32 * 5 + 32), 32 + 1
    "fixed": 0,
}
REFERENCE = {
    "causal plain": COUNTS
    | {"options": NOTEBOOK | {"dilations": [1, 1, 1, 1]}, "source": "FEATURES.md A24"},
    "causal dilated": COUNTS
    | {"options": NOTEBOOK | {"dilations": [1, 2, 4, 8]}, "source": "FEATURES.md A25"},
}


class Causal(nn.Module):
    """Return forecasts (N, S, D) for standardised series (N, T, D)."""

    def __init__(
        self,
        *,
        series: int,
        horizon: int,
        channels: int,
        kernel_size: int,
        dilations: Sequence[int],
        activation: str,
    ) -> None:
        """`dilations`: one layer each, the layer at the input first; `activation`: "none" or "relu"."""
        super().__init__()
        act = layers.choose("causal", "activation", activation, ACTIVATIONS)
        self.horizon, self.kernel_size, self.dilations = horizon, kernel_size, list(dilations)
        stages: list[nn.Module] = []
        for depth, dilation in enumerate(self.dilations):
            stages.append(
                CausalConv1d(
                    channels if depth else series, channels, kernel_size, dilation=dilation
                )
            )
            stages.append(act())
        self.stages = nn.Sequential(*stages)
        self.head = nn.Conv1d(channels if stages else series, series, kernel_size=1)

    @property
    def receptive_field(self) -> int:
        """Samples that one output sees: 1 + (kernel_size - 1) * sum(dilations); a longer window is dead input."""
        return 1 + (self.kernel_size - 1) * sum(self.dilations)

    @property
    def samples(self) -> int:
        """Samples after which a stream answers as a window does: what the oldest of the last S outputs sees, and on."""
        return self.receptive_field + self.horizon - 1

    @property
    def tails(self) -> list[tuple[int, int]]:
        """(C, L) of what `step` carries on: the newest inputs of each layer, the newest S - 1 outputs."""
        layers = [
            (layer.in_channels, layer.past)
            for layer in self.stages
            if isinstance(layer, CausalConv1d)
        ]
        return [*layers, (self.head.out_channels, self.horizon - 1)]

    def step(self, x: Tensor, tails: Sequence[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """Return forecasts (N, S, D) after one more sample (N, D), and the tails (N, C, L) for the next."""
        x, later = x.unsqueeze(2), []
        for layer in self.stages:
            if isinstance(layer, CausalConv1d):
                x, tail = layer.step(x, tails[len(later)])
                later.append(tail)
            else:
                x = layer(x)
        steps = torch.cat([tails[-1], self.head(x)], 2)  # (N, D, S)
        return steps.transpose(1, 2), [*later, steps[:, :, 1:]]

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[1] < self.horizon:
            raise ValueError(
                f"causal: expected at least {self.horizon} steps, got {x.shape[1]}; give a longer window"
            )
        steps = self.head(self.stages(x.transpose(1, 2)))  # (N, D, T)
        return steps[:, :, -self.horizon :].transpose(1, 2)  # (N, S, D)


Model = Causal
