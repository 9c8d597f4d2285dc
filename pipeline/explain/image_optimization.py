"""Optimise images: parametrisations, priors and an optimiser.

Images are optimised as u from -1 to 1, which are grey levels 0 to 255. They are measured after they
have been rounded to integer grey levels, so that the numbers above a picture belong to the picture.
"""

from __future__ import annotations

import copy
from collections.abc import Callable

import numpy as np
import torch
from scipy.optimize import minimize
from torch import Tensor

from pipeline.explain.image_grid import round_levels, to_tensor, to_uint8
from pipeline.explain.sections import Section
from pipeline.explain.subject import Subject
from pipeline.network.modules import Classifier
from pipeline.plots.style import show_image
from pipeline.train import losses

POOL_IMAGES = 256  # training images whose statistics and best activations are used


class Bf16Classifier(Classifier):
    """A copy of a classifier whose weights are bf16, for images and logits in float32."""

    def __init__(self, net: Classifier):
        super().__init__(copy.deepcopy(net.net).bfloat16(), net.mean, net.scale)
        self.eval()

    def standardise(self, images: Tensor) -> Tensor:
        return super().standardise(images).bfloat16()

    def logits(self, images: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):  # local response normalisation gives float32
            return super().logits(images).float()


def synthesis_network(subject: Subject) -> Classifier | None:
    """Return the network to make pictures from; None without gradients or steps."""
    return subject.differentiable_classifier if subject.settings.synthesis_steps else None


def step_network(net: Classifier) -> Classifier:
    """Return the network that steps are computed with; images are measured in float32.

    On a CPU that computes in bf16, VGG-16's step with 3 images takes 48 ms there and 101 in
    float32, with 24 images 188 and 343.
    """
    if losses.computes_in_bf16():
        return Bf16Classifier(net)
    return net


def load_pool(subject: Subject) -> Tensor:
    """Return POOL_IMAGES training images (N, C, H, W) in grey levels."""
    return to_tensor(subject.samples(POOL_IMAGES, "train")[0])


def to_levels(u: Tensor) -> Tensor:
    """Return images u from -1 to 1 in grey levels from 0 to 255."""
    return 127.5 * (1 + u)


def from_levels(x: Tensor) -> Tensor:
    """Return images in grey levels from 0 to 255 as u from -1 to 1."""
    return x / 127.5 - 1


def total_variation(u: Tensor) -> Tensor:
    """Return the mean squared difference of neighbours (N,).

    Mahendran & Vedaldi 2016, arXiv:1512.02017, eq. 6, beta 2.
    """
    across, down = u[..., :-1, 1:] - u[..., :-1, :-1], u[..., 1:, :-1] - u[..., :-1, :-1]
    return (across**2 + down**2).mean((1, 2, 3))


def alpha_norm(u: Tensor) -> Tensor:
    """Return the mean sixth power (N,): Mahendran & Vedaldi 2016, eq. 5, alpha 6."""
    return u.pow(6).mean((1, 2, 3))


def image_prior(u: Tensor) -> Tensor:
    """Return the sum (N,) of total variation and alpha norm, which natural images have small."""
    return total_variation(u) + alpha_norm(u)


def spectrum_shape(pool: Tensor) -> tuple[int, ...]:
    """Return the shape (C, H, W // 2 + 1, 2) of the spectrum of an image of the pool."""
    return *pool.shape[1:3], pool.shape[3] // 2 + 1, 2


def fourier_parametrisation(pool: Tensor) -> Callable[[Tensor], Tensor]:
    """Return the function from a spectrum (N, C, H, W // 2 + 1, 2) to u (N, C, H, W).

    Amplitudes fall as 1 / frequency, as in photographs, and colours are mixed by the pool's
    covariance: Olah, Mordvintsev, Schubert 2017, "Feature Visualization", doi
    10.23915/distill.00007, preconditioning.
    """
    height, width = pool.shape[2:]
    frequency = torch.hypot(torch.fft.fftfreq(height)[:, None], torch.fft.rfftfreq(width)[None])
    scale = 1 / frequency.clamp_min(1 / max(height, width))
    scale = scale / scale.square().mean().sqrt()
    variances, axes = colour_axes(pool)
    mix = axes * variances.sqrt()
    mix = mix / mix.norm(dim=1).max()

    def to_image(spectrum: Tensor) -> Tensor:
        waves = torch.fft.irfft2(
            torch.view_as_complex(spectrum) * scale, (height, width), norm="ortho"
        )
        return torch.einsum("dc,nchw->ndhw", mix, waves)

    return to_image


