"""A captioner's features are those of the detector that its recipe needs; the rest is its own."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

import models
from pipeline.core.errors import StageError
from pipeline.network.pretrained import Base, load_start_weights
from pipeline.params.schema import ResolvedTrain, Training

SIZE = {"in_channels": 3, "size": (64, 64)}
RECIPE = Training.model_construct(
    arch="captioner", net={}, needs="finder", head=None, train=ResolvedTrain(epochs=1)
)


def test_features_are_the_detectors_and_the_rest_is_kept() -> None:
    torch.manual_seed(0)
    finder = models.build("fasterrcnn", **SIZE, classes=10)
    teller = models.build("captioner", **SIZE, words=12, longest=5)
    before = {name: weight.clone() for name, weight in teller.state_dict().items()}
    state = {f"net.{name}": weight for name, weight in finder.state_dict().items()}
    started = models.start_weights("captioner", finder.state_dict())
    load_start_weights(SimpleNamespace(net=teller), RECIPE, [], Base(state, []))
    assert started
    for name, weight in teller.state_dict().items():
        assert torch.equal(weight, started.get(name, before[name])), name


def test_features_of_another_shape_are_an_error() -> None:
    finder = models.build("fasterrcnn", in_channels=1, size=(64, 64), classes=10)
    teller = models.build("captioner", **SIZE, words=12, longest=5)
    state = {f"net.{name}": weight for name, weight in finder.state_dict().items()}
    with pytest.raises(StageError, match=r"the network of finder does not fit models/captioner"):
        load_start_weights(SimpleNamespace(net=teller), RECIPE, [], Base(state, []))
