"""Mean and scale that standardise images, by the `standardise:` key of a recipe."""

from __future__ import annotations

import numpy as np

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
    channels = x.shape[3]
    if kind == "imagenet":
        known = [np.array(v, np.float32).reshape(3, 1, 1) * 255 for v in IMAGENET]
        return known[0], 1 / known[1]
    if kind in ("none", "unit"):
        factor = 1 if kind == "none" else 1 / 255
        return np.zeros((channels, 1, 1), np.float32), np.full((channels, 1, 1), factor, np.float32)
    axes: tuple[int, ...] = (0,) if kind == "pixel" else (0, 1, 2)
    total, square = (np.zeros(x.shape[1:] if kind == "pixel" else (channels,)) for _ in range(2))
    # In parts: the whole dataset in float64 would be 8 times its size.
    for part in np.array_split(x, max(1, len(x) // 256)):
        values = part.astype(np.float64)
        total += values.sum(axes)
        square += (values**2).sum(axes)
    n = len(x) * (1 if kind == "pixel" else x.shape[1] * x.shape[2])
    mean = total / n
    std = np.sqrt(np.maximum(square / n - mean**2, 0))
    scale = np.ones_like(std) if kind == "mean" else np.where(std > 1e-6, 1 / (std + 1e-4), 0)
    if kind == "pixel":
        mean, scale = mean.transpose(2, 0, 1), scale.transpose(2, 0, 1)
    else:
        mean, scale = mean.reshape(channels, 1, 1), scale.reshape(channels, 1, 1)
    return mean.astype(np.float32), scale.astype(np.float32)
