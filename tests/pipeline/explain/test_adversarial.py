"""Adversarial attacks on networks that can be attacked by hand, and on a trained one whose ONNX
file is attacked too.
"""

from __future__ import annotations

import captum.robust
import numpy as np
import pytest
import torch
from torch import nn

from pipeline.explain import adversarial
from pipeline.explain.image_grid import round_levels, to_tensor, to_uint8
from pipeline.network.modules import Classifier

SIDE = 4


def linear(weight: torch.Tensor, bias: torch.Tensor) -> Classifier:
    """Return two classes whose scores are weight (2, 16) times the grey levels, plus bias."""
    dense = nn.Linear(SIDE * SIDE, 2)
    dense.weight.data, dense.bias.data = weight, bias
    return Classifier(
        nn.Sequential(nn.Flatten(), dense), torch.zeros(1, 1, 1), torch.ones(1, 1, 1)
    ).eval()


@pytest.fixture
def opposed() -> tuple[Classifier, torch.Tensor]:
    """Return a network whose margin towards class 1 is 2 w x, and w (16,), with no weight 0."""
    w = torch.randn(SIDE * SIDE, generator=torch.Generator().manual_seed(1))
    return linear(torch.stack([-w, w]), torch.zeros(2)), w


def middling(count: int) -> torch.Tensor:
    """Return whole grey levels (N, 1, 4, 4) from 100 to 149: no change by 32 leaves the range."""
    return torch.randint(
        100, 150, (count, 1, SIDE, SIDE), generator=torch.Generator().manual_seed(2)
    ).float()


@pytest.mark.parametrize("size", [1, 8, 32])
def test_an_fgsm_step_moves_a_linear_margin_by_its_size_times_the_weights(
    opposed: tuple[Classifier, torch.Tensor], size: int
) -> None:
    """The margin is d x with d = w_1 - w_0 = 2 w; a step along the signs of d adds size * ||d||_1."""
    net, w = opposed
    x, y = middling(5), torch.zeros(5, dtype=torch.int64)
    (moved,) = adversarial.fgsm(net, x, y, [size])
    gained = adversarial.margin(net.logits(moved), y) - adversarial.margin(net.logits(x), y)
    torch.testing.assert_close(
        gained, torch.full((5,), size * 2 * w.abs().sum().item()), rtol=1e-4, atol=1e-3
    )


def test_fgsm_equals_captum(opposed: tuple[Classifier, torch.Tensor]) -> None:
    """captum.robust.FGSM on the same loss; the gradients here are far above the 1e-6 that it
    ignores.
    """
    net, _ = opposed
    x, y = middling(3), torch.tensor([0, 1, 0])
    theirs = captum.robust.FGSM(net.logits, adversarial.margin, 0, 255).perturb(
        x.clone().requires_grad_(), 8, target=y
    )
    torch.testing.assert_close(adversarial.fgsm(net, x, y, [8])[0], theirs.detach(), rtol=0, atol=0)


def test_a_confident_network_is_attacked_too() -> None:
    """The cross-entropy of a network that is certain by 1e6 has no gradient in float32; the margin
    has.
    """
    w = torch.ones(SIDE * SIDE)
    net = linear(torch.stack([w, -w]) * 1e3, torch.zeros(2))
    x, y = middling(1), torch.tensor([0])
    z = x.clone().requires_grad_()
    assert not torch.autograd.grad(nn.functional.cross_entropy(net.logits(z), y), z)[0].any()
    assert (adversarial.fgsm(net, x, y, [1])[0] == x - 1).all()


def test_pgd_stays_within_its_width_and_the_range() -> None:
    """White and black pixels can only move inwards, all by whole levels, and each width contains
    the smaller one.
    """
    w = torch.randn(SIDE * SIDE, generator=torch.Generator().manual_seed(3)) * 1e-3
    net = linear(torch.stack([-w, w]), torch.tensor([1e3, -1e3]))  # never fooled
    x = torch.tensor([0.0, 255.0, 3.0, 128.0]).repeat(4).reshape(1, 1, SIDE, SIDE)
    widths = (0, 1, 4, 16)
    for width, moved in zip(
        widths, adversarial.pgd(net, x, torch.tensor([0]), widths), strict=True
    ):
        assert ((moved - x).abs().max() == width) and (moved == round_levels(moved)).all()
        assert moved.min() >= 0 and moved.max() <= 255


