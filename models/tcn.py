"""TCN: residual dilated causal convolutions beside a linear path; forecasts all steps at once.

Residual blocks after Bai, Kolter, Koltun 2018, arXiv:1803.01271, section 3, with one dilated layer
and one that mixes channels, as in ModernTCN (Luo & Wang 2024); patches and series that share their
weights after Nie et al. 2023, PatchTST, arXiv:2211.14730, sections 3.1 and 3.2; the linear path is
NLinear's (Zeng et al. 2022, arXiv:2205.13504); normalisation of each window after Kim et al. 2022,
RevIN.

    stage     layers                                                  output for (336, 7), S = 96
    embed     normalise, pad left, conv `patch` wide every `stride`   7 series, each 32 x 42
    stages    blocks: x + conv 1 (GELU (pad left, conv k, d = 2^i))   32 x 42
    head      dense on the newest step's channels                     96 x 7
    ahead     dense, GELU, dense on the calendar of each step ahead   96 x 7
    linear    dense on each series' normalised window, if asked for   96 x 7
              sum of the three, normalisation undone                  96 x 7

With a linear path the head starts at zero: the net is linear first, and the stack learns what is
left (on ETTh1 a stack that starts at random is worse than the linear path alone).

The receptive field is 1 + (patch - 1) + stride (kernel_size - 1) (2^blocks - 1) samples. With
`blocks: 0` there are as many blocks as it takes to cover the context; a window that is longer than
the field of the blocks asked for is dead input to them, not to the linear path.

Its input (N, T, D) has the targets first, then past covariates. With a calendar it is (N, T + S, D
+ F), and the D columns are zero in the S rows ahead, which are not known.

The defaults are PatchTST's patches, 16 samples every 8, and its normalisation of each window.

Differs from Bai et al.: no weight normalisation; only the newest step is read out, so one run
forecasts all S steps.

Expected, three seeds: on co2, 104 weeks to 12 ahead, mean squared error .25 in 11 s (NLinear .27,
the causal stack .55); on sunspots, 33 years to 10 ahead, 1,020 to 1,080 in 2 to 10 s (the causal
stack 2,040).
"""

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from models import layers, options
from models.layers import CausalConv1d
from models.options import Count, Fraction, Positive

PAPER = "after Bai et al. 2018"
NORMALISE = ("instance", "last", "none")

WINDOW: dict[str, Any] = {"horizon": 96, "context": 336, "quantiles": 1, "calendar": 0}
BODY = "(16 * 32 {} + 32) + 5 blocks of (3 * 32^2 + 32 + 32^2 + 32)"
REFERENCE = {
    "TCN, each series by itself": {
        "options": WINDOW | {"series": 7, "targets": 7},
        "input": (336, 7),
        "trainable": 24_512,
        "fixed": 0,
        "source": BODY.format("") + " + (32 * 96 + 96)",
    },
    "TCN, three series together": {
        "options": WINDOW | {"series": 3, "targets": 3, "independent": False},
        "input": (336, 3),
        "trainable": 31_872,
        "fixed": 0,
        "source": BODY.format("* 3") + " + (32 * 288 + 288)",
    },
}


class Block(nn.Module):
    """Return (N, C, T): the input plus a dilated causal layer of it with its channels mixed."""

    def __init__(self, channels: int, kernel_size: int, dilation: int, dropout: float) -> None:
        super().__init__()
        self.conv = CausalConv1d(channels, channels, kernel_size, dilation=dilation)
        self.mix = nn.Sequential(nn.GELU(), nn.Dropout(dropout), nn.Conv1d(channels, channels, 1))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.mix(self.conv(x))

    def step(self, x: Tensor, tail: Tensor) -> tuple[Tensor, Tensor]:
        """Return the block's output and tail, as `CausalConv1d.step` does."""
        y, tail = self.conv.step(x, tail)
        return x + self.mix(y), tail


def check_options(kernel_size: int, patch: int, stride: int) -> None:
    """Raise ValueError where patches leave gaps, or where a block sees one step alone."""
    options.require_patch("tcn", kernel_size, patch, stride)


