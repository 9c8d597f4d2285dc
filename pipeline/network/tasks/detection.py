"""Detection: the boxes of the objects in an image, with their labels."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

import models
from pipeline.core.errors import StageError
from pipeline.data.dataset import Data
from pipeline.network.modules import ImageNetwork, channels_first
from pipeline.network.output_shape import image_options, statistics
from pipeline.params.schema import Training


class Detector(ImageNetwork):
    """uint8 images (N, H, W, C) to boxes (N, M, 4), labels and scores (N, M), count (N,)."""

    task: ClassVar[str] = "detection"

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        finds: tuple[Tensor, ...] = self.net(self.standardise(channels_first(images)))
        return finds


def assemble(recipe: Training, data: Data) -> Detector:
    """Return the network of a recipe: uint8 images (N, H, W, C) to finds."""
    options = image_options(data.about, models.takes(recipe.arch))
    return Detector(models.build(recipe.arch, **options, **recipe.net), *statistics(data))


def require_output(net: Detector, recipe: Training, data: Data) -> None:
    """Raise StageError where the architecture does not return M = `net.most` finds."""
    most = net.net.most
    expected = [(1, most, 4), (1, most), (1, most), (1,)]
    got = [tuple(part.shape) for part in net(torch.from_numpy(np.array(data.example())))]
    if got != expected:
        needed = f"expected boxes, labels, scores, count of shapes {expected} for one image"
        cure = "change what forward returns"
        raise StageError(f"models/{recipe.arch}.py: {needed}, got {got}; {cure}")
