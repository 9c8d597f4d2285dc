"""Captioner: a convolutional encoder and an LSTM that writes a sentence about the image.

Vinyals, Toshev, Bengio, Erhan 2015, "Show and Tell: A Neural Image Caption Generator",
arXiv:1411.4555, section 3; its authors' code, "im2txt", of 2016.

    stage      layers                                             output for (3, 80, 80), V words
    features   the small backbone of models/fasterrcnn.py         64 x 20 x 20
    reader     conv 5x5 / 2, ReLU, 2 x conv 1x1, ReLU between     40 x 10 x 10
    image      sigmoid of each map's maximum, and its place;      120
               dense, batch norm                                  128, as wide as a word
    lstm       the image, then <start> and the words, one a step  128
    head       dense                                              V

The image is the first input of the LSTM, the words follow (the paper's eq. 10 to 12). `encode`
takes this first step and returns the state; `step` takes a word and returns the log-probabilities
of the next one; `follow` steps through known words, which is teacher forcing. Word 0 is <start>.
With `needs:` a detector, training starts from it: its features, and its head as the reader, whose
dense layers slide over the map (Sermanet et al. 2013, "OverFeat", arXiv:1312.6229, section 3.5);
`maps` is then the detector's `width`, `kinds` the number of its classes (10 unless it is set).
`frozen` leaves the features as they are, as the paper leaves its CNN (section 4.3.1); training
computes them once. With 21 words there are 440,701 weights as in the table, 856,061 with `width:
256`, of which 60,864 are the features'.

Differs from the paper: its CNN was trained to classify ImageNet, ours to find objects, or not at
all; it averaged the last map over all positions, but a caption like "a 3 left of a 7" depends on
them, so that each map says whether its thing is there and where; `image: every` adds the image to
each word, too, which the paper found to overfit; the LSTM has biases, that of the forget gate
starts at 1, and the tanh of its cell, as the authors' code has, where eq. 8 has neither; width and
embedding are 128, not 512; no dropout, no ensemble.

Expected on scenes of one or two digits (12,000 to train, batch 32, AdamW 4e-3, decay .05,
one-cycle, 6 epochs, the reader in bf16, `image: every`, `width` 256, frozen features of a detector
as good as models/fasterrcnn.py expects; 400 unseen scenes): .90 of captions exact, .95 of those of
one digit and .85 of those of two. What was chosen on 1,000 validation scenes, after 4 epochs on
6,000: .845; maps of kinds that start at random .77; the maxima and places of the 128 maps before
them, and `width` 128, .72, where most mistakes were the relation of two digits that were read
right.
"""

from contextlib import AbstractContextManager, nullcontext
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models import layers, options
from models.fasterrcnn import small_features
from models.options import Positive

PAPER = "Vinyals et al. 2015"
TASK = "captioning"
WINDOW = 5  # side of what the reader sees at once, in cells of the features: a detector's `pooled`
COPIES = 4  # maps of each kind of thing, which training tells apart: its sizes, or nothing we name
START = 0  # the word that every sentence begins with
# Where the last layer of the reader is not of the detector's classes.
START_CURE = "set net.kinds to the detector's number of classes"

REFERENCE = {
    "Show and Tell, small": {
        "options": {"in_channels": 3, "size": (80, 80), "words": 21, "longest": 9},
        "input": (3, 80, 80),
        "trainable": 440_701,
        "fixed": 608,
        "source": "60,864 + 226,600 + 15,744 + 2,688 + 132,096 + 2,709",
    },
}


