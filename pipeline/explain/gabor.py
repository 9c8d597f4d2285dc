"""Fit Gabor functions to filters: they describe simple cells of the visual cortex."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.optimize import least_squares

PARAMETERS = 8  # of a Gabor function: position 2, widths 2, frequency 2, height and phase
MAX_EVALUATIONS = 40  # of a fit
RIDGE = 1e-9 * np.eye(2)
GRID = 32  # frequencies along an axis


@dataclass(frozen=True)
class GaborFit:
    """A fit to a filter (h, w). angle: of the stripes, degrees from horizontal, anticlockwise."""

    r2: float
    angle: float
    frequency: float  # cycles per pixel
    fitted: np.ndarray


def fit_gabor(target: np.ndarray) -> GaborFit:
    """Return the better fit from a narrow and a wide start at the filter's strongest frequency.

    Jones & Palmer 1987, J. Neurophysiol. 58(6), p. 1235, eq. 1, with the envelope along the wave.
    Height and phase are linear: they are solved for at every step. Frequencies stay below .5 cycles
    per pixel and widths above .5 pixels, because pixels hold no more.
    """
    height, width = target.shape
    y, x = np.mgrid[:height, :width] - np.reshape([(height - 1) / 2, (width - 1) / 2], (2, 1, 1))
    wanted = target.ravel()

    def evaluate(p: np.ndarray) -> np.ndarray:
        dx, dy = x - width / 2 * np.tanh(p[0]), y - height / 2 * np.tanh(p[1])
        fx, fy = 0.5 * np.tanh(p[4:])
        along, across = 0.5 + np.exp(p[2:4].clip(-9, 9))
        u, v = (fx * dx + fy * dy), (fx * dy - fy * dx)
        f = max(np.hypot(fx, fy), 1e-9)
        envelope = np.exp(-((u / (f * along)) ** 2 + (v / (f * across)) ** 2) / 2)
        cosine, sine = envelope * np.cos(2 * np.pi * u), envelope * np.sin(2 * np.pi * u)
        waves = np.stack([cosine, sine]).reshape(2, -1)
        # least squares of two numbers: the ridge keeps it solvable where the sine is 0 everywhere
        return np.asarray(np.linalg.solve(waves @ waves.T + RIDGE, waves @ wanted) @ waves)

    power = np.abs(np.fft.fft2(target - target.mean(), (GRID, GRID)))
    fy, fx = (np.fft.fftfreq(GRID)[i] for i in np.unravel_index(power.argmax(), power.shape))
    energy = target**2 / (target**2).sum()
    middle = 2 * (energy * x).sum() / width, 2 * (energy * y).sum() / height
    place = np.arctanh(np.clip([*middle, 2 * fx, 2 * fy], -0.99, 0.99))
    starts = [np.insert(place, 2, np.log([width * share] * 2)) for share in (0.15, 0.35)]
    fits = [
        least_squares(lambda p: evaluate(p) - wanted, start, method="lm", max_nfev=MAX_EVALUATIONS)
        for start in starts
    ]
    best = min(fits, key=lambda fit: fit.cost).x
    fitted = evaluate(best)
    left = ((fitted - wanted) ** 2).sum() / ((wanted - wanted.mean()) ** 2).sum()
    fx, fy = 0.5 * np.tanh(best[4:])
    angle = np.degrees(np.arctan2(fx, fy)) % 180  # rows run downwards
    return GaborFit(
        1 - float(left), float(angle), float(np.hypot(fx, fy)), fitted.reshape(target.shape)
    )


def strongest_component(weight: np.ndarray) -> np.ndarray:
    """Return patterns (N, h, w) of filters (N, C, h, w), along the colour that varies most."""
    count, channels, *shape = weight.shape
    flat = weight.reshape(count, channels, -1)
    _, strength, patterns = np.linalg.svd(flat, full_matrices=False)
    return np.asarray(strength[:, :1] * patterns[:, 0]).reshape(count, *shape)
