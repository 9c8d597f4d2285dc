"""Causal 1D convolutions, plain or dilated: forecasts a series from its own past.

The lecture notes on convolutional networks, "1D CNNs for sequence data", and the notebook they
point to (tensorchiefs/dl_book, nb_ch02_04); dilation after van den Oord et al. 2016, WaveNet,
arXiv:1609.03499, section 2.1. Four layers of 32 filters 5 wide; dilations [1, 1, 1, 1] are the
plain stack, [1, 2, 4, 8] the dilated one. The notebook trains by Adam, MSE, batch 128.

    stage    layers                                     output for a series (T, 1), S = 10
    stages   4 x (pad left, conv 5, activation)         32 x T
    head     conv 1 (the notebook's Dense(1))           1 x T
             keep the last S steps                      10 x 1

The output of step t forecasts step t + S, so every forecast looks exactly S steps ahead: the first
of them uses nothing of the newest S - 1 samples. The notebook's network is linear (`activation:
none`). The defaults are the notebook's dilated stack.

Differs from the notebook: any number of series D at once, and weights start from torch's uniform
distribution, not Keras's Glorot one.

Expected on waves with noise .1 (800 curves, Adam 1e-3, 100 epochs, one core: 15 s), mean squared
error over 10 steps of noise-free curves: .008 plain, 3e-4 dilated; over 100 steps by recursion:
above 1 plain, 3e-3 dilated.
"""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from models import layers, options
from models.layers import CausalConv1d
from models.options import Positive

PAPER = "lecture notes, after WaveNet 2016"
ACTIVATIONS = {"none": nn.Identity, "relu": nn.ReLU}

COUNT = "(32 * 5 + 32) + 3 * (32 * 32 * 5 + 32) + (32 + 1)"
NOTEBOOK = {"series": 1, "horizon": 10}
COUNTS = {
    "input": (128, 1),
    "trainable": 15_681,
    "fixed": 0,
}
REFERENCE = {
    "causal plain": COUNTS | {"options": NOTEBOOK | {"dilations": [1, 1, 1, 1]}, "source": COUNT},
    "causal dilated": COUNTS | {"options": NOTEBOOK | {"dilations": [1, 2, 4, 8]}, "source": COUNT},
}


class Causal(nn.Module):
    """Return forecasts (N, S, D) for standardised series (N, T, D)."""

    def __init__(
        self,
        *,
        series: int,
        horizon: int,
        channels: Positive = 32,
        kernel_size: Positive = 5,
        dilations: Sequence[Positive] = (1, 2, 4, 8),
        activation: Literal["none", "relu"] = "none",
    ) -> None:
        """`dilations`: one layer each, the layer at the input first; `activation`: "none" or
        "relu".
        """
        super().__init__()
        act = options.choose("causal", "activation", activation, ACTIVATIONS)
        self.horizon, self.kernel_size, self.dilations = horizon, kernel_size, list(dilations)
        stages: list[nn.Module] = []
        for depth, dilation in enumerate(self.dilations):
            before = channels if depth else series
            stages += [CausalConv1d(before, channels, kernel_size, dilation=dilation), act()]
        self.stages = nn.Sequential(*stages)
        self.head = nn.Conv1d(channels if stages else series, series, kernel_size=1)

    @property
    def receptive_field(self) -> int:
        """Samples that one output sees: 1 + (kernel_size - 1) * sum(dilations)."""
        return 1 + (self.kernel_size - 1) * sum(self.dilations)

    @property
    def convolution_field(self) -> int:
        """Samples that the convolutions see: all that an output sees."""
        return self.receptive_field

    @property
    def samples(self) -> int:
        """Samples after which `step` returns what `forward` does: what the last S outputs see."""
        return self.receptive_field + self.horizon - 1

    @property
    def tails(self) -> list[tuple[int, int]]:
        """Shapes (C, L) of the state of `step`: the newest inputs of each layer, S - 1 outputs."""
        convolutions = [layer for layer in self.stages if isinstance(layer, CausalConv1d)]
        sizes = [(layer.in_channels, layer.past) for layer in convolutions]
        return [*sizes, (self.head.out_channels, self.horizon - 1)]

    def step(self, x: Tensor, tails: Sequence[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """Return forecasts (N, S, D) after one more sample (N, D), and the next state."""
        x = x.unsqueeze(2)
        later: list[Tensor] = []
        for layer in self.stages:
            if isinstance(layer, CausalConv1d):
                x, tail = layer.step(x, tails[len(later)])
                later.append(tail)
            else:
                x = layer(x)
        steps = torch.cat([tails[-1], self.head(x)], 2)  # (N, D, S)
        return steps.transpose(1, 2), [*later, steps[:, :, 1:]]

    def seen(self, x: Tensor) -> Tensor:
        """Return the last S outputs of the stages (N, channels, S) for series (N, D, T), computed
        from what these see alone: of 128 steps a ninth of the multiply-adds of the plain stack, and
        .3 of those of the dilated one.

        It is for T >= `samples`, where they see no padding.
        """
        x = x[:, :, -self.samples :]
        for layer in self.stages:
            x = layer.unpadded(x) if isinstance(layer, CausalConv1d) else layer(x)
        return x

    def forward(self, x: Tensor) -> Tensor:
        layers.require_steps("causal", x, self.horizon)
        x = x.transpose(1, 2)
        alone = self.training and x.shape[2] >= self.samples  # a served file takes any length
        steps = self.head(self.seen(x) if alone else self.stages(x))  # (N, D, S or T)
        return steps[:, :, -self.horizon :].transpose(1, 2)  # (N, S, D)


Model = Causal
