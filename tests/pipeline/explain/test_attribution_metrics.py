"""Measures of attributions, by hand, against Captum, and on a network trained here: guided
backpropagation fails as published.
"""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from captum.metrics import infidelity as captums
from test_attribution_methods import SETTINGS, explained
from torch import nn

from pipeline.core.errors import StageError
from pipeline.explain import attribution, attribution_metrics
from pipeline.explain.attribution_methods import (
    ExplainedModel,
    Scores,
    TorchPredictor,
    compute_maps,
)
from pipeline.train import loop


def one_pixel() -> ExplainedModel:
    """Return two classes that the first pixel alone decides, by .01 a grey level."""
    dense = nn.Linear(100, 2, bias=False)
    nn.init.zeros_(dense.weight)
    dense.weight.data[0, 0] = 0.01
    return explained(nn.Sequential(nn.Flatten(), dense))


def test_deletion_and_insertion_by_hand() -> None:
    """p = sigmoid(2) until the pixel is deleted, .5 after.

    A map that ranks it first loses it within 5 % of the pixels, one that ranks it last keeps it
    until the end; inserted, the other way round. The trapezoid rule between FRACTIONS.
    """
    p, image = one_pixel(), np.full((1, 10, 10, 1), 200, np.uint8)
    subject = SimpleNamespace(file=TorchPredictor(p.scores.net))
    best = np.zeros((1, 10, 10))
    best[0, 0, 0] = 1
    high = 1 / (1 + np.exp(-2.0))
    quick, slow = 0.05 * (high + 0.5) / 2 + 0.95 * 0.5, 0.5 * high + 0.5 * (high + 0.5) / 2
    rng, target = np.random.default_rng(0), np.array([0])
    ends = attribution_metrics.predict_ends(subject, p.baseline, image, target)
    assert (ends[0][0], ends[1][0]) == pytest.approx((high, 0.5))
    gone, come = attribution_metrics.deletion_insertion_areas(
        subject, p.baseline, image, target, best, ends, rng
    )
    assert (gone[0], come[0]) == pytest.approx(
        (quick, 0.05 * (0.5 + high) / 2 + 0.95 * high), rel=1e-5
    )
    gone, _ = attribution_metrics.deletion_insertion_areas(
        subject, p.baseline, image, target, -best, ends, rng
    )
    assert gone[0] == pytest.approx(slow, rel=1e-5)


def test_an_interval_of_equal_differences_is_a_point() -> None:
    rows = np.random.default_rng(0).integers(0, 4, (100, 4))
    assert attribution_metrics.bootstrap_interval(np.full(4, 0.25), rows) == [0.25] * 3
    mean, low, high = attribution_metrics.bootstrap_interval(np.array([0.0, 0.0, 0.0, 1.0]), rows)
    assert mean == 0.25 and low == 0.0 and 0.5 <= high <= 1


def test_the_exact_map_of_a_linear_model_has_infidelity_0() -> None:
    """The log odds are (w0 - w1) x: the map (w0 - w1) x explains every fall, its negative none."""
    torch.manual_seed(1)
    dense = nn.Linear(144, 2)
    nn.init.normal_(dense.weight, std=1e-3)
    p = explained(nn.Sequential(nn.Flatten(), dense))
    images = np.random.default_rng(1).integers(0, 256, (2, 12, 12, 1), np.uint8)
    w = dense.weight.detach().double().numpy().reshape(2, 12, 12)
    told = (w[0] - w[1]) * images[..., 0]
    patches, falls = attribution_metrics.occlude_at_random(
        p, images, np.zeros(2, int), np.random.default_rng(0)
    )
    assert attribution_metrics.infidelity(told, patches, falls) < 1e-6
    assert attribution_metrics.infidelity(-told, patches, falls) == pytest.approx(1)
    assert 0.1 < attribution_metrics.infidelity(np.abs(told), patches, falls) <= 1


