"""Captions name what their picture shows, and nothing else: subjects with fewer methods, layers
and units.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from subjects import Chain, built, classifier, digits, subject
from torch import nn

from pipeline.data import dataset
from pipeline.explain import (
    attribution,
    invariance,
    maximally_activating,
    receptive_field_maps,
    temporal_saliency,
    training_dynamics,
)
from pipeline.explain.attribution_methods import METHODS

Images = Callable[..., dataset.Data]


@pytest.mark.parametrize(
    "drawn", [["occlusion", "LIME"], ["gradient", "SmoothGrad"], ["gradient", "LIME"], [*METHODS]]
)
def test_attribution_names_the_methods_that_are_drawn(drawn: list[str]) -> None:
    """A forest has occlusion and LIME alone; a network without ReLUs no guided backpropagation."""
    signs = {"integrated gradients", "occlusion", "LIME"}
    maps = {name: np.array([0.5, -0.5 if name in signs else 0.0]) for name in drawn}
    text = attribution.describe_maps(maps, "score")
    named = {name for name in METHODS if f"{name}," in text or f"{name})" in text}
    assert named == {*drawn} and f"by {len(drawn)} methods" in text
    assert ("blue" in text) == bool(signs & {*drawn})
    assert ("log odds" in text) == bool({"occlusion", "LIME"} & {*drawn})
    assert "probability per grey level" in attribution.describe_maps(maps, "softmax") or (
        "gradient" not in drawn
    )


def test_every_method_has_a_unit() -> None:
    assert attribution.UNITS.keys() == METHODS.keys()


def test_a_network_of_one_dense_layer_is_named_once(tmp_path: Path, images_of: Images) -> None:
    net = built("fcnn", 8, hidden=[], dropout=0.0)
    [shown] = invariance.make_section(subject(tmp_path, net, images_of(*digits(8)))).pictures
    assert "For logits it is" in shown.caption and "rotation of 15 degrees" in shown.caption
    assert shown.caption.count("logits") == 1


def test_one_layer_is_no_first_and_last(tmp_path: Path, images_of: Images) -> None:
    """40 images, of which a unit shows nine; one layer with two filters, of up to seven."""
    torch.manual_seed(0)
    net = classifier(Chain([nn.Conv2d(1, 2, 3), nn.ReLU()], 2 * 36, 10))
    maps, patches = maximally_activating.make_section(
        subject(tmp_path, net, images_of(*digits(8)))
    ).pictures
    assert "of up to 7 units" in maps.caption and "in 1 layer of" in maps.caption
    assert "have one class; of 9 random images" in patches.caption
    assert maps.picture.kind == patches.picture.kind == "photograph"


def test_a_layer_that_sees_all_has_no_frame(tmp_path: Path, images_of: Images) -> None:
    """A global pool makes every pixel an input of each unit: no field, so no frame is drawn."""
    squeeze = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Upsample(scale_factor=4))
    net = classifier(Chain([squeeze, nn.Conv2d(1, 2, 3), nn.ReLU()], 2 * 4, 10))
    section = receptive_field_maps.make_section(subject(tmp_path, net, images_of(*digits(8))))
    assert section is not None
    [shown] = section.pictures
    assert "The frame" not in shown.caption and "all pixels" in shown.caption
    assert shown.picture.kind == "chart"


def test_a_dead_layer_has_no_row(tmp_path: Path, images_of: Images) -> None:
    """The second convolution gives 0 everywhere: the picture has the first one's unit alone."""
    torch.manual_seed(0)
    dead = nn.Conv2d(2, 2, 3)
    nn.init.zeros_(dead.weight), nn.init.zeros_(dead.bias)
    net = classifier(Chain([nn.Conv2d(1, 2, 3), nn.ReLU(), dead, nn.ReLU()], 2 * 16, 10))
    given = subject(tmp_path, net, images_of(*digits(8)))
    folder = tmp_path / "train" / "snapshots"
    folder.mkdir(parents=True)
    torch.save(net.state_dict(), folder / "epoch-001.pt")
    units = training_dynamics.make_section(given).pictures[1]
    assert units.caption.count("unit") == 1 and units.picture.height == 108


class Whole(nn.Module):
    """Forecasts the mean of the history, one step ahead: every step has influence."""

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        forecast = x.mean(1, keepdim=True)
        return forecast, forecast


class Last(nn.Module):
    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return x[:, -1:], x[:, -1:]


class Series:
    task = "forecasting"
    about = {"forecast": {"horizon": 1}}  # noqa: RUF012

    def served(self, split: str) -> np.ndarray:
        return np.random.default_rng(0).normal(size=(5, 6, 1))


@pytest.mark.parametrize(("net", "reach"), [(Whole(), None), (Last(), 1)])
def test_influence_beyond_the_history_is_not_mentioned(
    tmp_path: Path, net: nn.Module, reach: int | None
) -> None:
    section = temporal_saliency.make_section(subject(tmp_path, net, Series()))
    assert section is not None
    [shown] = section.pictures
    assert ("back have no influence" in shown.caption) == (reach is not None)
    assert "The last 1 step of the history has" in shown.caption
