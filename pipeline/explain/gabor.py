"""Gabor functions, waves under a bell, fitted to filters (V02): simple cells of a visual cortex are described so."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.optimize import least_squares

NUMBERS = 8  # of a Gabor function: place 2, widths 2, frequency 2, height and phase
MOST_STEPS = 40  # of a fit
RIDGE = 1e-9 * np.eye(2)
GRID = 32  # frequencies along an axis


@dataclass(frozen=True)
class Gabor:
    """A Gabor function fitted to a filter (h, w). angle: of its stripes, degrees from horizontal, anticlockwise."""

    r2: float
    angle: float
    frequency: float  # cycles per pixel
    fitted: np.ndarray


def fit_gabor(target: np.ndarray) -> Gabor:
    """Return the better fit of two starts, a narrow and a wide one at the filter's strongest frequency.

    Jones & Palmer 1987, J. Neurophysiol. 58(6), p. 1235, eq. 1, its envelope along the wave. Height and phase are
    linear, and solved for at every step; frequencies stay below .5, widths above .5 pixels: pixels tell no more.
    """
    height, width = target.shape
    y, x = np.mgrid[:height, :width] - np.array([(height - 1) / 2, (width - 1) / 2]).reshape(
        2, 1, 1
    )
    wanted = target.ravel()

    def fitted(p: np.ndarray) -> np.ndarray:
        (dx, dy), (fx, fy) = (
            (x - width / 2 * np.tanh(p[0]), y - height / 2 * np.tanh(p[1])),
            0.5 * np.tanh(p[4:]),
        )
        along, across = 0.5 + np.exp(p[2:4].clip(-9, 9))
        u, v = (fx * dx + fy * dy), (fx * dy - fy * dx)
        f = max(np.hypot(fx, fy), 1e-9)
        envelope = np.exp(-((u / (f * along)) ** 2 + (v / (f * across)) ** 2) / 2)
        waves = np.stack(
            [envelope * np.cos(2 * np.pi * u), envelope * np.sin(2 * np.pi * u)]
        ).reshape(2, -1)
        # least squares of two numbers: the ridge keeps it solvable where the sine is 0 everywhere
        return np.linalg.solve(waves @ waves.T + RIDGE, waves @ wanted) @ waves

    power = np.abs(np.fft.fft2(target - target.mean(), (GRID, GRID)))
    fy, fx = (np.fft.fftfreq(GRID)[i] for i in np.unravel_index(power.argmax(), power.shape))
    energy = target**2 / (target**2).sum()
    middle = 2 * (energy * x).sum() / width, 2 * (energy * y).sum() / height
    place = np.arctanh(np.clip([*middle, 2 * fx, 2 * fy], -0.99, 0.99))
    starts = [np.insert(place, 2, np.log([width * share] * 2)) for share in (0.15, 0.35)]
    fits = [
        least_squares(lambda p: fitted(p) - wanted, start, method="lm", max_nfev=MOST_STEPS)
        for start in starts
    ]
    best = min(fits, key=lambda fit: fit.cost).x
    left = ((fitted(best) - wanted) ** 2).sum() / ((wanted - wanted.mean()) ** 2).sum()
    fx, fy = 0.5 * np.tanh(best[4:])
    angle = np.degrees(np.arctan2(fx, fy)) % 180  # rows run downwards
    return Gabor(
        1 - float(left), float(angle), float(np.hypot(fx, fy)), fitted(best).reshape(target.shape)
    )


def main_component(weight: np.ndarray) -> np.ndarray:
    """Return filters (N, h, w): of those with colour (N, C, h, w) the pattern of the colour that varies most."""
    count, _, *shape = weight.shape
    _, strength, patterns = np.linalg.svd(
        weight.reshape(count, weight.shape[1], -1), full_matrices=False
    )
    return (strength[:, :1] * patterns[:, 0]).reshape(count, *shape)