def test_infidelity_equals_captum_over_the_falls() -> None:
    """The same patches through captum.metrics.infidelity with its best scale, divided by the mean
    squared fall.
    """
    torch.manual_seed(2)
    net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(400, 3))
    p = explained(net)
    images, target = (
        np.random.default_rng(2).integers(0, 256, (1, 12, 12, 1), np.uint8),
        np.array([1]),
    )
    patches, falls = attribution_metrics.occlude_at_random(
        p, images, target, np.random.default_rng(0)
    )
    told = patches.reshape(attribution_metrics.PATCHES, -1)
    values = np.abs(np.linalg.lstsq(told.astype(float), falls[0], rcond=None)[0]).reshape(1, 12, 12)

    def behind(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        mask = torch.from_numpy(patches[0][:, None]).float()
        return mask, x * (1 - mask)

    def log_odds(x: torch.Tensor) -> torch.Tensor:
        return torch.from_numpy(p.log_odds.predict_proba(x.permute(0, 2, 3, 1).byte().numpy()))[
            :, 1
        ]

    x = torch.from_numpy(images).permute(0, 3, 1, 2).float()
    maps = torch.from_numpy(values[:, None]).float()
    count = attribution_metrics.PATCHES
    theirs = float(captums(log_odds, behind, x, maps, n_perturb_samples=count, normalize=True))
    assert attribution_metrics.infidelity(values, patches, falls) == pytest.approx(
        theirs / (falls**2).mean(), rel=1e-3
    )


def test_edges_are_where_grey_levels_change() -> None:
    image = np.zeros((8, 8, 1), np.uint8)
    image[:, 4:] = 255
    found = attribution_metrics.sobel_magnitude(image)
    assert found[:, 3:5].min() > 0 and not found[:, :3].any() and not found[:, 5:].any()


def test_order_kept_is_a_rank_correlation() -> None:
    a = np.random.default_rng(0).random((2, 5, 5))
    assert attribution_metrics.mean_rank_correlation(a, np.exp(a)) == pytest.approx(
        1
    ) and attribution_metrics.mean_rank_correlation(a, -a) == pytest.approx(-1)
    assert (
        attribution_metrics.mean_rank_correlation(a, np.zeros_like(a)) == 0
    )  # a dead map has no order


def test_randomisation_starts_at_the_output() -> None:
    """Four layers with the head registered first, as in torchvision's Inception v3: it runs last,
    so it is randomised first.
    """

    class HeadFirst(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head, self.body = (
                nn.Linear(4, 4),
                nn.Sequential(*(nn.Linear(4, 4) for _ in range(3))),
            )

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.head(self.body(x.flatten(1)))

    net = explained(HeadFirst()).scores.net
    before = {name.removeprefix("net."): weight.clone() for name, weight in net.named_parameters()}
    every = {"head", "body.0", "body.1", "body.2"}
    for share, changed in ((0.0, {"head"}), (0.5, {"head", "body.2"}), (1.0, every)):
        other = attribution_metrics.randomise_last_layers(net, torch.ones(1, 1, 2, 2), share, 0).net
        found = {
            name for name, weight in other.named_parameters() if not weight.equal(before[name])
        }
        assert {name.rpartition(".")[0] for name in found} == changed
    assert all(weight.equal(before[name]) for name, weight in net.net.named_parameters())


def test_cells_cover_the_image_evenly() -> None:
    """75 pixels in 8 cells are 9 or 10 each; an image of 4 x 6 pixels has a cell for each pixel."""
    sizes = np.bincount(attribution_metrics.grid_cells(75, 75).ravel())
    assert len(sizes) == 64 and {*sizes} <= {81, 90, 100}
    assert np.array_equal(attribution_metrics.grid_cells(4, 6), np.arange(24).reshape(4, 6))


def test_agreement_of_two_seeds_by_hand() -> None:
    """Top fives {0..4} and {1..5}: 4 of 6 are shared."""
    one, other = np.array([9.0, 8, 7, 6, 5, 0, 0]), np.array([0.0, 8, 7, 6, 5, 9, 0])
    assert attribution_metrics.top_overlap(one, other) == pytest.approx(4 / 6)


class Score(nn.Module):
    """Scores of two classes, a function of the image's mean."""

    def __init__(self, of: Callable[[torch.Tensor], torch.Tensor]):
        super().__init__()
        self.of = of

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.of(images.mean((1, 2, 3)))[:, None].repeat(1, 2)


def test_integrated_gradients_take_the_steps_that_they_need() -> None:
    """A linear score needs no more than the first 12; tanh(mean - 40) on the way to about 130 needs
    them doubled.
    """
    images, target = (
        np.random.default_rng(0).integers(100, 160, (3, 4, 4, 1), np.uint8),
        np.zeros(3, np.int64),
    )

    def steps(of: Callable[[torch.Tensor], torch.Tensor]) -> tuple[int, float]:
        settings = SETTINGS.updated(steps=12)
        p, _, gap = attribution.integrate_to_completeness(
            ExplainedModel(Score(of), None, None, np.zeros(1), settings), images, target
        )
        return p.settings.steps, gap

    assert steps(lambda mean: 2 * mean) == (12, pytest.approx(0, abs=1e-6))
    taken, gap = steps(lambda mean: torch.tanh((mean - 40) / 4))
    assert taken in (24, 48) and gap <= attribution.SMALL_GAP
    for of in (lambda mean: mean.detach() + 0 * mean, lambda mean: mean * float("nan")):
        with pytest.raises(
            StageError, match=r"integrated gradients of 96 steps miss .*raise explain.steps"
        ):
            steps(of)


@pytest.mark.slow
def test_gradient_passes_the_randomisation_check_and_guided_backpropagation_fails_it(
    resolved: Callable[..., dict[str, Any]],
) -> None:
    """Adebayo et al.

    2018, on digits: the first layers alone determine the map of guided backpropagation.
    """
    from pipeline.data import prepare

    recipe = {"arch": "stack", "data": {"set": "digits", "size": [16, 16], "colour": "grey"}}
    recipe["net"] = {
        "channels": 16,
        "kernels": [3, 3, 3, 3],
        "activation": "relu",
        "padding": "zeros",
    }
    made = resolved(
        recipe | {"train": {"epochs": 3, "batch": 32, "lr": 0.003}},
        {"digits": {"source": "digits"}},
    )
    source = prepare.make(made.data)[0]
    net, _ = loop.fit(made, source, on=torch.device("cpu"), label="t")
    p = ExplainedModel(
        Scores(net.eval().requires_grad_(False), "score"),
        TorchPredictor(net),
        "net.features.10",
        np.zeros(1),
        SETTINGS,
    )
    images = np.asarray(source.x["test"][:4])
    target = p.log_odds.predict_proba(images).argmax(1)
    names = ("gradient", "guided backpropagation")
    found = {name: compute_maps(p, name, images, target) for name in names}
    kept = {
        name: float(np.mean(row))
        for name, row in attribution_metrics.randomise_cascade(p, images, target, found).items()
    }
    assert kept["gradient"] < attribution_metrics.MAX_KEPT < kept["guided backpropagation"], kept
