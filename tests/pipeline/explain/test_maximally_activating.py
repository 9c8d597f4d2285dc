"""Maximally activating patches: bright patches in known places, projections by hand, receptive
fields.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from captum.attr import NeuronDeconvolution
from subjects import CIFAR, Chain, built, classifier, digits, subject
from torch import nn

from pipeline.data import dataset
from pipeline.explain import maximally_activating, modified_relu
from pipeline.explain.activations import is_bounded
from pipeline.explain.image_grid import to_tensor
from pipeline.explain.maximally_activating import Peaks
from pipeline.explain.receptive_field import Field


def identity() -> tuple[nn.Module, nn.Conv2d]:
    """Return a network whose one filter returns its middle pixel."""
    conv = nn.Conv2d(1, 1, 3, bias=False)
    conv.weight.data.zero_()
    conv.weight.data[0, 0, 1, 1] = 1
    return classifier(Chain([conv, nn.ReLU()], 36)), conv


def test_bright_patches_are_found_in_order() -> None:
    """Image i of 12 has one bright pixel, at (1 + i % 6, 3), of brightness 100 + i: the nine
    brightest in order, each at its place on the map, one less for the border that the filter loses.
    """
    images = np.zeros((12, 8, 8, 1), np.uint8)
    for i, image in enumerate(images):
        image[1 + i % 6, 3] = 100 + i
    net, conv = identity()
    (own,) = maximally_activating.find_peaks(net, to_tensor(images), [conv])
    top = own.top_images()[:, 0]
    assert top.tolist() == [11, 10, 9, 8, 7, 6, 5, 4, 3]
    assert own.rows[top, 0].tolist() == [i % 6 for i in top]
    assert own.columns[top, 0].tolist() == [2] * 9
    tiles = images[top].repeat(4, 3).astype(float)
    patches = maximally_activating.crop_to_fields(
        tiles, (Field(0, 2, 1),) * 2, own.rows[top, 0], own.columns[top, 0]
    )
    assert patches.shape == (9, 3, 3, 4)
    assert patches[:, 1, 1, 0].tolist() == [
        100 + i for i in top
    ]  # in the middle of what the unit sees
    assert patches.sum() == 4 * sum(100 + i for i in top)


def test_patches_over_the_border_and_fields_beyond_the_image() -> None:
    tiles = np.arange(1.0, 17).reshape(1, 4, 4, 1).repeat(4, 3)
    corner = maximally_activating.crop_to_fields(
        tiles, (Field(-1, 1, 1), Field(-1, 1, 1)), np.array([0]), np.array([3])
    )
    assert corner[0, :, :, 0].tolist() == [[0, 0, 0], [3, 4, 0], [7, 8, 0]]
    rows = maximally_activating.crop_to_fields(
        tiles, (Field(0, 0, 2), Field(-9, 9, 1)), np.array([1]), np.array([0])
    )
    assert rows[0, :, :, 0].tolist() == [[9, 10, 11, 12]]  # the longer axis is shown whole
    assert maximally_activating.crop_to_fields(tiles, None, np.array([0]), np.array([0])) is tiles


def test_selective_units_come_first_and_dead_ones_not_at_all() -> None:
    """Unit 0 is constant, unit 1 rises evenly, unit 2 fires for nine images only."""
    values = np.stack([np.ones(40), np.arange(40.0), np.where(np.arange(40) < 9, 5.0, 0.0)], 1)
    zeros = np.zeros(values.shape, np.int64)
    own = Peaks(values, zeros, zeros)
    assert own.selective_units().tolist() == [2, 1]
    classes = np.where(np.arange(40) < 9, 0, np.arange(40) % 3)  # the last nine: three of each
    assert maximally_activating.purity(own, classes) == pytest.approx((9 / 9 + 3 / 9) / 2)


def test_the_expected_purity_of_random_images() -> None:
    """Of ten images nine are of one class; nine drawn ones have the tenth with probability .9: 8 /
    9, else 1.
    """
    classes = np.array([0] * 9 + [1])
    assert maximally_activating.chance_purity(classes, 0, draws=4000) == pytest.approx(
        0.9 * 8 / 9 + 0.1, abs=0.005
    )


def test_one_convolution_projected_by_hand() -> None:
    """ReLU passes the kept activation, the transposed filter puts its weights where the unit
    looked, and the network's own (x - 100) / 50 divides by 50.
    """
    conv = nn.Conv2d(1, 1, 2, bias=False)
    conv.weight.data = torch.tensor([[[[1.0, 2.0], [3.0, -4.0]]]])
    net = classifier(Chain([conv, relu := nn.ReLU()], 4))
    back = maximally_activating.project_back(
        net, torch.full((1, 1, 3, 3), 200.0), relu, np.array([[0], [1], [0]])
    )
    np.testing.assert_allclose(
        back[0, 0], np.array([[0, 0, 0], [1, 2, 0], [3, -4, 0]]) / 50, rtol=1e-6
    )


def test_relus_are_applied_to_the_projected_signal() -> None:
    """Two convolutions of 1 x 1: weights -1 then -1 on a bright image.

    The first ReLU is inactive, so the gradient is 0. The deconvnet looks at the signal that comes
    back: -1, which ReLU cuts to 0; with +1 it passes and gives -1 / 50.
    """
    for second, expected in ((-1.0, 0.0), (1.0, -1 / 50)):
        layers = [nn.Conv2d(1, 1, 1, bias=False), nn.ReLU(), nn.Conv2d(1, 1, 1, bias=False)]
        layers[0].weight.data.fill_(-1)
        layers[2].weight.data.fill_(second)
        net = classifier(Chain(layers, 1))
        back = maximally_activating.project_back(
            net, torch.full((1, 1, 1, 1), 200.0), layers[2], np.zeros((3, 1), int)
        )
        assert back.item() == pytest.approx(expected)


def test_a_saturated_relu6_is_projected() -> None:
    """ReLU6 is a ReLU and a cap in stage explain: weight 1 on (700 - 100) / 50 = 12 gives 6 and a
    gradient of 0.
    """
    layers = [nn.Conv2d(1, 1, 1, bias=False), nn.ReLU6()]
    layers[0].weight.data.fill_(1)
    net, x = classifier(Chain(layers, 1)), torch.full((1, 1, 1, 1), 700.0)
    modified_relu.replace_relus(net, x.permute(0, 2, 3, 1))
    assert is_bounded(net.net.features[1])
    back = maximally_activating.project_back(net, x, net.net.features[1], np.zeros((3, 1), int))
    assert back.item() == pytest.approx(1 / 50)


def test_projections_equal_captum() -> None:
    """captum's NeuronDeconvolution of the same unit, through skips, batch normalisation and
    strides.
    """
    net = built("resnet", 16, **CIFAR)
    x, stage = to_tensor(digits(16)[0][:3]), net.net.features.stage2
    back = maximally_activating.project_back(net, x, stage, np.array([[5] * 3, [2] * 3, [3] * 3]))

    class Logits(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = net

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.net.logits(x)

    with pytest.warns(UserWarning):  # it says that it sets hooks and a gradient
        expected = NeuronDeconvolution(Logits(), stage).attribute(x.clone(), (5, 2, 3))
    assert np.abs(back).max() > 1e-4
    np.testing.assert_allclose(back, expected.detach().numpy(), atol=1e-6)


def test_the_section_of_lenet5(tmp_path: Path, images_of: Callable[..., dataset.Data]) -> None:
    """C1, C3 and C5 see 5, 14 and 32 pixels (LeCun et al. 1998, figure 2)."""
    net = built("lenet5", 32, full_c3=False, subsampling="trainable", output="rbf")
    given = subject(tmp_path, net, images_of(*digits(32)))
    found = maximally_activating.make_section(given)
    assert [shown.picture.file for shown in found.pictures] == [
        "units.maps.png",
        "units.patches.png",
    ]
    assert {name: row["pixels"] for name, row in found.facts.items()} == {
        "c1": 5,
        "c3": 14,
        "c5": 32,
    }
    assert "5, c3 14, c5 32" in found.pictures[1].caption
    before = (tmp_path / "explain" / "units.patches.png").read_bytes()
    assert maximally_activating.make_section(given).facts == found.facts
    assert (tmp_path / "explain" / "units.patches.png").read_bytes() == before


def test_a_dense_network_has_no_maps(
    tmp_path: Path, images_of: Callable[..., dataset.Data]
) -> None:
    net = built("fcnn", 8, hidden=[5], dropout=0.0)
    assert maximally_activating.make_section(subject(tmp_path, net, images_of(*digits(8)))) is None
