"""Mean and scale that standardise images, by the `standardise:` key of a recipe."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

MEASURED = ("pixel", "channel", "mean")  # kinds whose statistics depend on the images
# mean and std of red, green, blue in [0, 1]
IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def image_statistics(x: np.ndarray, kind: str) -> tuple[np.ndarray, np.ndarray]:
    """Return mean and scale for (x - mean) * scale, from uint8 training images (N, H, W, C).

    Both are float32, (C, H, W) for kind pixel and (C, 1, 1) for all others. pixel: (x - mean) /
    (std + 1e-4) of each pixel and channel. A constant pixel becomes 0. An almost constant one gets
    a huge scale: a single grey level in 1,000 training images has std .03, and a bright test value
    becomes thousands. Prefer channel for small images, where many pixels hardly change. channel:
    one mean and std for each channel. mean: subtracts that mean alone, as AlexNet and VGG do. unit:
    x / 255. none: x as it is. imagenet: the statistics of torchvision's published weights.
    """
    sums = Sums.zeros(x.shape[1:], kind)
    if kind in MEASURED:  # in parts: the whole dataset in float64 would be 8 times its size
        for part in np.array_split(x, max(1, len(x) // 256)):
            sums.add(part)
    return sums.statistics(kind)


@dataclass
class Sums:
    """Sums over images, of which the statistics are made.

    Grey levels are whole numbers, so the sums are exact in float64 (below 2 ** 53, which 10^6
    images of 224 x 224 stay under): parts give the same bits in any order.
    """

    images: int
    pixels: int  # of an image that one sum takes up: all of them, or 1
    total: np.ndarray  # float64 (C,), of kind pixel (H, W, C)
    square: np.ndarray  # the same of squares

    @classmethod
    def zeros(cls, shape: tuple[int, ...], kind: str) -> Sums:
        """Return the sums over no image of the shape (H, W, C)."""
        height, width, channels = shape
        cells = shape if kind == "pixel" else (channels,)
        pixels = 1 if kind == "pixel" else height * width
        return cls(0, pixels, np.zeros(cells), np.zeros(cells))

    def add(self, x: np.ndarray) -> None:
        """Add uint8 images (N, H, W, C)."""
        axes = tuple(range(x.ndim - self.total.ndim))
        values = x.astype(np.float64)
        self.images += len(x)
        self.total += values.sum(axes)
        self.square += (values**2).sum(axes)

    def merge(self, other: Sums) -> None:
        """Add the sums over other images of the same shape."""
        self.images += other.images
        self.total += other.total
        self.square += other.square

    def statistics(self, kind: str) -> tuple[np.ndarray, np.ndarray]:
        """Return what `image_statistics` returns, of the images that were added."""
        channels = self.total.shape[-1]
        if kind == "imagenet":
            known = [np.array(v, np.float32).reshape(3, 1, 1) * 255 for v in IMAGENET]
            return known[0], 1 / known[1]
        if kind in ("none", "unit"):
            factor = 1 if kind == "none" else 1 / 255
            zeros = np.zeros((channels, 1, 1), np.float32)
            return zeros, np.full((channels, 1, 1), factor, np.float32)
        n = self.images * self.pixels
        mean = self.total / n
        std = np.sqrt(np.maximum(self.square / n - mean**2, 0))
        scale = np.ones_like(std) if kind == "mean" else np.where(std > 1e-6, 1 / (std + 1e-4), 0)
        if kind == "pixel":
            mean, scale = mean.transpose(2, 0, 1), scale.transpose(2, 0, 1)
        else:
            mean, scale = mean.reshape(channels, 1, 1), scale.reshape(channels, 1, 1)
        return mean.astype(np.float32), scale.astype(np.float32)
