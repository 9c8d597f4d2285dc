"""The map of features: neighbours by hand, and a network that separates the classes."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from subjects import LENET, Chain, built, classifier, digits, subject
from torch import nn

from pipeline.data import dataset
from pipeline.explain import embedding
from pipeline.explain.activations import penultimate_features
from pipeline.explain.image_grid import to_tensor


def test_neighbours_by_hand() -> None:
    """Two groups of six on a line: all five neighbours of each point are in its group.

    A single point of class 1 in the middle of group 0 is outvoted and changes no other: 11 of 12.
    """
    points = np.array([[0.0], [1], [2], [3], [4], [5], [100], [101], [102], [103], [104], [105]])
    classes = np.array([0] * 6 + [1] * 6)
    assert embedding.neighbour_accuracy(points, classes) == 1
    classes[2] = 1
    assert embedding.neighbour_accuracy(points, classes) == pytest.approx(11 / 12)
    # three and three: without itself each point is in the minority, and nobody may vote for
    # themselves
    assert embedding.neighbour_accuracy(points[:6], np.array([1, 1, 1, 0, 0, 0])) == 0


def test_the_penultimate_features_are_the_input_of_the_last_weights() -> None:
    """Of LeNet-5, F6's 84 values, because its output layer has no weights; of a head of two dense
    layers, the 7 values between them.
    """
    x = to_tensor(digits(32)[0][:40])
    net = built("lenet5", 32, **LENET)
    found = penultimate_features(net, x)
    assert found.shape == (40, 84)
    np.testing.assert_allclose(found, net.net.features((x - 100) * 0.02).numpy(), atol=1e-5)
    deep = Chain([nn.MaxPool2d(4)], 64)
    deep.head = nn.Sequential(nn.Linear(64, 7), nn.ReLU(), nn.Linear(7, 2))
    assert penultimate_features(classifier(deep), x).shape == (40, 7)


def test_the_section_repeats(tmp_path: Path, images_of: Callable[..., dataset.Data]) -> None:
    net = built("lenet5", 32, **LENET)
    given = subject(tmp_path, net, images_of(*digits(32)))
    first, second = embedding.make_section(given), embedding.make_section(given)
    assert first.facts == second.facts
    assert first.facts["points"] == 60
    assert 0.5 < first.facts["trustworthiness"] <= 1


@pytest.mark.parametrize(("count", "drawn"), [(10, False), (11, True)])
def test_ten_images_are_too_few_for_a_map(
    tmp_path: Path, images_of: Callable[..., dataset.Data], count: int, drawn: bool
) -> None:
    """Trustworthiness with five neighbours is defined from eleven images on."""
    images, classes = digits(32)
    source = images_of(images[: 3 * count], classes[: 3 * count])  # thirds are the splits
    given = subject(tmp_path, built("lenet5", 32, **LENET), source)
    assert (embedding.make_section(given) is not None) == drawn
