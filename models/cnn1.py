"""cnn1: one convolution and one dense layer, the first convolutional network of the notes.

The lecture notes on convolutional networks, "exercises/07_CNN_MNIST b)", which prints its layers.
The course notebook 07 trains it by Adam, batch 128, 30 epochs.

    stage      layers                       output at 28 x 28
    features   conv 3x3 same, ReLU          32 x 28 x 28
               flatten                      25088
    head       dense                        10

Differs from the notes: the softmax is outside (training wants logits, the exported graph adds it);
flattening goes channel by channel, in Keras pixel by pixel (it matters only to weights carried
over); weights start from torch's uniform distribution, not Keras's Glorot one.

Expected on scikit-learn's digits, 8 x 8 (1,137 training images, batch 32, test accuracy of 3 seeds,
one core): .978-.981 (Adam 1e-3, 20 epochs, 1 s).
"""

from torch import Tensor, nn

PAPER = "lecture notes"
CHANNELS = 32

REFERENCE = {
    "cnn1": {
        "options": {"in_channels": 1, "size": (28, 28), "classes": 10},
        "input": (1, 28, 28),
        "trainable": 251_210,
        "fixed": 0,
        "source": "(9 * 32 + 32) + (25,088 * 10 + 10), as the lecture notes print",
    },
}


class Cnn1(nn.Module):
    """Return logits (N, K) for standardised images (N, C, H, W)."""

    def __init__(self, *, in_channels: int, size: tuple[int, int], classes: int) -> None:
        super().__init__()
        height, width = size
        self.features = nn.Sequential(
            nn.Conv2d(in_channels, CHANNELS, kernel_size=3, padding=1),
            nn.ReLU(),
            nn.Flatten(),  # (N, 32 * H * W)
        )
        self.head = nn.Linear(CHANNELS * height * width, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(x))


Model = Cnn1
