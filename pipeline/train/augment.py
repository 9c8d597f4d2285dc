"""Augmentation: turn, move, scale and mirror each image of a batch, and change its colour.

Masks move with their images; what comes from outside of an image is VOID in them.

Random numbers are drawn for each image, a batch at a time, and pixels move in one `grid_sample`:
torchvision's transforms draw once per call, and a call per image costs LeNet-5 more than its own
step (RandomAffine: 10.8 ms of a core for 32 images of 32 x 32, `affine` .9). Each of several
processes draws for the whole batch and keeps its rows' numbers, so that an image is changed alike
however many processes there are.

Policies (RandAugment, TrivialAugment) are torchvision's own, an image at a time: 12 and 6 ms for
those images. They run on the CPU: there each operation sends its numbers to the device and waits.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from convline.metrics.segmentation import VOID
from torch import Tensor
from torch.nn import functional as F

from pipeline.core.errors import StageError
from pipeline.params import schema
from pipeline.train import device
from pipeline.train.distributed import own_rows, shared_generator, torch_seeded

# Of uint8 images (N, C, H, W), their targets, the rows of the batch of which they are one process's
# part, and which of the training images they are, int64 (N,) on the CPU, where all of these are in
# memory.
Augment = Callable[..., tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class Step:
    """One kind of change: how its random numbers are drawn and how it uses them.

    draw: of N images to float32 (k, N) on the CPU, so that every device gets equal numbers.
    change: of a batch and its numbers, both on the batch's device.
    follow: of its masks, uint8 (N, 1, H, W), and the same numbers; None where no pixel moves.
    """

    draw: Callable[[int], Tensor]
    change: Callable[[Tensor, Tensor], Tensor]
    follow: Callable[[Tensor, Tensor], Tensor] | None


def build(spec: schema.Augment | None, images: Tensor, neighbour: bool = False) -> Augment:
    """Return a function that augments uint8 batches (N, C, H, W) with their targets.

    Targets are classes (N,), which stay, or masks uint8 (N, H, W). It returns images in uint8 where
    pixels are only moved, float32 in 0..255 where they are interpolated, coloured or erased.
    images: the training images (N, C, H, W). neighbour: as in `own_rows`. The random numbers of all
    steps go to the device in one copy, for which nothing waits.
    """
    if spec is None:
        return lambda batch, y, of=0, chosen=None: (batch, y)
    if images.dtype == torch.float16:
        what = "expected images, got the features of a frozen encoder, which are computed once"
        raise StageError(f"train.augment: {what}; drop `augment`, or `frozen`")
    axes = {"horizontal": [3], "vertical": [2], "both": [3, 2]}
    steps = [mirror(dim) for dim in axes.get(spec.flip, [])]
    if spec.crop_pad:
        steps.append(crop(spec.crop_pad))
    if spec.rotate or spec.shift or spec.zoom != (1.0, 1.0):
        steps.append(affine(spec.rotate, spec.shift, *spec.zoom))
    if spec.colour:
        steps.append(pca_colour(images, spec.colour))
    if spec.erase:
        steps.append(erase(images, spec.erase))
    follow = policy(spec, images, neighbour) if spec.policy != "none" else None

    def augment(
        batch: Tensor, y: Tensor, of: int = 0, chosen: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        if follow:
            batch = follow(batch, of or len(batch), chosen)
        if not steps:
            return batch, y
        drawn = [step.draw(of or len(batch)) for step in steps]
        columns = torch.cat(drawn).T  # (N, sum of k), and then a column for each image
        own = own_rows(columns, neighbour).T.contiguous()
        numbers = device.send(own, batch.device).split([len(rows) for rows in drawn])
        for step, part in zip(steps, numbers, strict=True):
            batch = step.change(batch, part)
            if step.follow and y.dim() == 3:
                y = step.follow(y.unsqueeze(1), part).squeeze(1)
        return batch, y

    return augment


def policy(
    spec: schema.Augment, images: Tensor, neighbour: bool
) -> Callable[[Tensor, int, Tensor | None], Tensor]:
    """Return a function that applies torchvision's policy to each image of a uint8 batch.

    Each image has a seed of its own, so that a process needs to change its own rows alone.
    """
    from torchvision.transforms import v2  # 4 s

    bilinear = v2.InterpolationMode.BILINEAR
    transform = (
        v2.TrivialAugmentWide(interpolation=bilinear)
        if spec.policy == "trivialaugment"
        else v2.RandAugment(magnitude=spec.magnitude, interpolation=bilinear)
    )
    on_cpu = images.cpu()

    def change(batch: Tensor, of: int, chosen: Tensor | None) -> Tensor:
        seeds, changed = own_rows(seeds_of(of), neighbour), []
        own = batch.cpu() if chosen is None else on_cpu[chosen]
        for image, seed in zip(own, seeds, strict=True):
            with torch_seeded(seed):
                changed.append(transform(image))
        return device.send(torch.stack(changed), batch.device)

    return change


def seeds_of(count: int) -> Tensor:
    """Return a random seed for each of `count` images or batches, int64."""
    return torch.randint(2**32, (count,), generator=shared_generator())


def uniform(least: float, most: float, images: int) -> Tensor:
    """Return a uniform float32 number for each image (1, N)."""
    return torch.empty(1, images).uniform_(least, most, generator=shared_generator())


def mirror(dim: int) -> Step:
    """Return a step that mirrors an image along `dim` with probability 1/2."""

    def change(batch: Tensor, numbers: Tensor) -> Tensor:
        # Bits of the mirror image where the mask is 255: torch.where of uint8 takes five times as
        # long on a CPU.
        mask = (numbers.reshape(-1, 1, 1, 1) < 0.5).to(torch.uint8).neg_()
        return batch.flip(dim).bitwise_xor_(batch).bitwise_and_(mask).bitwise_xor_(batch)

    return Step(lambda images: uniform(0, 1, images), change, change)


def crop(border: int) -> Step:
    """Return a step that adds a black border and cuts a window of the old size out of it.

    He et al. 2015, "Deep Residual Learning for Image Recognition", arXiv:1512.03385, section 4.2.
    """

    def draw(images: int) -> Tensor:
        return torch.randint(2 * border + 1, (2, images), generator=shared_generator()).float()

    def change(batch: Tensor, numbers: Tensor, outside: int = 0) -> Tensor:
        height, width = batch.shape[2:]
        padded = F.pad(batch, [border] * 4, value=outside)
        windows = padded.unfold(2, height, 1).unfold(3, width, 1)  # (N, C, 2b + 1, 2b + 1, H, W)
        top, left = numbers.long()
        return windows[torch.arange(len(batch), device=batch.device), :, top, left]

    return Step(draw, change, partial(change, outside=VOID))


def affine(degrees: float, shift: float, least: float, most: float) -> Step:
    """Return a step that turns by up to `degrees`, scales by least..most, moves by up to `shift`.

    `shift` is a share of the side. Moves are whole pixels, so that an image that is only moved
    stays sharp. Pixels from outside the image are black.
    """
    ranges = ((-degrees, degrees), (least, most), (-shift, shift), (-shift, shift))

    def draw(images: int) -> Tensor:
        return torch.cat([uniform(*span, images) for span in ranges])

    def sources(batch: Tensor, numbers: Tensor) -> Tensor:
        """Return where each pixel of the result is in the batch, (N, H, W, 2)."""
        height, width = batch.shape[2:]
        turn, zoom, *shares = numbers
        angle = torch.deg2rad(turn)
        right, down = (shares[0] * width).round(), (shares[1] * height).round()
        # From a pixel of the result to its source, seen from the centre: moved back, then turned
        # and scaled back; in half sides, as affine_grid counts.
        cos, sin = angle.cos() / zoom, angle.sin() / zoom
        x = (cos, sin * height / width, -2 * (cos * right + sin * down) / width)
        y = (-sin * width / height, cos, 2 * (sin * right - cos * down) / height)
        source = torch.stack([torch.stack(x, 1), torch.stack(y, 1)], 1)  # (N, 2, 3)
        return affine_grid(source, height, width)

    def change(batch: Tensor, numbers: Tensor) -> Tensor:
        return F.grid_sample(batch.float(), sources(batch, numbers), align_corners=False)

    def follow(masks: Tensor, numbers: Tensor) -> Tensor:
        inside = masks.float() - VOID  # so that the 0 outside is VOID
        grid = sources(masks, numbers)
        moved = F.grid_sample(inside, grid, mode="nearest", align_corners=False)
        return (moved + VOID).to(masks.dtype)

    return Step(draw, change, follow)


def affine_grid(source: Tensor, height: int, width: int) -> Tensor:
    """Return what `F.affine_grid(source, ..., align_corners=False)` does, (N, H, W, 2).

    On an AMD processor it is equal bit for bit, in float32 and float64, on an Intel Xeon but for
    rounding, in an eighth of the time: torch multiplies matrices of HW x 3 by 3 x 2, which took
    half of the time that turned and moved LeNet-5's images. It was not compared on a GPU.
    """
    x, y = (
        torch.linspace(-1, 1, side, dtype=source.dtype, device=source.device) * (side - 1) / side
        for side in (width, height)
    )
    a, b, c = source[..., None, None].unbind(2)  # each (N, 2, 1, 1)
    return (a * x + b * y[:, None]).add_(c).permute(0, 2, 3, 1)


def erase(images: Tensor, probability: float) -> Step:
    """Return a step that fills a rectangle of an image with the training images' mean colour.

    It returns float32. Zhong et al. 2020, "Random erasing data augmentation", arXiv:1708.04896,
    algorithm 1, with the paper's limits of area and aspect ratio; torchvision draws the rectangle.
    """
    from torchvision.transforms import v2  # 4 s

    erasing = v2.RandomErasing()
    parts = images.split(256)  # float64 of all images would take 8 times their memory
    mean = torch.stack([part.double().sum((0, 2, 3)) for part in parts]).sum(0)
    mean = (mean * images.shape[1] / images.numel()).float()[:, None, None]  # (C, 1, 1)

    def rectangle() -> list[int]:  # top, left, height, width; of no size where none fits
        box = erasing.make_params([images[0]])
        return [0, 0, 0, 0] if box["v"] is None else [box[key] for key in "ijhw"]

    def draw(count: int) -> Tensor:
        with torch_seeded(seeds_of(1)):
            erased = (torch.rand(count) < probability).tolist()
            boxes = [rectangle() if yes else [0, 0, 0, 0] for yes in erased]
        return torch.tensor(boxes, dtype=torch.float32).T  # (4, N)

    def change(batch: Tensor, numbers: Tensor) -> Tensor:
        top, left, height, width = numbers[:, :, None]  # each (N, 1)
        rows, columns = (torch.arange(side, device=batch.device) for side in batch.shape[2:])
        across = (rows >= top) & (rows < top + height)  # (N, H)
        along = (columns >= left) & (columns < left + width)  # (N, W)
        hole = across[:, None, :, None] & along[:, None, None, :]
        return torch.where(hole, mean, batch.float())

    return Step(draw, change, None)


def pca_colour(images: Tensor, sigma: float) -> Step:
    """Return a step that adds sum_i a_i l_i p_i to every pixel, a_i ~ N(0, sigma^2).

    It returns float32 in 0..255. p_i are the eigenvectors of the training pixels' channel
    covariance, l_i the square roots of its eigenvalues (Krizhevsky et al. 2012, "ImageNet
    classification with deep convolutional neural networks", section 4.1). The paper has the
    eigenvalues themselves, which are grey levels squared; the roots keep the unit, as usual
    implementations do. With one channel this changes brightness.
    """
    n, channels = images.numel() // images.shape[1], images.shape[1]
    total = torch.zeros(channels, dtype=torch.float64, device=images.device)
    square = torch.zeros(channels, channels, dtype=torch.float64, device=images.device)
    for part in images.split(256):  # float64 of all images would take 8 times their memory
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

    return Step(draw, change, None)