def test_pgd_does_not_change_an_image_that_fools_the_network() -> None:
    net = linear(torch.tensor([[-1.0], [1.0]]).repeat(1, 16), torch.zeros(2))  # always class 1
    x = middling(2)
    assert all(
        (moved == x).all() for moved in adversarial.pgd(net, x, torch.tensor([0, 0]), (0, 4))
    )


def test_the_smallest_change_of_a_linear_network_is_along_its_weights() -> None:
    """Margin d x + b: the nearest point of the boundary is |d x + b| / ||d|| away, along d.

    Rounding to whole levels and steps of a fifth in length make the change that is found up to a
    quarter longer.
    """
    w = torch.tensor([8.0, -6.0] * 8)
    x, y = middling(1), torch.tensor([0])
    bias = float(w @ x.flatten()) + 2000.0
    net = linear(torch.stack([-w / 2, w / 2]), torch.tensor([bias / 2, -bias / 2]))
    moved = adversarial.deepfool(net, x, y)
    change = (moved - x).flatten()
    least = 2000.0 / w.norm()
    assert net.logits(moved).argmax(1) == 1
    assert (change == change.round()).all()
    assert 1 <= change.norm() / least < 1.25
    assert torch.cosine_similarity(change, w, 0) > 0.99


def test_a_change_by_fractions_is_extended_until_it_fools_when_rounded() -> None:
    """A change of .2 at every pixel vanishes by rounding; 1.2 ** 6 times as long it is 1 level, and
    fools the network.
    """
    w = torch.ones(SIDE * SIDE)
    x, y = middling(1), torch.tensor([0])
    bias = float(w @ x.flatten()) + 1.0
    net = linear(torch.stack([-w / 2, w / 2]), torch.tensor([bias / 2, -bias / 2]))
    moved = adversarial.extend_change(net, x, y, torch.full_like(x, 0.2))
    assert (moved == x + 1).all()


def test_one_grey_level_amplified_is_0_to_254() -> None:
    """127 times around 127: -1, 0 and 1 become 0, 127, 254; a larger change is amplified less."""
    change = torch.tensor([[[-1.0, 0.0, 1.0]]])
    shown, factor = adversarial.enlarge_change(change)
    assert factor == 127 and shown.dtype == np.uint8
    np.testing.assert_array_equal(shown[:, :, 0], [[0, 127, 254]])
    shown, factor = adversarial.enlarge_change(change * 4)
    assert factor == 127 / 4
    np.testing.assert_array_equal(shown[:, :, 0], [[0, 127, 254]])


def test_normalised_pixels_convert_back_to_the_same_pixels() -> None:
    images = np.random.default_rng(0).integers(0, 256, (2, 3, 5, 3), np.uint8)
    np.testing.assert_array_equal(to_uint8(to_tensor(images)), images)
    assert to_tensor(images)[1, 2, 0, 4] == images[1, 0, 4, 2]
    np.testing.assert_array_equal(
        to_uint8(torch.tensor([-3.0, 0.4, 254.6, 300.0]).reshape(1, 1, 2, 2)).ravel(),
        [0, 0, 255, 255],
    )


def test_noise_is_changed_until_the_network_is_confident(
    opposed: tuple[Classifier, torch.Tensor],
) -> None:
    net, w = opposed
    y = torch.tensor([0, 1])
    x = torch.full((2, 1, SIDE, SIDE), 127.0)
    x = round_levels(
        x - (w @ x[0].flatten()) / w.square().sum() * w.reshape(1, 1, SIDE, SIDE)
    )  # near the boundary
    moved = adversarial.increase_confidence(net, x, y, steps=5, size=4)
    assert (net.logits(moved).softmax(1)[range(2), y] >= adversarial.CONFIDENT).all()
    assert ((moved - x).abs().amax((1, 2, 3)) <= 20).all()
