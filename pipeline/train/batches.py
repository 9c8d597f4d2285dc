"""A split on the device, as training and evaluation take it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from pipeline.data.dataset import Data


@dataclass
class Batches:
    """A split on the device, with the network's inputs and the loss's targets.

    Images: x uint8 (N, C, H, W), y as `Data.y` has it. Series: x standardised (M, T, D), with a
    calendar (M, T + S, D + F); y standardised (M, S, targets).
    """

    x: Tensor
    y: Tensor


def image_batches(source: Data, split: str, on: torch.device) -> Batches:
    """Return a split of images and their targets on the device."""
    images = torch.from_numpy(np.array(source.x[split])).permute(0, 3, 1, 2).contiguous()
    return Batches(images.to(on), torch.from_numpy(np.array(source.y[split])).to(on))
