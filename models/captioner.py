"""Captioner: a convolutional encoder and an LSTM that writes a sentence about the image.

Vinyals, Toshev, Bengio, Erhan 2015, "Show and Tell: A Neural Image Caption Generator",
arXiv:1411.4555, section 3; with beam width and batch normalisation as in Vinyals et al. 2017,
"Show and Tell: Lessons learned from the 2015 MSCOCO Image Captioning Challenge", arXiv:1609.06647.

    stage      layers                                             output for (3, 64, 64), V words
    features   4 x (conv 3x3, batch norm, ReLU, max pool 2x2)     64 x 4 x 4
    image      flatten, dense, batch norm, ReLU, dense            128, as wide as a word
    lstm       the image, then <start> and the words, one a step  128
    head       dense                                              V

The image is the LSTM's input once, before the words (the paper's eq. 10 to 12). `encode` takes this
first step and gives the state; `step` takes a word and gives the log-probabilities of the next one;
`forward` steps through known words, which is teacher forcing. Word 0 is <start>.

Differs from the paper: the encoder is small and its own, where the paper's was trained on ImageNet;
its map is flattened and not averaged over positions, since a caption like "a 3 left of a 7" depends
on them; a hidden layer follows, which makes of positions what the sentence needs; the LSTM has
biases and the tanh of its cell (Hochreiter & Schmidhuber 1997), as the authors' published code
has, where eq. 8 has neither; width and embedding are 128, not 512; one network, no ensemble.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from models import layers, options
from models.options import Fraction, Positive

PAPER = "Vinyals et al. 2015"
TASK = "captioning"
START = 0  # the word that every sentence begins with

REFERENCE = {
    "Show and Tell, small": {
        "options": {"in_channels": 3, "size": (64, 64), "words": 21, "longest": 14},
        "input": (3, 64, 64),
        "trainable": 526_517,
        "fixed": 960,
        "source": "93,472 + 295,552 + 2,688 + 132,096 + 2,709",
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
    """Raise ValueError for images that leave the encoder no map."""
    cure = "enlarge size, or give fewer channels"
    options.require_size("captioner", size, 2 ** len(channels), cure)


class Captioner(nn.Module):
    """Return log-probabilities (N, L, V) of the word after each of `words` (N, L), for standardised
    images (N, C, H, W).
    """

    def __init__(
        self,
        *,
        in_channels: int,
        size: tuple[int, int],
        words: int,
        longest: int,
        channels: Sequence[Positive] = (32, 64, 64, 64),
        hidden: Positive = 256,
        width: Positive = 128,
        dropout: Fraction = 0.0,
    ) -> None:
        """`words`: of the vocabulary; `longest`: of a caption, with its <end>; `channels`: one
        convolution each; `hidden`: units between map and LSTM; `width`: of a word and of the LSTM's
        state; `dropout`: probability of dropping an input or an output of the LSTM.
        """
        super().__init__()
        check_options(size, channels)
        self.longest = longest
        blocks = zip((in_channels, *channels), channels, strict=False)
        self.features = nn.Sequential(*(layer for pair in blocks for layer in conv_block(*pair)))
        height, width_ = (pixels // 2 ** len(channels) for pixels in size)
        self.image = layers.named(
            flatten=nn.Flatten(),
            hidden=nn.Linear(channels[-1] * height * width_, hidden, bias=False),
            norm=nn.BatchNorm1d(hidden),
            relu=nn.ReLU(),
            embed=nn.Linear(hidden, width),
        )
        self.embedding = nn.Embedding(words, width)
        self.lstm = nn.LSTMCell(width, width)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(width, words)

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return hidden and cell (N, D) after the image (N, C, H, W)."""
        return self.lstm(self.dropout(self.image(self.features(x))))

    def step(self, word: Tensor, hidden: Tensor, cell: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return log-probabilities (N, V) of the word after word (N,), next hidden and cell."""
        hidden, cell = self.lstm(self.dropout(self.embedding(word)), (hidden, cell))
        return self.head(self.dropout(hidden)).log_softmax(1), hidden, cell

    def forward(self, x: Tensor, words: Tensor | None = None) -> Tensor:
        """`words`: int64 (N, L), <start> and those of the caption; without them <start> alone."""
        if words is None:
            words = torch.full((len(x), 1), START, device=x.device)
        outputs = []
        hidden, cell = self.encode(x)
        for word in words.unbind(1):
            output, hidden, cell = self.step(word, hidden, cell)
            outputs.append(output)
        return torch.stack(outputs, 1)


Model = Captioner
