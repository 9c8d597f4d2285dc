"""Attributions by hand: of a linear model, of one convolution, and of two segments."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from pipeline.explain import attribution_methods
from pipeline.explain.attribution_methods import (
    ExplainedModel,
    LogOdds,
    Scores,
    TorchPredictor,
    available_methods,
    compute_maps,
    fit_lime,
    integrate_gradients,
    segment,
)
from pipeline.network.modules import Classifier
from pipeline.params.schema import Explain

SETTINGS = Explain(steps=8, samples=4, perturbations=60)


def explained(net: nn.Module, layer: str | None = None, **settings: object) -> ExplainedModel:
    """Return a classifier of grey levels as they are: mean 0, scale 1."""
    whole = Classifier(net, torch.zeros(1, 1, 1), torch.ones(1, 1, 1)).eval().requires_grad_(False)
    changed = SETTINGS.updated(**settings)
    return ExplainedModel(
        Scores(whole, changed.of),
        LogOdds(TorchPredictor(whole)),
        layer,
        np.zeros(1, np.uint8),
        changed,
    )


@pytest.fixture
def linear() -> tuple[ExplainedModel, np.ndarray]:
    """Return two classes of 12 x 12 pixels, and the weights (2, 12, 12)."""
    torch.manual_seed(0)
    dense = nn.Linear(144, 2)
    nn.init.normal_(dense.weight, std=1e-3)
    return explained(nn.Sequential(nn.Flatten(), dense)), dense.weight.detach().numpy().reshape(
        2, 12, 12
    )


@pytest.fixture
def images() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (3, 12, 12, 1), np.uint8)


def test_a_linear_models_maps_are_its_weights(
    linear: tuple[ExplainedModel, np.ndarray], images: np.ndarray
) -> None:
    """Saliency and SmoothGrad are |w|, integrated gradients w * x with no gap, for any image."""
    p, w = linear
    target = np.array([0, 1, 1])
    assert available_methods(p) == [
        "gradient",
        "SmoothGrad",
        "integrated gradients",
        "occlusion",
        "LIME",
    ]  # no ReLU, no map
    for name in ("gradient", "SmoothGrad"):
        np.testing.assert_allclose(
            compute_maps(p, name, images, target), np.abs(w[target]), rtol=1e-5
        )
    parts, gaps = integrate_gradients(p, images, target)
    np.testing.assert_allclose(parts, w[target] * images[..., 0], rtol=1e-4, atol=1e-6)
    assert gaps.max() < 1e-4


def test_the_softmax_option_explains_the_probability(
    images: np.ndarray, linear: tuple[ExplainedModel, np.ndarray]
) -> None:
    """d p0 / dx = p0 p1 (w0 - w1)."""
    p, w = linear
    soft = replace(p, scores=Scores(p.scores.net, "softmax"))
    both = TorchPredictor(p.scores.net).predict_proba(images)
    expected = both.prod(1)[:, None, None] * np.abs(w[0] - w[1])
    np.testing.assert_allclose(
        compute_maps(soft, "gradient", images, np.zeros(3, int)), expected, rtol=1e-3
    )


def test_occlusion_is_the_fall_of_the_log_odds(
    linear: tuple[ExplainedModel, np.ndarray], images: np.ndarray
) -> None:
    """The log odds of two classes are (w0 - w1) x + b: a patch of grey 128 hides a sum, here in the
    corner.
    """
    p, w = linear
    fall = (w[0] - w[1])[:3, :3] * (images[0, :3, :3, 0] - 128.0)
    got = compute_maps(p, "occlusion", images[:1], np.array([0]))[0]
    assert got[0, 0] == pytest.approx(
        fall.sum(), rel=1e-3
    )  # patches of 3, in steps of 1: the corner is in one


def test_grad_cam_by_hand() -> None:
    """One convolution, weights 1 and -1: maps x and -x, their mean gradients 2 / 16 and 3 / 16, so
    relu(-x / 16) = 0; for the other class, 5 / 16 and 1 / 16: relu(4 x / 16).
    """
    conv = nn.Conv2d(1, 2, 1, bias=False)
    conv.weight.data = torch.tensor([1.0, -1.0]).reshape(2, 1, 1, 1)
    dense = nn.Linear(2, 2, bias=False)
    dense.weight.data = torch.tensor([[2.0, 3.0], [5.0, 1.0]])
    p = explained(nn.Sequential(conv, nn.AdaptiveAvgPool2d(1), nn.Flatten(), dense), "net.0")
    x = np.arange(16, dtype=np.uint8).reshape(1, 4, 4, 1)
    assert not compute_maps(p, "Grad-CAM", x, np.array([0])).any()
    np.testing.assert_allclose(
        compute_maps(p, "Grad-CAM", x, np.array([1]))[0], x[0, ..., 0] / 4, rtol=1e-5
    )


def test_guided_and_deconvolution_by_hand() -> None:
    """y0 = relu(x) - relu(-x): the gradient is 1 everywhere.

    Guided: the -1 into the second ReLU is stopped, so 1 where x > 0 and 0 where its ReLU is
    inactive. Deconvolution: the first ReLU passes 1 for any x.
    """
    conv = nn.Conv2d(1, 2, 1, bias=False)
    conv.weight.data = torch.tensor([1.0, -1.0]).reshape(2, 1, 1, 1)
    last = nn.Conv2d(2, 2, 1, bias=False)
    last.weight.data = torch.tensor([[1.0, -1.0], [0.0, 0.0]]).reshape(2, 2, 1, 1)
    net = Classifier(
        nn.Sequential(conv, nn.ReLU(), last, nn.AdaptiveAvgPool2d(1), nn.Flatten()),
        torch.full((1, 1, 1), 100.0),
        torch.full((1, 1, 1), 4.0),  # 1 / 4 for each pixel of the mean, times 4
    )
    p = replace(explained(nn.Identity()), scores=Scores(net.eval().requires_grad_(False), "score"))
    x = np.array([[120, 20], [200, 90]], np.uint8).reshape(1, 2, 2, 1)
    target = np.array([0])
    np.testing.assert_allclose(compute_maps(p, "gradient", x, target)[0], [[1, 1], [1, 1]])
    np.testing.assert_allclose(
        compute_maps(p, "guided backpropagation", x, target)[0], [[1, 0], [1, 0]]
    )
    np.testing.assert_allclose(compute_maps(p, "deconvolution", x, target)[0], [[1, 1], [1, 1]])


def test_lime_finds_the_weights_of_a_model_that_is_linear_in_its_segments(
    linear: tuple[ExplainedModel, np.ndarray],
) -> None:
    """The log odds are a sum over segments, so a linear model explains them fully, and its weights
    are those sums.
    """
    p, w = linear
    image = np.zeros((12, 12, 1), np.uint8)
    image[:, 6:] = 200
    places = segment(image)
    weights, explained = fit_lime(
        replace(p, settings=SETTINGS.updated(perturbations=400)), image, 0, places
    )
    sums = np.bincount(places.ravel(), ((w[0] - w[1]) * image[..., 0]).ravel())
    assert explained > 0.99 and np.corrcoef(weights, sums)[0, 1] > 0.99
    assert len(weights) == places.max() + 1 <= 20


def test_an_image_is_segmented_once(
    linear: tuple[ExplainedModel, np.ndarray], images: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    found: list[np.ndarray] = []

    def count(image: np.ndarray) -> np.ndarray:
        found.append(segment(image))
        return found[-1]

    monkeypatch.setattr(attribution_methods, "segment", count)
    compute_maps(linear[0], "LIME", images, np.array([0, 1, 1]))
    assert len(found) == len(images)


def test_segments_do_not_cross_a_strong_edge(images: np.ndarray) -> None:
    image = np.zeros((24, 24, 1), np.uint8)
    image[:, 12:] = 255
    places = segment(image)
    assert not set(places[:, :12].ravel()) & set(places[:, 12:].ravel()) and places.max() > 8


def test_maps_are_the_same_every_time_and_leave_the_generator_alone(
    linear: tuple[ExplainedModel, np.ndarray], images: np.ndarray
) -> None:
    p, target = linear[0], np.array([0, 1, 1])
    for name in ("SmoothGrad", "LIME"):
        torch.manual_seed(5)
        before = torch.random.get_rng_state()
        first = compute_maps(p, name, images, target)
        assert torch.equal(before, torch.random.get_rng_state())
        np.testing.assert_array_equal(first, compute_maps(p, name, images, target))
    other = compute_maps(replace(p, settings=SETTINGS.updated(seed=1)), "LIME", images, target)
    assert (other != compute_maps(p, "LIME", images, target)).any()


def test_log_odds_do_not_saturate() -> None:
    """The log odds of 1 - 1e-5 and 1 - 1e-4 are 2.3 apart, though both print as 1.00."""

    class Sure:
        def predict_proba(self, images: np.ndarray) -> np.ndarray:
            return np.float32([[1 - 1e-5, 1e-5], [1 - 1e-4, 1e-4], [1, 0]])

    got = LogOdds(Sure()).predict_proba(np.zeros((3, 1, 1, 1), np.uint8))[:, 0]
    np.testing.assert_allclose(got, [np.log(1e5), np.log(1e4), np.log(1e6)], atol=1e-3)
