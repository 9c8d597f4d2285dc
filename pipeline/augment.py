"""Augmentation: torchvision v2 transforms on batches already on the device (T21), and AlexNet's colour (T22)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

Augment = Callable[[Tensor], Tensor]


def build(spec: dict[str, Any] | None, images: Tensor) -> Augment:
    """Return a function on uint8 batches (N, C, H, W) in grey levels; `images` are the training images (N, C, H, W).

    A transform draws its numbers once per call, so a batch is cut into groups of `group` images that share one draw.
    """
    if spec is None:
        return lambda batch: batch
    from torchvision.transforms import v2

    height, width = images.shape[2:]
    steps: list[Augment] = []
    if spec["rotate"] or spec["shift"] or spec["zoom"] != [1.0, 1.0]:
        shift = (spec["shift"], spec["shift"])
        steps.append(
            v2.RandomAffine(spec["rotate"], shift, tuple(spec["zoom"]), interpolation=v2.InterpolationMode.BILINEAR)
        )
    if spec["flip"] in ("horizontal", "both"):
        steps.append(v2.RandomHorizontalFlip())
    if spec["flip"] in ("vertical", "both"):
        steps.append(v2.RandomVerticalFlip())
    if spec["crop_pad"]:
        steps.append(v2.RandomCrop((height, width), padding=spec["crop_pad"]))
    if spec["colour"]:
        steps.append(pca_colour(images, spec["colour"]))

    def augment(batch: Tensor) -> Tensor:
        groups = []
        for group in batch.split(spec["group"]):
            for step in steps:
                group = step(group)
            groups.append(group)
        return torch.cat(groups)

    return augment


def pca_colour(images: Tensor, sigma: float) -> Augment:
    """Return a step that adds sum_i a_i l_i p_i to every pixel, a_i ~ N(0, sigma^2), and answers float in 0..255.

    p_i are the eigenvectors of the training pixels' channel covariance, l_i the roots of its eigenvalues (Krizhevsky
    et al. 2012, section 4.1). The paper writes the eigenvalues themselves, which are grey levels squared; the roots
    keep the unit, as in the usual implementations. With one channel this is a brightness change.
    """
    n, channels = images.numel() // images.shape[1], images.shape[1]
    total = torch.zeros(channels, dtype=torch.float64, device=images.device)
    square = torch.zeros(channels, channels, dtype=torch.float64, device=images.device)
    for part in images.split(256):  # in parts: float64 of a whole set would be 8 times its size
        pixels = part.double().permute(1, 0, 2, 3).flatten(1)  # (C, N H W)
        total, square = total + pixels.sum(1), square + pixels @ pixels.T
    covariance = (square - torch.outer(total, total) / n) / (n - 1)
    values, vectors = (part.float() for part in torch.linalg.eigh(covariance))
    basis = vectors * values.clamp(min=0).sqrt()  # (C, C)

    def step(group: Tensor) -> Tensor:
        drawn = sigma * torch.randn(len(basis), device=group.device)
        return (group.float() + (basis @ drawn).reshape(1, -1, 1, 1)).clamp(0, 255)

    return step
