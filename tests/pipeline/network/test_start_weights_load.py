"""A captioner's features are a detector's, a detector's a classifier's; the rest is its own."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

import models
from pipeline.core.errors import StageError
from pipeline.network.pretrained import Base, load_start_weights
from pipeline.params.schema import ResolvedTrain, Training, Weights

SIZE = {"in_channels": 3, "size": (64, 64)}
ON_ZOO = {"classes": 3, "backbone": "zoo", "stride": 8}
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


def test_a_detector_of_other_classes_is_an_error_with_its_cure() -> None:
    finder = models.build("fasterrcnn", **SIZE, classes=3)
    state = {f"net.{name}": weight for name, weight in finder.state_dict().items()}
    teller = models.build("captioner", **SIZE, words=12, longest=5)
    with pytest.raises(StageError, match=r"set net\.kinds to the detector's number of classes$"):
        load_start_weights(SimpleNamespace(net=teller), RECIPE, [], Base(state, []))
    teller = models.build("captioner", **SIZE, words=12, longest=5, kinds=3)
    load_start_weights(SimpleNamespace(net=teller), RECIPE, [], Base(state, []))


@pytest.mark.parametrize("prefix", ["", "net."], ids=["as published", "of an entry"])
def test_a_detectors_features_are_a_classifiers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, prefix: str
) -> None:
    """Published weights in a file, or another entry's; the layers beyond the cut are left out."""
    torch.manual_seed(0)
    finder = models.build("fasterrcnn", **SIZE, **ON_ZOO)
    known = models.build("zoo", **SIZE, classes=7).net.state_dict()
    before = {name: weight.clone() for name, weight in finder.state_dict().items()}
    start_from(finder, known, prefix, tmp_path, monkeypatch)
    for name, weight in finder.state_dict().items():
        assert torch.equal(weight, known.get(name, before[name])), name
    assert not torch.equal(before["features.0.weight"], known["features.0.weight"])


@pytest.mark.parametrize("prefix", ["", "net."], ids=["as published", "of an entry"])
def test_weights_of_another_classifier_are_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, prefix: str
) -> None:
    finder = models.build("fasterrcnn", **SIZE, **ON_ZOO)
    known = models.build("zoo", **SIZE, classes=7, name="alexnet").net.state_dict()
    with pytest.raises(
        StageError, match=r"fit models/fasterrcnn\.py: missing features\.3\.squeeze"
    ):
        start_from(finder, known, prefix, tmp_path, monkeypatch)


def test_published_weights_of_a_detector_are_taken_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    finder, other = (models.build("fasterrcnn", **SIZE, classes=3) for _ in range(2))
    start_from(finder, other.state_dict(), "", tmp_path, monkeypatch)
    for name, weight in finder.state_dict().items():
        assert torch.equal(weight, other.state_dict()[name]), name


def start_from(
    finder: torch.nn.Module,
    known: dict[str, torch.Tensor],
    prefix: str,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Load weights by `needs:` where names have a prefix, else by `weights:` from a file."""
    recipe = RECIPE.model_copy(update={"arch": "fasterrcnn"})
    base = Base({f"net.{prefix}{name}": weight for name, weight in known.items()}, [])
    if not prefix:
        torch.save(known, folder / "known.pth")
        monkeypatch.setenv("TORCH_HOME", str(folder))
        weights = Weights(file="known.pth", licence="BSD")
        recipe = recipe.model_copy(update={"needs": None, "weights": weights})
    load_start_weights(SimpleNamespace(net=finder), recipe, [], base)
