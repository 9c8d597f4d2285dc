"""Segmentation: the class of every pixel."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

import models
from pipeline.data.dataset import Data
from pipeline.network.modules import ImageNetwork, channels_first
from pipeline.network.output_shape import example_image, image_options, require_shape, statistics
from pipeline.params.schema import Training


class Segmenter(ImageNetwork):
    """uint8 images (N, H, W, C) to masks uint8 (N, H, W) and probabilities (N, K, H, W)."""

    task: ClassVar[str] = "segmentation"

    def logits(self, images: Tensor) -> Tensor:
        """Return logits (N, K, H, W) for uint8 or float images in grey levels (N, C, H, W)."""
        logits: Tensor = self.net(self.standardise(images))
        return logits

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        probabilities = self.logits(channels_first(images)).softmax(1)
        return probabilities.argmax(1).to(torch.uint8), probabilities


def assemble(recipe: Training, data: Data) -> Segmenter:
    """Return the network of a recipe."""
    options = image_options(data.about, models.takes(recipe.arch))
    return Segmenter(models.build(recipe.arch, **options, **recipe.net), *statistics(data))


def require_output(net: Segmenter, recipe: Training, data: Data) -> None:
    """Raise StageError where the architecture returns no logits (N, K, H, W)."""
    x = example_image(data)
    expected = (len(data.about["labels"]), *x.shape[2:])
    require_shape(net.logits(x), expected, "logits (N, K, H, W)", x, recipe.arch)
