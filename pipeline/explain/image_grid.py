"""Images as arrays, tensors and colour tiles, and the grids of tiles that pictures show.

Tiles are float (N, H, W, 4): red, green, blue and opacity from 0 to 1. They are arranged here, not
by `torchvision.utils.make_grid`, because gaps and missing tiles must be transparent for the dark
page.
"""

from __future__ import annotations

import matplotlib
import numpy as np
import torch
from matplotlib.axes import Axes
from torch import Tensor

from pipeline.plots.style import SIGNED, UNSIGNED

MIN_TILE_PX = 24  # smaller tiles are enlarged to about this, their pixels visible
GAP_PX = 3


def to_tensor(images: np.ndarray) -> Tensor:
    """Return uint8 images (N, H, W, C) as float32 (N, C, H, W), still in grey levels 0 to 255."""
    return torch.from_numpy(np.array(images)).permute(0, 3, 1, 2).float().contiguous()


def to_uint8(x: Tensor) -> np.ndarray:
    """Return float images (N, C, H, W) in grey levels as the file takes them, (N, H, W, C)."""
    return round_levels(x).permute(0, 2, 3, 1).to(torch.uint8).contiguous().numpy()


def round_levels(x: Tensor) -> Tensor:
    """Return images rounded to integer grey levels from 0 to 255, still float."""
    return x.detach().clamp(0, 255).round()


def photo_tiles(images: np.ndarray) -> np.ndarray:
    """Return uint8 images (N, H, W, C) as tiles."""
    return opaque(np.broadcast_to(images / 255, (*images.shape[:3], 3)))


def signed_tiles(values: np.ndarray, limit: float | np.ndarray) -> np.ndarray:
    """Return values (N, C, H, W) as tiles on a scale from -limit to limit; limit: a number or (N,).

    One channel: white is 0, red is positive, blue is negative. Three: colours around mid grey.
    """
    share = values / np.maximum(np.reshape(limit, (-1, 1, 1, 1)), np.finfo(np.float32).tiny)
    share = (share.clip(-1, 1) + 1) / 2
    if values.shape[1] == 1:
        return np.asarray(matplotlib.colormaps[SIGNED](share[:, 0]))
    return opaque(share.transpose(0, 2, 3, 1))


def heat_tiles(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """Return values (N, H, W) as tiles, from white at `low` to dark blue at `high`."""
    share = ((values - low) / max(high - low, 1e-12)).clip(0, 1)
    return np.asarray(matplotlib.colormaps[UNSIGNED](share))


def opaque(colours: np.ndarray) -> np.ndarray:
    return np.concatenate([colours, np.ones_like(colours[..., :1])], axis=3)


def stretch_contrast(tiles: np.ndarray) -> np.ndarray:
    """Return tiles, the opaque pixels of each stretched to the range from 0 to 1."""
    out = tiles.copy()
    for tile in out:
        visible = tile[..., 3] > 0
        colours = tile[visible, :3]
        tile[visible, :3] = (colours - colours.min()) / max(np.ptp(colours), 1e-6)
    return out


def resize_tiles(tiles: np.ndarray, side: int) -> np.ndarray:
    """Return tiles whose longer side is `side` pixels, by nearest neighbour."""
    height, width = (max(1, round(side * n / max(tiles.shape[1:3]))) for n in tiles.shape[1:3])
    rows = np.arange(height) * tiles.shape[1] // height
    columns = np.arange(width) * tiles.shape[2] // width
    return tiles[:, rows][:, :, columns]


def arrange_tiles(tiles: np.ndarray, columns: int) -> np.ndarray:
    """Return one picture (H, W, 4) of the tiles in rows of `columns`, gaps transparent."""
    factor = max(1, MIN_TILE_PX // tiles.shape[1])
    tiles = tiles.repeat(factor, 1).repeat(factor, 2)
    count, height, width, _ = tiles.shape
    rows = -(-count // columns)
    out = np.zeros((rows * (height + GAP_PX) - GAP_PX, columns * (width + GAP_PX) - GAP_PX, 4))
    for i, tile in enumerate(tiles):
        y, x = i // columns * (height + GAP_PX), i % columns * (width + GAP_PX)
        out[y : y + height, x : x + width] = tile
    return out


def show_tiles(axis: Axes, picture: np.ndarray, title: str = "") -> None:
    """Draw a picture of `arrange_tiles` without axes, its title at the left."""
    axis.imshow(picture, interpolation="nearest")
    axis.set_axis_off()
    axis.set_title(title, y=1)  # a given y saves a search for it
