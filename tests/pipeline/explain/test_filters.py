"""Filters: synthetic Gabor functions, known codes, silent units and known spectra."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from subjects import Chain, classifier, digits, subject
from torch import nn

from pipeline.data import dataset
from pipeline.explain import filters
from pipeline.explain.gabor import fit_gabor, strongest_component
from pipeline.explain.sparse_coding import absolute_cosines, learn_sparse_code, whiten


def gabor_filter(
    angle: float, frequency: float = 0.2, phase: float = 0.7, side: int = 11
) -> np.ndarray:
    """Return a Gabor function whose stripes run at `angle` degrees, anticlockwise from horizontal,
    by its formula.
    """
    down, right = np.mgrid[:side, :side] - side // 2
    along = right * np.sin(np.radians(angle)) + down * np.cos(
        np.radians(angle)
    )  # across the stripes
    across = right * np.cos(np.radians(angle)) - down * np.sin(np.radians(angle))
    return np.exp(-(along**2) / (2 * 2.0**2) - across**2 / (2 * 3.0**2)) * np.cos(
        2 * np.pi * frequency * along + phase
    )


@pytest.mark.parametrize("angle", [0, 20, 45, 90, 135, 160])
def test_a_gabor_function_is_fitted(angle: float) -> None:
    rng = np.random.default_rng(angle)
    clean, noise = gabor_filter(angle), rng.standard_normal((11, 11))
    fit = fit_gabor(clean + 0.02 * noise)
    assert abs((fit.angle - angle + 90) % 180 - 90) < 2  # degrees, 180 is 0
    assert fit.frequency == pytest.approx(0.2, abs=0.01)
    assert fit.r2 > 0.97
    assert fit_gabor(noise).r2 < 0.6


def test_angles_of_stripes() -> None:
    """Rows of one sign are stripes at 0 degrees, columns at 90; a slash, / in a picture, is 45."""
    rows = np.cos(np.arange(9) * np.pi / 2)[:, None] * np.ones(9)
    assert fit_gabor(rows).angle % 180 == pytest.approx(0, abs=1) or fit_gabor(
        rows
    ).angle == pytest.approx(180, abs=1)
    assert fit_gabor(rows.T).angle == pytest.approx(90, abs=1)
    down, right = np.mgrid[:9, :9]
    assert fit_gabor(np.cos((right + down) * np.pi / 3)).angle == pytest.approx(45, abs=3)


def test_the_strongest_component_of_a_coloured_filter() -> None:
    """Pattern times colour is one component, whose pattern is returned up to its sign."""
    pattern, colour = gabor_filter(30), np.array([0.6, 0.0, -0.8])
    (found,) = strongest_component((colour[:, None, None] * pattern)[None])
    np.testing.assert_allclose(np.abs(found), np.abs(pattern), atol=1e-9)


def test_a_sparse_code_finds_the_pictures_that_patches_are_made_of() -> None:
    """Patches are sums of a few of 6 known orthogonal pictures; each is an atom, up to its sign."""
    rng = np.random.default_rng(0)
    pictures = np.linalg.qr(rng.standard_normal((16, 6)))[0].T
    amounts = rng.laplace(size=(3000, 6)) * (rng.random((3000, 6)) < 0.2)
    cut = amounts @ pictures + 1e-3 * rng.standard_normal((3000, 16))
    alike = absolute_cosines(pictures, learn_sparse_code(cut, 0)).max(1)
    assert (alike > 0.95).all(), alike
    assert np.median(absolute_cosines(rng.standard_normal((200, 16)), pictures).max(1)) < 0.6


def test_whitened_patches_have_equal_power() -> None:
    rng = np.random.default_rng(0)
    cut = rng.standard_normal((4000, 3)) * [3.0, 2.0, 1.0]
    np.testing.assert_allclose(np.cov(whiten(cut, damping=0).T), np.eye(3), atol=1e-9)


def test_units_that_never_fire_are_counted() -> None:
    """Of four units one has a bias of minus a million and one weights of 0: both are constant
    everywhere.
    """
    conv = nn.Conv2d(1, 4, 3, padding=1)
    conv.bias.data = torch.tensor([0.0, -1e6, 0.3, 0.0])
    conv.weight.data[2] = 0
    conv.weight.data[3] = torch.eye(3) / 3
    conv.bias.data[3] = 10.0  # fires everywhere
    net = classifier(Chain([conv, nn.ReLU()], 4 * 64, 10))
    (found,) = filters.measure_firing(net, digits(8)[0][:50])
    assert found.silent.tolist() == [False, True, True, False]
    assert found.share[1:].tolist() == [0.0, 1.0, 1.0]
    assert 0 < found.share[0] < 1


def test_the_energy_of_smooth_and_rough_filters() -> None:
    """A mean filter has only low frequencies, a chessboard only high ones; a single pixel is white:
    1 - pi / 16 = .80.
    """
    chess = np.indices((8, 8)).sum(0) % 2 * 2.0 - 1
    pixel = np.zeros((8, 8))
    pixel[3, 3] = 1
    smooth, rough, white = filters.high_frequency_share(
        np.stack([np.ones((8, 8)), chess, pixel])[:, None]
    )
    assert smooth < 0.1 and rough > 0.95
    assert white == pytest.approx(1 - np.pi / 16, abs=0.02)


@pytest.mark.parametrize(("kernel", "pictures"), [(3, 4), (5, 6)])
def test_the_section_explains_a_missing_gabor_fit(
    kernel: int, pictures: int, tmp_path: Path, images_of: Callable[..., dataset.Data]
) -> None:
    """A 3 x 3 filter gets no Gabor function, and the caption says why."""
    torch.manual_seed(0)
    net = classifier(Chain([nn.Conv2d(1, 6, kernel), nn.ReLU()], 6 * (17 - kernel) ** 2, 10))
    found = filters.make_section(subject(tmp_path, net, images_of(*digits(16))))
    assert len(found.pictures) == pictures
    assert all(
        (tmp_path / "explain" / shown.picture.file).stat().st_size > 500 for shown in found.pictures
    )
    assert ("8 numbers" in found.pictures[0].caption) == (kernel == 3)
    assert found.facts["silent"] == {"units": 6, "silent": 0, "images": 40}
    assert found.facts["sparse_code"]["random"] > 0.3


def test_a_network_without_convolution_has_no_filters(
    tmp_path: Path, images_of: Callable[..., dataset.Data]
) -> None:
    net = classifier(Chain([nn.Flatten(), nn.Linear(64, 5)], 5, 10))
    assert filters.make_section(subject(tmp_path, net, images_of(*digits(8)))) is None
