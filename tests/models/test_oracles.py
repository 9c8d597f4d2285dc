"""Convolution and pooling as the lecture notes compute them by hand, with torch's operations.

Each test shows where its number comes from; test_oracles_networks.py is the second part. Where one
of our networks has the operation, the network computes it; otherwise the operation of torch that
our networks use does.
"""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import models
from models import causal, lenet5, summary

OWL = [  # the lecture notes' 6 x 6 picture of an owl; two of the slides print 175 as the last pixel
    [255, 220, 150, 200, 110, 100],
    [240, 50, 35, 45, 200, 130],
    [0, 20, 245, 250, 230, 120],
    [170, 180, 235, 145, 170, 255],
    [190, 185, 170, 165, 130, 120],
    [255, 255, 245, 190, 200, 170],
]
OWL_FILTER = [[-0.7, 0.2, 0.1], [0.3, 0.5, 0.4], [-0.2, -0.4, 0.2]]
OWL_MAP = [  # rows of the valid convolution; the slide prints the transpose
    [32.5, -105.5, -44, -60.5],
    [-105.5, 104, 224, 213.5],
    [185.5, 217.5, 38.5, 52.5],
    [54, 31, -18, 36.5],
]


def image(rows):
    """Return rows of numbers as one grey image (1, 1, H, W)."""
    return torch.tensor(rows, dtype=torch.float32)[None, None]


def cnn1_with(kernel, size):
    """Return cnn1 for `size`, its first filter set to `kernel`, without bias."""
    net = models.build("cnn1", in_channels=1, size=size, classes=10).eval()
    nn.init.zeros_(net.features[0].bias)
    net.features[0].weight.data[0, 0] = torch.tensor(kernel)
    return net


def max_pool_of_cnn2():
    net = models.build("cnn2", in_channels=1, size=(28, 28), classes=10, dropout=0.3)
    return next(layer for layer in net.modules() if isinstance(layer, nn.MaxPool2d))


def test_convolution_of_the_owl():
    """First cell: -.7*255 + .2*220 + .1*150 + .3*240 + .5*50 + .4*35 - .2*0 - .4*20 + .2*245 =
    32.5, and so on.

    cnn1 pads, so the valid map is its interior.
    """
    same = cnn1_with(OWL_FILTER, (6, 6)).features[0](image(OWL))[0, 0]
    torch.testing.assert_close(same[1:-1, 1:-1], torch.tensor(OWL_MAP), rtol=1e-5, atol=1e-4)


def test_relu_then_max_pool():
    """Of each 2 x 2 window of the owl's map the largest, not below 0: 104 224 / 217.5 52.5 (the
    slide's is transposed).
    """
    relu = cnn1_with(OWL_FILTER, (6, 6)).features[1]
    pooled = max_pool_of_cnn2()(relu(image(OWL_MAP)))
    assert pooled[0, 0].tolist() == [[104, 224], [217.5, 52.5]]


CURVE_FILTER = [
    [0, 0, 0, 0, 0, 0, 30, 0],
    [0, 0, 0, 0, 30, 0, 0, 0],
    [0, 0, 0, 30, 0, 0, 0, 0],
    [0, 0, 0, 30, 0, 0, 0, 0],
    [0, 0, 0, 30, 0, 0, 0, 0],
    [0, 0, 0, 30, 0, 0, 0, 0],
    [0, 0, 0, 0, 0, 0, 0, 0],
]
CURVE = [
    [0, 0, 0, 0, 0, 0, 0, 30],
    [0, 0, 0, 0, 50, 50, 50, 0],
    [0, 0, 0, 20, 50, 0, 0, 0],
    [0, 0, 0, 50, 50, 0, 0, 0],
    [0, 0, 0, 50, 50, 0, 0, 0],
    [0, 0, 0, 50, 50, 0, 0, 0],
    [0, 0, 0, 50, 50, 0, 0, 0],
]
OTHER = [
    [0, 0, 0, 0, 0, 0, 0, 0],
    [0, 40, 0, 0, 0, 0, 0, 0],
    [40, 0, 40, 0, 0, 0, 0, 0],
    [40, 20, 0, 0, 0, 0, 0, 0],
    [0, 50, 0, 0, 0, 0, 0, 0],
    [0, 0, 50, 0, 0, 0, 0, 0],
    [25, 25, 0, 50, 0, 0, 0, 0],
]


@pytest.mark.parametrize(("patch", "answer"), [(CURVE, 6600), (OTHER, 0)], ids=["o03", "o04"])
def test_curve_detector(patch, answer):
    """The curve meets the filter in five pixels: 4 * (50 * 30) + 20 * 30 = 6600; the other patch in
    none.
    """
    assert F.conv2d(image(patch), image(CURVE_FILTER)).item() == answer


