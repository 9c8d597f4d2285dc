"""Invariance: images moved by hand, and networks whose invariance is known."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from subjects import CIFAR, Chain, built, classifier, digits, subject
from torch import nn

from pipeline.data import dataset
from pipeline.explain import invariance
from pipeline.explain.image_grid import to_tensor
from pipeline.explain.invariance import IDENTITY, transform


def test_images_are_moved_as_the_names_say() -> None:
    """An odd image with one pixel right of the middle: shifted right by one of 9, rotated
    anticlockwise to the top, enlarged by 2 to twice the distance. A wide image is rotated without
    being squeezed.
    """
    image = torch.zeros(1, 1, 9, 9)
    image[0, 0, 4, 6] = 1
    assert torch.equal(transform(image, *IDENTITY).round(decimals=5), image)
    for change, place in (
        ((1.0, 0.0, 1 / 9), (4, 7)),
        ((1.0, np.pi / 2, 0.0), (2, 4)),
        ((2.0, 0.0, 0.0), (4, 8)),
    ):
        (found,) = (transform(image, *change)[0, 0] > 0.9).nonzero().tolist()
        assert tuple(found) == place
    wide = torch.zeros(1, 1, 5, 9)
    wide[0, 0, 2, 6] = 1
    assert (transform(wide, 1.0, np.pi / 2, 0.0)[0, 0] > 0.9).nonzero().tolist() == [[0, 4]]


def test_the_mean_of_a_map_is_invariant_to_shifts() -> None:
    """Pixels that move within a black border change the map as much as another image does, and
    their mean not at all.
    """
    images = np.zeros((10, 16, 16, 1), np.uint8)
    images[:, 6:10, 6:10] = np.random.default_rng(0).integers(60, 255, (10, 4, 4, 1))
    net = classifier(Chain([nn.Conv2d(1, 3, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1)], 3))
    found = invariance.relative_distances(
        net, to_tensor(images), invariance.find_layers(net, to_tensor(images))
    )["shift, % of the width"]
    assert found.shape == (2, 5)  # the convolution and the logits
    assert (found[:, 0] == 0).all()
    assert (found[0, 2:] > 0.7).all()  # 1, 2 and 4 pixels of 16
    assert found[1, 2:] == pytest.approx(0, abs=1e-4)


def test_the_section(tmp_path: Path, images_of: Callable[..., dataset.Data]) -> None:
    net = built("resnet", 16, **CIFAR)
    found = invariance.make_section(subject(tmp_path, net, images_of(*digits(16))))
    assert list(found.facts) == ["conv1", "stage1", "stage2", "stage3", "logits"]
    assert all(0 < value < 3 for row in found.facts.values() for value in row)
    assert "12 test images" in found.pictures[0].caption
