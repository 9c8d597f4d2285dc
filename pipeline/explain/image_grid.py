"""Many small pictures as one: values as colours, tiles on a sheet with transparent gaps between them."""

from __future__ import annotations

import matplotlib
import numpy as np
from matplotlib.axes import Axes

LEAST_PX = 24  # a tile is enlarged to about this, its pixels visible
GAP = 3


def photos(images: np.ndarray) -> np.ndarray:
    """Return uint8 images (N, H, W, C) as colours (N, H, W, 4) from 0 to 1."""
    colours = np.broadcast_to(images / 255, (*images.shape[:3], 3))
    return np.concatenate([colours, np.ones_like(colours[..., :1])], axis=3)


def signed(values: np.ndarray, most: float | np.ndarray) -> np.ndarray:
    """Return values (N, C, H, W) as colours (N, H, W, 4), symmetric about 0 up to `most`, a number or (N,).

    One channel: white is 0, red positive, blue negative. Three: red, green and blue around mid grey.
    """
    share = values / np.maximum(np.reshape(most, (-1, 1, 1, 1)), np.finfo(np.float32).tiny)
    share = (share.clip(-1, 1) + 1) / 2
    if values.shape[1] == 1:
        return matplotlib.colormaps["RdBu_r"](share[:, 0])
    colours = share.transpose(0, 2, 3, 1)
    return np.concatenate([colours, np.ones_like(colours[..., :1])], axis=3)


def heat(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """Return values (N, H, W) as colours (N, H, W, 4) from dark (low) to bright (high)."""
    return matplotlib.colormaps["viridis"](((values - low) / max(high - low, 1e-12)).clip(0, 1))


def stretched(tiles: np.ndarray) -> np.ndarray:
    """Return tiles (N, H, W, 4) with the darkest and brightest value of each that is not clear at 0 and 1."""
    out = tiles.copy()
    for tile in out:
        seen = tile[..., 3] > 0
        colours = tile[seen, :3]
        tile[seen, :3] = (colours - colours.min()) / max(np.ptp(colours), 1e-6)
    return out


def resized(tiles: np.ndarray, side: int) -> np.ndarray:
    """Return tiles (N, H, W, 4) with a longer side of `side` pixels, each the nearest one's colour."""
    height, width = (max(1, round(side * n / max(tiles.shape[1:3]))) for n in tiles.shape[1:3])
    rows, columns = (
        np.arange(height) * tiles.shape[1] // height,
        np.arange(width) * tiles.shape[2] // width,
    )
    return tiles[:, rows][:, :, columns]


def sheet(tiles: np.ndarray, columns: int) -> np.ndarray:
    """Return tiles (N, H, W, 4) in rows of `columns`, enlarged where they are tiny, gaps and missing ones clear."""
    factor = max(1, LEAST_PX // tiles.shape[1])
    tiles = tiles.repeat(factor, 1).repeat(factor, 2)
    count, height, width, _ = tiles.shape
    rows = -(-count // columns)
    out = np.zeros((rows * (height + GAP) - GAP, columns * (width + GAP) - GAP, 4))
    for i, tile in enumerate(tiles):
        y, x = i // columns * (height + GAP), i % columns * (width + GAP)
        out[y : y + height, x : x + width] = tile
    return out


def show(axis: Axes, image: np.ndarray, title: str = "") -> None:
    """Draw a sheet without axes, its title over the left edge."""
    axis.imshow(image, interpolation="nearest")
    axis.set_axis_off()
    axis.set_title(title)
