"""models/lenet5.py: each layer of the paper against its formula."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import models
from models import lenet5


def test_squash_maps_one_to_one():
    """LeCun et al. 1998, appendix A: f(1) = 1 and f(-1) = -1 by the choice of 1.7159 and 2 / 3."""
    assert lenet5.Squash()(torch.tensor([1.0, -1.0, 0.0])).tolist() == pytest.approx(
        [1, -1, 0], rel=1e-4
    )


def test_subsample_formula():
    """Coefficient times the sum of the four, plus bias: numpy."""
    layer, x = lenet5.Subsample(3), torch.randn(2, 3, 4, 6)
    nn.init.normal_(layer.coefficient), nn.init.normal_(layer.bias)
    four = x.numpy().reshape(2, 3, 2, 2, 3, 2).sum((3, 5))
    expected = layer.coefficient.detach().numpy() * four + layer.bias.detach().numpy()
    np.testing.assert_allclose(layer(x).detach().numpy(), expected, rtol=1e-5, atol=1e-6)


def test_sparse_c3_adds_connected_maps_only():
    """Every map of C3 is its bias plus one convolution for each connected map of S2."""
    torch.manual_seed(0)
    layer, x = lenet5.SparseC3(), torch.randn(2, 6, 9, 8)
    expected = layer.bias.view(1, 16, 1, 1).repeat(2, 1, 5, 4)
    for kernel, (out_map, in_map) in zip(layer.weight, lenet5.connections(), strict=True):
        expected[:, out_map] += F.conv2d(x[:, in_map : in_map + 1], kernel.view(1, 1, 5, 5))[:, 0]
    torch.testing.assert_close(layer(x), expected, rtol=1e-5, atol=1e-5)
    assert set(layer.state_dict()) == {"weight", "bias"}


def test_sparse_c3_initial_range():
    """U(-1, 1) / sqrt(25 * inputs), so the map that sees six inputs starts within narrower bounds
    than one of three.
    """
    layer = lenet5.SparseC3()
    maps = torch.tensor([out_map for out_map, _ in lenet5.connections()])
    for out_map, inputs in ((0, 3), (6, 4), (15, 6)):
        bound = (25 * inputs) ** -0.5
        assert 0.9 * bound < layer.weight[maps == out_map].abs().max() <= bound
        assert layer.bias[out_map].abs() <= bound


def test_rbf_is_a_distance_to_the_codes():
    """LeCun et al. 1998, eq. 7, by numpy, times minus SCALE."""
    head, x = lenet5.Rbf(10), torch.randn(3, 84)
    distance = ((x.numpy()[:, None] - head.codes.numpy()) ** 2).sum(2)
    np.testing.assert_allclose(head(x).numpy(), -lenet5.Rbf.SCALE * distance, rtol=1e-5)


def test_rbf_probabilities_are_sane():
    """F6 on the code of a digit means this digit with more than .9; F6 = 0 is equally far from all:
    1 / 10 each.
    """
    head = lenet5.Rbf(10)
    on_code = head(1.7159 * head.codes).softmax(1)
    assert (on_code.diagonal() > 0.9).all()
    torch.testing.assert_close(
        head(torch.zeros(1, 84)).softmax(1), torch.full((1, 10), 0.1), rtol=1e-6, atol=0
    )


@pytest.mark.parametrize("classes", [2, 10, 26])
def test_class_codes(classes):
    """+1 and -1 only, the same in every process, and no two classes closer than 8 of 84 pixels."""
    codes = lenet5.class_codes(classes)
    assert codes.shape == (classes, 84) and (codes.abs() == 1).all()
    torch.manual_seed(99)
    assert torch.equal(codes, lenet5.class_codes(classes))
    pixels_apart = (codes[:, None] != codes).sum(2) + 84 * torch.eye(classes, dtype=torch.int64)
    assert pixels_apart.min() >= 8


def test_seven_is_drawn_as_a_seven():
    """The bitmaps are read class by class and row by row: 7 is a bar above a falling line, 8
    mirrors left to right.
    """
    codes = lenet5.class_codes(10).view(10, 12, 7)
    assert (codes[7, :2] == 1).all() and (codes[7, 2:4, :5] == -1).all()
    assert torch.equal(codes[8], codes[8].flip(1)) and torch.equal(
        codes[0], codes[0].flip(0).flip(1)
    )


@pytest.mark.parametrize("option", ["subsampling", "output"])
def test_lenet5_refuses_an_unknown_choice(option):
    options = models.references("lenet5")["LeNet-5"]["options"] | {option: "other"}
    with pytest.raises(
        ValueError, match=rf"lenet5: expected {option} \w+, \w+, got 'other'; choose one"
    ):
        models.build("lenet5", **options)