def start_weights(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return what a detector's network gives this one: its features, and its head as the reader.

    A dense layer on WINDOW x WINDOW cells is a convolution at each of their positions. Each of a
    kind's maps starts as the logit of its class less that of the ground.
    """
    part = {name: weight for name, weight in state.items() if name.startswith("features.")}
    for name, layer, side in (("window", 1, WINDOW), ("cell", 3, 1)):
        weight = state[f"head.hidden.{layer}.weight"]
        part[f"reader.{name}.weight"] = weight.unflatten(1, (-1, side, side))
        part[f"reader.{name}.bias"] = state[f"head.hidden.{layer}.bias"]
    weight, bias = state["head.logits.weight"], state["head.logits.bias"]  # of the ground first
    part["reader.things.weight"] = (weight[1:] - weight[0]).repeat(COPIES, 1)[:, :, None, None]
    part["reader.things.bias"] = (bias[1:] - bias[0]).repeat(COPIES)
    return part


def check_options(size: tuple[int, int]) -> None:
    """Raise ValueError for images that leave the reader no map."""
    options.require_size("captioner", size, 4)


class Places(nn.Module):
    """Return (N, 3 C) of maps (N, C, H, W), logits of what each map stands for being at a position:
    the sigmoid of the map's maximum, and this times its place.

    The place, x and y from -1 to 1, is the mean over positions weighted by the softmax of the map:
    Finn et al. 2016, "Deep spatial autoencoders", arXiv:1509.06113, section IV.B. A maximum without
    a bound would mix how clear a thing is with where it is.
    """

    def forward(self, maps: Tensor) -> Tensor:
        height, width = maps.shape[2:]
        share = maps.flatten(2).softmax(2).unflatten(2, (height, width))
        x = share.sum(2) @ torch.linspace(-1, 1, width, device=maps.device)  # (N, C)
        y = share.sum(3) @ torch.linspace(-1, 1, height, device=maps.device)
        seen = maps.amax((2, 3)).sigmoid()
        return torch.cat([seen, seen * x, seen * y], 1)


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
        image: Literal["first", "every"] = "first",
        frozen: bool = False,
        maps: Positive = 128,
        kinds: Positive = 10,
        width: Positive = 128,
    ) -> None:
        """`words`: of the vocabulary; `longest`: of a caption, with its <end>; `image`: steps that
        get it; `frozen`: train all but the features; `maps`: of the reader, a detector's `width`;
        `kinds`: of things that it looks for, a detector's classes; `width`: of a word and of the
        LSTM.
        """
        super().__init__()
        check_options(size)
        self.words, self.longest, self.frozen = words, longest, frozen
        self.at_every_step = options.choose("captioner", "image", image, {"first": 0, "every": 1})
        self.features = small_features(in_channels).requires_grad_(not frozen).train(not frozen)
        channels = layers.feature_shape(self.features, in_channels, size)[0]
        self.reader = layers.named(
            window=nn.Conv2d(channels, maps, WINDOW, stride=2, padding=WINDOW // 2),
            relu=nn.ReLU(),
            cell=nn.Conv2d(maps, maps, kernel_size=1),
            relu2=nn.ReLU(),
            things=nn.Conv2d(maps, COPIES * kinds, kernel_size=1),
        )
        layers.initialise(self.reader, "he")
        self.image = layers.named(
            places=Places(), embed=nn.Linear(3 * COPIES * kinds, width), norm=nn.BatchNorm1d(width)
        )
        self.embedding = nn.Embedding(words, width)
        self.lstm = nn.LSTMCell(width, width)
        self.head = nn.Linear(width, words)
        nn.init.constant_(self.lstm.bias_ih[width : 2 * width], 1.0)  # the forget gate

    def train(self, mode: bool = True) -> "Captioner":
        """Set the mode of all parts; frozen features stay in evaluation, their statistics too."""
        super().train(mode)
        self.features.train(mode and not self.frozen)
        return self

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return hidden and cell after the image (N, C, H, W).

        They are (N, D); with `image: every` hidden is (N, 2 D), the image in its second half.
        """
        return self.read(self.features(x))

    def float32(self, x: Tensor) -> AbstractContextManager[object]:
        """Return the context of what mixed precision leaves in float32: all behind the reader.

        Of bf16, too, it left .79 of captions exact in place of .81 (1,000 validation scenes, three
        seeds, 4 epochs on 6,000).
        """
        if not self.training:
            return nullcontext()
        return torch.autocast("cuda" if x.is_cuda else "cpu", enabled=False)

    def read(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Return what `encode` does, of the features (N, C, H, W) of images."""
        maps = self.reader(features)
        with self.float32(maps):
            image = self.image(maps.float())
            hidden, cell = self.lstm(image)
        return torch.cat([hidden, image], 1) if self.at_every_step else hidden, cell

    def step(self, word: Tensor, hidden: Tensor, cell: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return log-probabilities (N, V) of the word after word (N,), next hidden and cell."""
        entry = self.embedding(word)
        if not self.at_every_step:
            hidden, cell = self.lstm(entry, (hidden, cell))
            return self.head(hidden).log_softmax(1), hidden, cell
        hidden, image = hidden.chunk(2, 1)
        hidden, cell = self.lstm(entry + image, (hidden, cell))
        return self.head(hidden).log_softmax(1), torch.cat([hidden, image], 1), cell

    def follow(self, words: Tensor, hidden: Tensor, cell: Tensor) -> Tensor:
        """Return log-probabilities (N, L, V) of the word after each of `words` (N, L).

        What a step computes without the state of the step before is computed for all of them at
        once: the words' part of the gates, and the head.
        """
        with self.float32(hidden):
            entries, lstm = self.embedding(words), self.lstm
            if self.at_every_step:
                hidden, image = hidden.chunk(2, 1)
                entries = entries + image.unsqueeze(1)
            gates = F.linear(entries, lstm.weight_ih, lstm.bias_ih + lstm.bias_hh)  # (N, L, 4 D)
            states = []
            for known in gates.unbind(1):
                parts = torch.addmm(known, hidden, lstm.weight_hh.T).chunk(4, 1)
                new, forget, output = (parts[k].sigmoid() for k in (0, 1, 3))
                cell = forget * cell + new * parts[2].tanh()
                hidden = output * cell.tanh()
                states.append(hidden)
            after = self.head(torch.cat(states)).log_softmax(1)  # (L N, V)
        return after.unflatten(0, words.T.shape).transpose(0, 1)

    def forward(self, x: Tensor, words: Tensor | None = None) -> Tensor:
        """`words`: int64 (N, L), <start> and those of the caption; without them <start> alone."""
        if words is None:
            words = torch.full((len(x), 1), START, device=x.device)
        return self.follow(words, *self.encode(x))


Model = Captioner
