"""cnn2: four convolutions with batch normalisation, the deeper network of the notes.

The lecture notes on convolutional networks, "exercises/07_CNN_MNIST c)", which prints its Keras
code. The course notebook 08 trains it by Adam, batch 128, 30 epochs.

    stage      layers                                      output at 28 x 28
    features   2 x (conv 3x3 same, batch norm, ReLU)       8 x 28 x 28
               max pool 2x2                                8 x 14 x 14
               2 x (conv 3x3 same, batch norm, ReLU)       16 x 14 x 14
               max pool 2x2, flatten                       784
               dense, batch norm, dropout, ReLU            40
    head       dense                                       10

Differs from the notes: the softmax is outside (training wants logits, the exported graph adds it),
and weights start from torch's uniform distribution, not Keras's Glorot one. As in the notes,
dropout (.3 there) comes before the ReLU.

Expected on scikit-learn's digits, 8 x 8 (1,137 training images, batch 32, test accuracy of 3 seeds,
one core): .983-.986 (Adam 2e-3, 30 epochs, 3 s).
"""

from torch import Tensor, nn

from models import layers, options
from models.options import Fraction

PAPER = "lecture notes"
DENSE = 40

REFERENCE = {
    "cnn2": {
        "options": {"in_channels": 1, "size": (28, 28), "classes": 10},
        "input": (1, 28, 28),
        "trainable": 36_138,
        "fixed": 176,
        "source": "Keras summary of the lecture notes' code",
    },
}


def conv_block(in_channels: int, channels: int) -> list[nn.Module]:
    """Return layers from (N, in_channels, H, W) to (N, channels, H, W)."""
    return [
        nn.Conv2d(in_channels, channels, kernel_size=3, padding=1),
        nn.BatchNorm2d(channels, **layers.KERAS_BATCH_NORM),
        nn.ReLU(),
    ]


def check_options(size: tuple[int, int]) -> None:
    """Raise ValueError for images that are too small for two pools."""
    options.require_size("cnn2", size, 4)


class Cnn2(nn.Module):
    """Return logits (N, K) for standardised images (N, C, H, W)."""

    def __init__(
        self, *, in_channels: int, size: tuple[int, int], classes: int, dropout: Fraction = 0.3
    ) -> None:
        """`dropout`: probability of dropping a unit."""
        super().__init__()
        height, width = size
        check_options(size)
        self.features = nn.Sequential(
            *conv_block(in_channels, 8),
            *conv_block(8, 8),
            nn.MaxPool2d(2),  # (N, 8, H / 2, W / 2)
            *conv_block(8, 16),
            *conv_block(16, 16),
            nn.MaxPool2d(2),  # (N, 16, H / 4, W / 4)
            nn.Flatten(),
            nn.Linear(16 * (height // 4) * (width // 4), DENSE),
            nn.BatchNorm1d(DENSE, **layers.KERAS_BATCH_NORM),
            nn.Dropout(dropout),
            nn.ReLU(),
        )
        self.head = nn.Linear(DENSE, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(x))


Model = Cnn2
