"""Captioning: a sentence about an image, word by word."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from convline.images.captioner import probe_words
from torch import Tensor

import models
from pipeline.data.dataset import Data
from pipeline.network.modules import ImageNetwork, channels_first
from pipeline.network.output_shape import example_image, image_options, require_shape, statistics
from pipeline.params.schema import Training


class Captioner(ImageNetwork):
    """uint8 images (N, H, W, C) to the state after the image, and what follows probe words.

    Hidden and cell (N, D), and log-probabilities (N, L, V) of the word after each probe word. The
    exported graph has one step in place of these.
    """

    task: ClassVar[str] = "captioning"
    net: Any

    def encode(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return hidden and cell (N, D) after uint8 images (N, C, H, W)."""
        return self.net.encode(self.standardise(images))

    def probes(self, count: int) -> Tensor:
        """Return the probe words int64 (count, L)."""
        words = probe_words(count, self.net.longest, self.net.words)
        return torch.from_numpy(words).to(self.mean.device)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        state = self.encode(channels_first(images))
        return *state, self.net.follow(self.probes(len(images)), *state)


def assemble(recipe: Training, data: Data) -> Captioner:
    """Return the network of a recipe, sized by its images, words and the longest caption."""
    options = image_options(data.about, ("in_channels", "size"))
    sentences = {"words": len(data.about["words"]), "longest": data.about["longest"]}
    net = models.build(recipe.arch, **options, **sentences, **recipe.net)
    return Captioner(net, *statistics(data))


def require_output(net: Captioner, recipe: Training, data: Data) -> None:
    """Raise StageError where the architecture gives no log-probabilities (N, L, V) of words."""
    x, words = example_image(data), net.probes(1)
    expected = words.shape[1], len(data.about["words"])
    output = net.net(net.standardise(x), words)
    require_shape(output, expected, "log-probabilities (N, L, V)", x, recipe.arch)