class TCN(nn.Module):
    """Return forecasts (N, S * Q, targets) for standardised series (N, T, D).

    The Q levels of a step stand side by side."""

    def __init__(
        self,
        *,
        series: int,
        targets: int,
        calendar: int,
        horizon: int,
        context: int,
        quantiles: int,
        channels: Positive = 32,
        kernel_size: Positive = 3,
        blocks: Count = 0,
        patch: Positive = 16,
        stride: Positive = 8,
        dropout: Fraction = 0.2,
        independent: bool = True,
        normalise: Literal["instance", "last", "none"] = "instance",
        linear: bool = False,
    ) -> None:
        """`calendar`: its features F; `independent`: each target by itself, all by the same
        weights.
        """
        super().__init__()
        options.choose("tcn", "normalise", normalise, dict.fromkeys(NORMALISE))
        check_options(kernel_size, patch, stride)
        self.series, self.targets, self.calendar = series, targets, calendar
        self.horizon, self.context, self.steps = horizon, context, horizon * quantiles
        self.independent, self.normalise = independent, normalise
        own = 1 if independent else targets
        self.embed = CausalConv1d(own + series - targets + calendar, channels, patch, stride=stride)
        dilations = [1]
        self.convolution_field = field(patch, stride, kernel_size, dilations)
        while len(dilations) < blocks or (not blocks and self.convolution_field < context):
            dilations.append(2 * dilations[-1])
            self.convolution_field = field(patch, stride, kernel_size, dilations)
        self.stages = nn.Sequential(*(Block(channels, kernel_size, d, dropout) for d in dilations))
        newest = nn.Linear(channels, own * self.steps)
        self.head = nn.Sequential(nn.Dropout(dropout), newest)
        self.ahead = None
        if calendar:
            self.ahead = nn.Sequential(
                nn.Linear(calendar, channels), nn.GELU(), nn.Linear(channels, own * quantiles)
            )
        self.linear = None
        if linear:
            self.linear = nn.Linear(context, self.steps)
            nn.init.zeros_(newest.weight)
            nn.init.zeros_(newest.bias)

    @property
    def receptive_field(self) -> int:
        """Samples that a forecast sees: the blocks' field, or the context with a linear path."""
        field = self.convolution_field
        return field if self.linear is None else max(field, self.context)

    def forward(self, x: Tensor) -> Tensor:
        steps = self.context + (self.horizon if self.calendar else 0)
        layers.require_steps("tcn", x, steps)
        x, known = x[:, -steps:, : self.series], x[:, -steps:, self.series :]
        x = x[:, : self.context]  # (N, T, D)
        level, size = self.level_and_size(x)  # (N, 1, D) each
        x = (x - level) / size
        seen = torch.cat([x, known[:, : self.context]], 2).transpose(1, 2)  # (N, D + F, T)
        y = self.read_out(
            self.stages(self.embed(self.separate_targets(seen)))[:, :, -1]
        )  # (N, targets, S Q)
        if self.ahead is not None:
            y = y + self.calendar_effect(known[:, self.context :])
        if self.linear is not None:
            # One row a series, so that this is a plain product.
            rows = x[:, :, : self.targets].transpose(1, 2).reshape(-1, self.context)
            y = y + self.linear(rows).view(-1, self.targets, self.steps)
        return y.transpose(1, 2) * size[:, :, : self.targets] + level[:, :, : self.targets]

    def level_and_size(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the level to subtract from each window (N, T, D) and the size to divide by, (N, 1,
        D) each.
        """
        if self.normalise == "instance":  # Kim et al. 2022, eq. 1 and 2; eps as in their code
            return x.mean(1, keepdim=True), (x.var(1, keepdim=True, correction=0) + 1e-5).sqrt()
        level = x[:, -1:]
        level = level if self.normalise == "last" else torch.zeros_like(level)
        return level, torch.ones_like(level)

    def separate_targets(self, x: Tensor) -> Tensor:
        """Return (N, D + F, T) as it is; with `independent` each target beside the shared rows, (N
        targets, 1 + others, T).
        """
        if not self.independent or x.shape[1] == 1:
            return x
        own, shared = x[:, : self.targets].unsqueeze(2), x[:, None, self.targets :]
        return torch.cat([own, shared.expand(-1, self.targets, -1, -1)], 2).flatten(0, 1)

    def read_out(self, newest: Tensor) -> Tensor:
        """Return (N, targets, S Q) for the newest step's channels (N, C) or (N targets, C)."""
        return self.head(newest).view(-1, self.targets, self.steps)

    def calendar_effect(self, ahead: Tensor) -> Tensor:
        """Return what the calendar (N, S, F) adds to the targets, (N, 1 or targets, S Q)."""
        assert self.ahead is not None
        own = 1 if self.independent else self.targets
        by_step = self.ahead(ahead).unflatten(2, (own, -1))  # (N, S, own, Q)
        return by_step.transpose(1, 2).flatten(2)

    @property
    def samples(self) -> int:
        """Samples after which `step` returns what `forward` does."""
        return self.convolution_field

    @property
    def tails(self) -> list[tuple[int, int]]:
        """Shapes (C, L) of the state of `step`: the newest inputs of each layer.

        Raises ValueError with the option that rules a stream out.
        """
        reasons = {
            f"normalise: {self.normalise} looks at the whole window": self.normalise != "none",
            "its linear path looks at the whole window": self.linear is not None,
            f"its patches come every {self.embed.stride[0]} samples": self.embed.stride[0] > 1,
            "a stream has no calendar": self.calendar > 0,
            "independent: true holds a state for each series": self.independent and self.series > 1,
        }
        for reason, holds in reasons.items():
            if holds:
                raise ValueError(f"tcn: {reason}")
        convolutions = [layer for layer in self.modules() if isinstance(layer, CausalConv1d)]
        return [(layer.in_channels, layer.past) for layer in convolutions]

    def step(self, x: Tensor, tails: Sequence[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """Return forecasts (N, S Q, targets) after one more sample (N, D), and the tails (N, C, L)
        for the next.
        """
        x, later = x.unsqueeze(2), []
        for layer, tail in zip((self.embed, *self.stages), tails, strict=True):
            x, tail = layer.step(x, tail)
            later.append(tail)
        return self.read_out(x[:, :, -1]).transpose(1, 2), later


def field(patch: int, stride: int, kernel_size: int, dilations: Sequence[int]) -> int:
    """Return the samples that the newest output of the blocks sees."""
    return patch + stride * (kernel_size - 1) * sum(dilations)


Model = TCN