def test_causal_convolution():
    """10, 20, 30 with kernel 1, 2: 1*0 + 2*10 = 20, 1*10 + 2*20 = 50, 1*20 + 2*30 = 80."""
    layer = causal.CausalConv1d(1, 1, kernel_size=2, bias=False)
    layer.weight.data[:] = torch.tensor([1.0, 2.0])
    assert layer(torch.tensor([[[10.0, 20.0, 30.0]]])).flatten().tolist() == [20, 50, 80]


@pytest.mark.parametrize(
    ("n", "f", "s", "p", "answer"),
    [
        (7, 3, 1, 0, 5),
        (7, 3, 2, 0, 3),
        (227, 11, 4, 0, 55),
        (224, 11, 4, 2, 55),
        (224, 11, 4, 0, 54),
    ],
)
def test_output_size(n, f, s, p, answer):
    """Floor((n - f + 2p) / s + 1); 224 without padding gives 54.25, so AlexNet takes 227, or
    224 padded.
    """
    assert math.floor((n - f + 2 * p) / s + 1) == answer
    assert nn.Conv2d(1, 1, f, stride=s, padding=p)(torch.zeros(1, 1, n, n)).shape == (
        1,
        1,
        answer,
        answer,
    )


@pytest.mark.parametrize(
    ("layers", "f", "field", "weights"), [(1, 7, 7, 49), (2, 3, 5, 18), (3, 3, 7, 27)]
)
def test_stacked_filters(layers, f, field, weights):
    """A stack of small filters sees as far as a large one, 1 + layers * (f - 1), with fewer
    weights.
    """
    stack = nn.Sequential(*[nn.Conv2d(1, 1, f, padding=f // 2, bias=False) for _ in range(layers)])
    for weight in stack.parameters():
        nn.init.ones_(weight)
    x = torch.zeros(1, 1, 15, 15, requires_grad=True)
    stack(x)[0, 0, 7, 7].backward()
    assert x.grad.count_nonzero() == field**2
    assert summary.trainable(stack) == weights


@pytest.mark.parametrize(
    ("kernel_size", "dilations", "back"),
    [(2, [1, 1, 1, 1], 4), (2, [1, 2, 4, 8], 15), (5, [1, 1, 1, 1], 16), (5, [1, 2, 4, 8], 60)],
)
def test_memory_of_causal_layers(kernel_size, dilations, back):
    """(k - 1) * sum(dilations) steps back; not 4^4 = 256, as the notebook has it."""
    options = {"series": 1, "horizon": 1, "channels": 2, "activation": "none"}
    net = models.build("causal", kernel_size=kernel_size, dilations=dilations, **options)
    for parameter in net.parameters():
        nn.init.ones_(parameter)
    x = torch.zeros(1, 80, 1, requires_grad=True)
    net(x).backward()
    assert net.receptive_field == 1 + back
    assert x.grad.flatten().nonzero().flatten().tolist() == list(range(79 - back, 80))


PADDED_CORE = [[1, 4, 2, 3], [6, 1, 1, 7], [1, 2, 1, 4], [1, 5, 1, 2]]
SYMMETRIC = [  # the lecture notes, "Padding"
    [1, 6, 6, 1, 1, 7, 7, 1],
    [4, 1, 1, 4, 2, 3, 3, 2],
    [4, 1, 1, 4, 2, 3, 3, 2],
    [1, 6, 6, 1, 1, 7, 7, 1],
    [2, 1, 1, 2, 1, 4, 4, 1],
    [5, 1, 1, 5, 1, 2, 2, 1],
    [5, 1, 1, 5, 1, 2, 2, 1],
    [2, 1, 1, 2, 1, 4, 4, 1],
]
CIRCULAR = [
    [1, 4, 1, 2, 1, 4, 1, 2],
    [1, 2, 1, 5, 1, 2, 1, 5],
    [2, 3, 1, 4, 2, 3, 1, 4],
    [1, 7, 6, 1, 1, 7, 6, 1],
    [1, 4, 1, 2, 1, 4, 1, 2],
    [1, 2, 1, 5, 1, 2, 1, 5],
    [2, 3, 1, 4, 2, 3, 1, 4],
    [1, 7, 6, 1, 1, 7, 6, 1],
]


def test_circular_padding():
    """The notes' grid; torch's `circular` is numpy's `wrap`."""
    assert F.pad(image(PADDED_CORE), (2, 2, 2, 2), mode="circular")[0, 0].tolist() == CIRCULAR
    assert np.pad(PADDED_CORE, 2, "wrap").tolist() == CIRCULAR


def test_symmetric_padding():
    """The notes' grid; torch has no such mode (`reflect` leaves the edge out), two flips and
    slices make it.
    """
    x = image(PADDED_CORE)
    for axis in (2, 3):
        mirror = x.flip(axis)
        x = torch.cat([mirror.narrow(axis, 2, 2), x, mirror.narrow(axis, 0, 2)], dim=axis)
    assert x[0, 0].tolist() == SYMMETRIC
    assert np.pad(PADDED_CORE, 2, "symmetric").tolist() == SYMMETRIC


def test_translation_equivariance():
    """Shift then convolve = convolve then shift: everywhere on a ring, with zero padding away from
    the border.
    """
    torch.manual_seed(0)
    x = torch.randn(1, 1, 12, 12, dtype=torch.float64)
    shifted = x.roll((2, 3), dims=(2, 3))
    ring = nn.Conv2d(1, 4, 3, padding=1, padding_mode="circular", dtype=torch.float64)
    torch.testing.assert_close(
        ring(shifted), ring(x).roll((2, 3), dims=(2, 3)), rtol=1e-12, atol=1e-12
    )
    zero = models.build("cnn1", in_channels=1, size=(12, 12), classes=10).double().features[0]
    moved, there = zero(shifted)[..., 3:-1, 4:-1], zero(x)[..., 1:-3, 1:-4]
    torch.testing.assert_close(moved, there, rtol=1e-12, atol=1e-12)


def test_filters_cover_the_depth():
    """The lecture notes: six 5 x 5 filters on 32 x 32 x 3 are 5x5x3 each and give six maps of 28 x
    28; the next are 5x5x6.
    """
    first, second = nn.Conv2d(3, 6, 5), nn.Conv2d(6, 10, 5)
    assert first.weight.shape == (6, 3, 5, 5) and second.weight.shape == (10, 6, 5, 5)
    assert first(torch.zeros(1, 3, 32, 32)).shape == (1, 6, 28, 28)
    assert second(first(torch.zeros(1, 3, 32, 32))).shape == (1, 10, 24, 24)


@pytest.mark.parametrize("f", [3, 5])
def test_valid_and_same_padding(f):
    """Valid: n - f + 1. Same: n, as in cnn1."""
    x = torch.zeros(1, 1, 12, 12)
    sides = {
        padding: nn.Conv2d(1, 1, f, padding=padding)(x).shape[-1] for padding in ("valid", "same")
    }
    assert sides == {"valid": 12 - f + 1, "same": 12}


def test_one_by_one_convolution():
    """A 1 x 1 convolution is the same matrix at every pixel: einsum; the forecaster's Dense(1) is
    one.
    """
    torch.manual_seed(0)
    net, x = (
        models.build("causal", **models.references("causal")["causal plain"]["options"]),
        torch.randn(2, 32, 9),
    )
    expected = torch.einsum("dc,nct->ndt", net.head.weight[:, :, 0], x) + net.head.bias[:, None]
    torch.testing.assert_close(net.head(x), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("rows", "answer"),
    [
        (
            [[12, 20, 30, 0], [8, 12, 2, 0], [34, 70, 37, 4], [112, 100, 25, 12]],
            [[20, 30], [112, 37]],
        ),
        ([[1, 1, 2, 4], [5, 6, 7, 8], [3, 2, 1, 0], [1, 2, 3, 4]], [[6, 8], [3, 4]]),
    ],
    ids=["o07", "o08"],
)
def test_max_pool(rows, answer):
    """The largest of each 2 x 2 window: the lecture notes' example from CS231n, and
    CS231n's figure, whose input the notes lack.
    """
    assert max_pool_of_cnn2()(image(rows))[0, 0].tolist() == answer


def test_mean_pool():
    """The mean of each window; (12 + 20 + 8 + 12) / 4 = 13 and so on."""
    pool = lenet5.SUBSAMPLING["average"](1)
    rows = [[12, 20, 30, 0], [8, 12, 2, 0], [34, 70, 37, 4], [112, 100, 25, 12]]
    assert pool(image(rows))[0, 0].tolist() == [[13, 8], [79, 19.5]]


def test_overlapping_pool():
    """AlexNet's 3 x 3 windows two pixels apart share a row and a column: 5 -> 2 pixels, here of 0
    ... 24.
    """
    rows = np.arange(25.0).reshape(5, 5)
    expected = [[rows[i : i + 3, j : j + 3].max() for j in (0, 2)] for i in (0, 2)]
    assert F.max_pool2d(image(rows), 3, stride=2)[0, 0].tolist() == expected == [[12, 14], [22, 24]]
