"""What images are standardised by: mean and scale of the training split, as a recipe's `standardise:` says."""

from __future__ import annotations

import numpy as np

IMAGENET = (
    (0.485, 0.456, 0.406),
    (0.229, 0.224, 0.225),
)  # mean and std of red, green, blue in [0, 1]


def image_statistics(x: np.ndarray, kind: str) -> tuple[np.ndarray, np.ndarray]:
    """Return mean and scale for (x - mean) * scale, from uint8 training images (N, H, W, C).

    pixel: T20, (x - mean) / (std + 1e-4) at each pixel and channel; a pixel that never changes standardises to 0. One
    that hardly ever changes gets a huge scale: a single grey level in 1,000 training images has std .03, and a bright
    test value there becomes thousands. Prefer channel where many pixels are nearly constant, as at 8 x 8.
    channel: by one mean and std a channel. mean: less that mean alone, as AlexNet and VGG have it. unit: x / 255.
    none: x as it is. imagenet: by the means and stds that torchvision's published weights were trained with.
    """
    channels = x.shape[3]
    if kind == "imagenet":
        mean, std = (np.array(v, np.float32).reshape(3, 1, 1) * 255 for v in IMAGENET)
        return mean, 1 / std
    if kind in ("none", "unit"):
        scale = 1 if kind == "none" else 1 / 255
        return np.zeros((channels, 1, 1), np.float32), np.full((channels, 1, 1), scale, np.float32)
    axes: tuple[int, ...] = (0,) if kind == "pixel" else (0, 1, 2)
    total, square = (np.zeros(x.shape[1:] if kind == "pixel" else (channels,)) for _ in range(2))
    for part in np.array_split(
        x, max(1, len(x) // 256)
    ):  # in parts: float64 of a whole set would be 8 times its size
        values = part.astype(np.float64)
        total += values.sum(axes)
        square += (values**2).sum(axes)
    n = len(x) * (1 if kind == "pixel" else x.shape[1] * x.shape[2])
    mean = total / n
    std = np.sqrt(np.maximum(square / n - mean**2, 0))
    scale = np.ones_like(std) if kind == "mean" else np.where(std > 1e-6, 1 / (std + 1e-4), 0)
    layout = (
        (lambda a: a.transpose(2, 0, 1))
        if kind == "pixel"
        else (lambda a: a.reshape(channels, 1, 1))
    )
    return layout(mean).astype(np.float32), layout(scale).astype(np.float32)
