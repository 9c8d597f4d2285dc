"""Images on their way to a network and back: grey levels 0 to 255, as the served file takes them."""

from __future__ import annotations

import numpy as np
import torch
from matplotlib.axes import Axes
from torch import Tensor


def tensor(images: np.ndarray) -> Tensor:
    """Return images uint8 (N, H, W, C) as float32 (N, C, H, W), still in grey levels."""
    return torch.from_numpy(np.array(images)).permute(0, 3, 1, 2).float().contiguous()


def array(x: Tensor) -> np.ndarray:
    """Return float images (N, C, H, W) as what a file takes, uint8 (N, H, W, C)."""
    return whole(x).permute(0, 2, 3, 1).to(torch.uint8).contiguous().numpy()


def whole(x: Tensor) -> Tensor:
    """Return the images in whole grey levels."""
    return x.detach().clamp(0, 255).round()


def show(axis: Axes, image: np.ndarray, title: str = "") -> None:
    """Draw a uint8 image (H, W, C), its pixels as they are."""
    axis.imshow(image.squeeze(), cmap="gray", vmin=0, vmax=255, interpolation="nearest")
    axis.set(xticks=[], yticks=[])
    axis.set_title(title, loc="center", fontsize=7)
    axis.spines[:].set_visible(False)
