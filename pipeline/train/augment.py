"""Augmentation: each image of a batch turned, moved, scaled and mirrored by itself (T21), and AlexNet's colour (T22).

The numbers are drawn per image, a batch at a time, and pixels move in one `grid_sample`: torchvision's transforms draw
once per call, and a call per image costs LeNet-5 more than its own step. Of several processes each draws for the whole
batch and keeps its rows' numbers, so that an image is changed alike however many there are.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from pipeline.params import schema
from pipeline.train import device
from pipeline.train.distributed import own_rows, shared_generator

Augment = Callable[
    ..., Tensor
]  # of uint8 (N, C, H, W), and of how many rows these are one process's part


@dataclass(frozen=True)
class Step:
    """One kind of change: the numbers that it draws for each image, and what it does with them."""

    draw: Callable[
        [int], Tensor
    ]  # of N images: float32 (k, N), on the CPU, so that every device sees the same
    change: Callable[[Tensor, Tensor], Tensor]  # of a batch and its numbers, on the batch's device


def build(spec: schema.Augment | None, images: Tensor) -> Augment:
    """Return a function on uint8 batches (N, C, H, W) in grey levels; `images` are the training images (N, C, H, W).

    It answers uint8 where pixels are only moved, and float32 in 0..255 where they are interpolated or coloured.
    The numbers of all steps go to the device in one copy that nothing waits for.
    """
    if spec is None:
        return lambda batch, of=0: batch
    steps: list[Step] = []
    for way, dim in (("horizontal", 3), ("vertical", 2)):
        if spec.flip in (way, "both"):
            steps.append(mirror(dim))
    if spec.crop_pad:
        steps.append(crop(spec.crop_pad))
    if spec.rotate or spec.shift or spec.zoom != (1.0, 1.0):
        steps.append(affine(spec.rotate, spec.shift, *spec.zoom))
    if spec.colour:
        steps.append(pca_colour(images, spec.colour))
    if not steps:
        return lambda batch, of=0: batch

    def augment(batch: Tensor, of: int = 0) -> Tensor:
        drawn = [step.draw(of or len(batch)) for step in steps]
        own = own_rows(
            torch.cat(drawn).T
        ).T.contiguous()  # rows of contiguous numbers, one for each image
        numbers = device.send(own, batch.device).split([len(rows) for rows in drawn])
        for step, part in zip(steps, numbers, strict=True):
            batch = step.change(batch, part)
        return batch

    return augment


def uniform(least: float, most: float, images: int) -> Tensor:
    """Return a float32 number for each image (1, N)."""
    return torch.empty(1, images).uniform_(least, most, generator=shared_generator())


def mirror(dim: int) -> Step:
    """Return a step that mirrors every second image, drawn by lot."""

    def change(batch: Tensor, numbers: Tensor) -> Tensor:
        return torch.where(numbers.reshape(-1, 1, 1, 1) < 0.5, batch.flip(dim), batch)

    return Step(lambda images: uniform(0, 1, images), change)


def crop(border: int) -> Step:
    """Return a step that adds a black border and cuts out a window of the old size (He et al. 2016, section 4.2)."""

    def draw(images: int) -> Tensor:
        return torch.randint(2 * border + 1, (2, images), generator=shared_generator()).float()

    def change(batch: Tensor, numbers: Tensor) -> Tensor:
        height, width = batch.shape[2:]
        windows = (
            F.pad(batch, [border] * 4).unfold(2, height, 1).unfold(3, width, 1)
        )  # (N, C, 2b + 1, 2b + 1, H, W)
        top, left = numbers.long()
        return windows[torch.arange(len(batch), device=batch.device), :, top, left]

    return Step(draw, change)


def affine(degrees: float, shift: float, least: float, most: float) -> Step:
    """Return a step that turns by up to `degrees`, scales by least..most and moves by up to `shift` of the sides.

    Moves are whole pixels, so that an image that is only moved stays sharp; what comes in from outside is black.
    """
    ranges = ((-degrees, degrees), (least, most), (-shift, shift), (-shift, shift))

    def draw(images: int) -> Tensor:
        return torch.cat([uniform(*span, images) for span in ranges])

    def change(batch: Tensor, numbers: Tensor) -> Tensor:
        height, width = batch.shape[2:]
        turn, zoom, *shares = numbers
        angle = torch.deg2rad(turn)
        right, down = (
            (part * side).round() for part, side in zip(shares, (width, height), strict=True)
        )
        # From a pixel of the answer to its source, seen from the centre: moved back, then turned and scaled back.
        cos, sin = angle.cos() / zoom, angle.sin() / zoom
        x = (
            cos,
            sin * height / width,
            -2 * (cos * right + sin * down) / width,
        )  # in half sides, as affine_grid counts
        y = (-sin * width / height, cos, 2 * (sin * right - cos * down) / height)
        source = torch.stack([torch.stack(x, 1), torch.stack(y, 1)], 1)  # (N, 2, 3)
        grid = F.affine_grid(source, list(batch.shape), align_corners=False)
        return F.grid_sample(batch.float(), grid, align_corners=False)

    return Step(draw, change)


def pca_colour(images: Tensor, sigma: float) -> Step:
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

    def draw(images: int) -> Tensor:
        return torch.randn(images, channels, generator=shared_generator()).T

    def change(batch: Tensor, numbers: Tensor) -> Tensor:
        drawn = sigma * numbers.T.contiguous()  # (N, C)
        return (batch.float() + (drawn @ basis.T)[:, :, None, None]).clamp(0, 255)

    return Step(draw, change)
