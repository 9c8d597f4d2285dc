"""Starter: three convolutions with batch normalisation and pools, a network to start from.

Not published: `python -m pipeline.new net starter` wrote this file.

    stage      layers                                      output at 28 x 28
    features   conv 3x3 same, batch norm, ReLU, max pool   32 x 14 x 14
               conv 3x3 same, batch norm, ReLU, max pool   64 x 7 x 7
               conv 3x3 same, batch norm, ReLU, max pool   128 x 3 x 3
    head       mean over the map, dropout, dense           10
"""

from collections.abc import Sequence

from torch import Tensor, nn

from models import options
from models.options import Fraction, Positive

PAPER = "own"  # authors and year, for tables

# Networks whose parameter count is known: `python -m models` and the tests count again.
REFERENCE = {
    "Starter": {
        "options": {"in_channels": 1, "size": (28, 28), "classes": 10},
        "input": (1, 28, 28),
        "trainable": 94_186,
        "fixed": 448,  # two moving statistics for each channel of batch normalisation
        "source": "9 * (1 * 32 + 32 * 64 + 64 * 128) + 2 * (32 + 64 + 128) + 128 * 10 + 10",
    },
}


def conv_block(in_channels: int, channels: int) -> list[nn.Module]:
    """Return layers from (N, in_channels, H, W) to (N, channels, H / 2, W / 2)."""
    return [
        nn.Conv2d(in_channels, channels, kernel_size=3, padding=1, bias=False),
        nn.BatchNorm2d(channels),
        nn.ReLU(),
        nn.MaxPool2d(2),
    ]


def check_options(size: tuple[int, int], channels: Sequence[int]) -> None:
    """Raise ValueError for options that do not fit; stage params calls it before any training."""
    if not channels:
        needed = "expected one or more channels, got []"
        raise ValueError(f"starter: {needed}; write channels: [32]")
    options.require_size("starter", size, 2 ** len(channels))


class Starter(nn.Module):
    """Return logits (N, K) for standardised images (N, C, H, W)."""

    def __init__(
        self,
        *,
        in_channels: int,
        size: tuple[int, int],
        classes: int,
        channels: Sequence[Positive] = (32, 64, 128),
        dropout: Fraction = 0.2,
    ) -> None:
        """`channels`: of each convolution; `dropout`: probability of dropping a feature.

        The first three options come from the data; those with a default are keys of `net:`.
        """
        super().__init__()
        check_options(size, channels)
        blocks: list[nn.Module] = []
        for k, after in enumerate(channels):
            blocks += conv_block(channels[k - 1] if k else in_channels, after)
        self.features = nn.Sequential(*blocks)
        self.pool = nn.AdaptiveAvgPool2d(1)  # (N, channels[-1], 1, 1)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(channels[-1], classes)

    def forward(self, x: Tensor) -> Tensor:
        features = self.pool(self.features(x)).flatten(1)  # (N, channels[-1])
        return self.head(self.dropout(features))


Model = Starter
