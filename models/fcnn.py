"""fcNN: a fully connected network for small images, with any number of hidden layers.

The lecture notes on convolutional networks, "exercises/07_CNN_MNIST a)", which prints the layers of
`fcn_MNIST_keras`; without hidden layers it is multinomial logistic regression. The course notebook
06 trains it by Adadelta, batch 128, 50 epochs.

    stage      layers                              output at 28 x 28, hidden [500, 50]
    features   flatten                             784
               dense, batch norm, dropout, ReLU    500
               dense, batch norm, dropout, ReLU    50
    head       dense                               10

The defaults are the notes' network, two hidden layers and dropout .3 (the probability of dropping).

Differs from the notes: the softmax is outside (training wants logits, the exported graph adds it),
and weights start from torch's uniform distribution, not Keras's Glorot one. As in the notes,
dropout comes before the ReLU.

Expected on scikit-learn's digits, 8 x 8 (1,137 training images, batch 32, test accuracy of 3 seeds,
one core): .969-.978 without hidden layers (Adam 1e-2, 40 epochs, .3 s), .972-.981 with [500, 50]
and dropout .3 (Adam 1e-3, 20 epochs, 1 s).
"""

from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn

from models.layers import KERAS_BATCH_NORM
from models.options import Fraction, Positive

PAPER = "lecture notes"

MNIST = {"in_channels": 1, "size": (28, 28), "classes": 10}
REFERENCE = {
    "fcNN 784-10": {
        "options": MNIST | {"hidden": []},
        "input": (1, 28, 28),
        "trainable": 7_850,
        "fixed": 0,
        "source": "784 * 10 + 10",
    },
    "fcNN 784-500-50-10": {
        "options": MNIST,
        "input": (1, 28, 28),
        "trainable": 419_160,
        "fixed": 1_100,
        "source": "the lecture notes' table of layers",
    },
}


class FcNN(nn.Module):
    """Return logits (N, K) for standardised images (N, C, H, W)."""

    def __init__(
        self,
        *,
        in_channels: int,
        size: tuple[int, int],
        classes: int,
        hidden: Sequence[Positive] = (500, 50),
        dropout: Fraction = 0.3,
    ) -> None:
        """`hidden`: widths of the hidden layers, first one first; `dropout`: probability of
        dropping a unit.
        """
        super().__init__()
        height, width = size
        widths = [in_channels * height * width, *hidden]
        layers: list[nn.Module] = [nn.Flatten()]  # (N, C * H * W)
        for before, after in pairwise(widths):
            layers += [
                nn.Linear(before, after),
                nn.BatchNorm1d(after, **KERAS_BATCH_NORM),
                nn.Dropout(dropout),
                nn.ReLU(),
            ]
        self.features = nn.Sequential(*layers)
        self.head = nn.Linear(widths[-1], classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(x))


Model = FcNN