def colour_axes(pool: Tensor) -> tuple[Tensor, Tensor]:
    """Return the variances (C,) of the pool's pixels along their principal axes, columns (C, C)."""
    colours = pool.transpose(0, 1).flatten(1)
    variances, axes = torch.linalg.eigh(torch.cov(colours).reshape(len(colours), -1))
    return variances.clamp_min(0), axes


def phase_parametrisation(pool: Tensor) -> Callable[[Tensor], Tensor]:
    """Return the function from phases (N, C, H, W) to u (N, C, H, W), which is not clipped.

    The magnitude of each frequency is fixed, its mean over the pool: Fel et al. 2023,
    arXiv:2306.06805, who take the mean over natural images. Channels are the principal axes of the
    pool's colours. Phases are added to those of the pool's mean image, and only their odd part is:
    the spectrum is then that of a real image, and no magnitude is lost.
    """
    _, axes = colour_axes(pool)
    spectra = torch.fft.fft2(torch.einsum("cd,nchw->ndhw", axes, from_levels(pool)))
    magnitude, origin = spectra.abs().mean(0), spectra.mean(0).angle()

    def to_image(phases: Tensor) -> Tensor:
        of_negative_frequencies = phases.flip((2, 3)).roll((1, 1), (2, 3))
        angle = origin + (phases - of_negative_frequencies) / 2
        waves = torch.fft.ifft2(torch.polar(magnitude.expand_as(angle), angle)).real
        return torch.einsum("dc,nchw->ndhw", axes, waves)

    return to_image


def minimise_image(
    loss: Callable[[Tensor], Tensor], start: Tensor, pool: Tensor, steps: int
) -> Tensor:
    """Return images (N, C, H, W) in integer grey levels with a small loss(u) (N,), by L-BFGS.

    What is optimised is the spectrum of a change of `start`, images u: in pixels, 100 steps would
    leave the colours of large areas unchanged.
    """
    to_image = fourier_parametrisation(pool)
    zero = torch.zeros(len(start), *spectrum_shape(pool))
    spectrum = minimise_lbfgs(lambda s: loss(start + to_image(s)).sum(), zero, steps)
    return round_levels(to_levels(start + to_image(spectrum)))


def minimise_lbfgs(loss: Callable[[Tensor], Tensor], start: Tensor, steps: int) -> Tensor:
    """Return the parameters that scipy's L-BFGS-B finds in `steps` evaluations of the loss."""

    def evaluate(flat: np.ndarray) -> tuple[float, np.ndarray]:
        parameters = torch.from_numpy(flat.astype(np.float32)).reshape(start.shape).requires_grad_()
        value = loss(parameters)
        (gradient,) = torch.autograd.grad(value, parameters)
        return value.item(), gradient.double().numpy().ravel()

    options = {"maxfun": steps, "maxiter": steps, "ftol": 0.0, "gtol": 0.0}
    flat = start.double().numpy().ravel()
    result = minimize(evaluate, flat, jac=True, method="L-BFGS-B", options=options)
    return torch.from_numpy(result.x.astype(np.float32)).reshape(start.shape)


def draw_image_rows(
    section: Section,
    file: str,
    alt: str,
    caption: str,
    images: dict[str, Tensor],
    notes: dict[str, list[str]],
) -> None:
    """Add a picture of a row of images for each name, a note above each image."""
    columns = max(map(len, images.values()))
    size, grid = (30 + 100 * columns, 122 * len(images)), {"rows": len(images), "columns": columns}
    with section.draw(file, size, alt, caption, "photograph", **grid) as axes:
        for line, (name, row) in zip(axes, images.items(), strict=True):
            for axis, image, note in zip(line, to_uint8(row), notes[name], strict=True):
                show_image(axis, image, note)
            line[0].set_ylabel(name)
