"""models/farabet.py: the scales, what they share, and where a pixel of the image ends up."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import models
from models import farabet

SMALL = {"in_channels": 3, "size": (32, 32), "classes": 4, "maps": (4, 6, 8)}


def small(seed=0, **options):
    torch.manual_seed(seed)
    return farabet.Farabet(**SMALL | options).eval()


@pytest.mark.parametrize("bf16", [False, True])  # which leaves normalization in float32
@pytest.mark.parametrize("training", [False, True])  # by pools, by products
def test_local_normalization_against_its_formula(training, bf16):
    """Jarrett et al. 2009, section 2.1, with a square window cut at the border: numpy, by pixel."""
    x = torch.randn(1, 2, 20, 17) * torch.linspace(0, 3, 17)
    around = [
        [np.s_[max(i - 7, 0) : i + 8, max(j - 7, 0) : j + 8] for j in range(17)] for i in range(20)
    ]

    def mean(channel):
        return np.array([[channel[window].mean() for window in row] for row in around])

    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        normalized = farabet.LocalNormalization().train(training)(x)[0]
    for channel, got in zip(x[0].double().numpy(), normalized, strict=True):
        centred = channel - mean(channel)
        deviation = np.sqrt(mean(centred**2))
        expected = centred / np.maximum(deviation, deviation.mean())
        np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-4)


def test_pyramid_adds_up_to_the_image():
    """Burt & Adelson 1983: enlarged and added up, the scales of a Laplacian pyramid are the image."""
    x = torch.randn(2, 3, 32, 48)
    scales = small().pyramid(x)
    assert [scale.shape[2:] for scale in scales] == [(32, 48), (16, 24), (8, 12)]
    total = scales[-1]
    for scale in scales[-2::-1]:
        total = scale + farabet.enlarge(total, scale.shape[2:])
    torch.testing.assert_close(total, x, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("size", [(8, 12), (16, 24), (7, 30), (4, 3), (4, 6)])
def test_enlarging_in_training_is_that_of_evaluation(size):
    """Values and gradients, to twice and four times the size and to others; on the CPU, and as on a
    GPU. Maps of bf16, as a convolution gives them in mixed precision, are enlarged in float32.
    """
    maps = torch.randn(2, 3, 4, 6).bfloat16().float().requires_grad_()
    ways = (lambda *of: farabet.enlarge(*of, True), farabet.enlarge_by_products)
    expected = farabet.enlarge(maps, torch.Size(size))
    (gradient,) = torch.autograd.grad(expected.square().sum(), maps)
    for enlarge in ways:
        with torch.autocast("cpu", torch.bfloat16):
            y = enlarge(maps, torch.Size(size))
            mixed = enlarge(maps.bfloat16(), torch.Size(size))
        torch.testing.assert_close(y, expected, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(mixed, expected, rtol=1e-5, atol=1e-5)
        (found,) = torch.autograd.grad(y.square().sum(), maps)
        torch.testing.assert_close(found, gradient, rtol=1e-5, atol=1e-5)


def test_training_keeps_maps_channels_last():
    """Each layer is then fast, as `enlarge` is; a batch norm over all scales would undo it."""
    net = small(batch_norm=True, pools=1).train().to(memory_format=torch.channels_last)
    scales = [torch.randn(2, 3, side, side) for side in (32, 16, 8)]
    scales = [scale.contiguous(memory_format=torch.channels_last) for scale in scales]
    maps = [*net.describe(scales), farabet.enlarge(scales[1], torch.Size((32, 32)), True)]
    assert all(one.is_contiguous(memory_format=torch.channels_last) for one in maps)


@pytest.mark.parametrize("batch_norm", [False, True])
def test_scales_share_every_weight(batch_norm):
    """Three scales have the features of one, and each scale's map is theirs of that scale alone."""
    net, one = small(batch_norm=batch_norm), small(scales=1, batch_norm=batch_norm)
    assert {k: v.shape for k, v in net.features.state_dict().items()} == {
        k: v.shape for k, v in one.features.state_dict().items()
    }
    scales = net.pyramid(torch.randn(1, 3, 32, 32))
    for scale, maps in zip(scales, net.describe(scales), strict=True):
        torch.testing.assert_close(maps, net.features(scale), rtol=1e-6, atol=1e-6)


def test_batch_norm_sees_the_pixels_of_all_scales():
    """In training as in evaluation one mean and one variance hold for all scales: numpy."""
    net = small(batch_norm=True, maps=(4, 6), pools=1).train()
    net.features.norm1.momentum = 1.0
    scales = net.pyramid(torch.randn(2, 3, 32, 32))
    convolved = [net.features.conv1(scale).detach().transpose(0, 1).flatten(1) for scale in scales]
    pixels = torch.cat(convolved, 1).numpy()
    net.describe(scales)
    norm = net.features.norm1
    np.testing.assert_allclose(norm.running_mean, pixels.mean(1), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(norm.running_var, pixels.var(1, ddof=1), rtol=1e-4)
    maps = [net.features.conv1(scale) for scale in scales]
    mean, deviation = pixels.mean(1), np.sqrt(pixels.var(1) + norm.eps)
    for before, after in zip(maps, farabet.normalize_together(norm, maps), strict=True):
        expected = (before.detach().movedim(1, 3).numpy() - mean) / deviation
        np.testing.assert_allclose(after.detach().movedim(1, 3), expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(("pools", "field"), [(2, 46), (1, 44)])
def test_a_place_on_the_map_sees_as_far_as_the_papers(pools, field):
    """Section 3: fields of 46 x 46 pixels at each scale, found with an input that is not a number;
    without the second pool, 7 + 1 + 6 * 2 + 6 * 4.
    """
    net = small(pools=pools)
    x = torch.zeros(96, 3, 96, 96)
    x[torch.arange(96), :, 48, torch.arange(96)] = torch.nan
    maps = net.features(x)
    middle = maps.shape[2] // 2
    assert maps[:, :, middle, middle].isnan().all(1).sum() == field


@pytest.mark.parametrize("size", [(16, 16), (37, 51), (64, 40)])
@pytest.mark.parametrize(("pools", "scales"), [(2, 3), (1, 3), (0, 1)])
def test_logits_have_the_size_of_the_image(size, pools, scales):
    net = small(size=size, pools=pools, scales=scales)
    assert net(torch.randn(2, 3, *size)).shape == (2, 4, *size)


def test_a_mirrored_image_gives_mirrored_logits():
    """With mirrored kernels nothing but a scale that is not centred tells left from right."""
    net = small()
    for k in (1, 2, 3):
        weight = getattr(net.features, f"conv{k}").weight.data
        weight += weight.flip(3)
    x = torch.randn(2, 3, 32, 64)
    torch.testing.assert_close(net(x.flip(3)), net(x).flip(3), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("across", [0, 4])
def test_a_shifted_object_gives_shifted_logits(across):
    """On an even ground, by the pixels of one pixel of the coarsest map; logits far off stay."""
    net = small(maps=(4, 6), kernel_size=3, pools=1, scales=2)
    x = torch.zeros(1, 3, 128, 128)
    x[:, :, 60:68, 58:66] = torch.randn(3, 8, 8)
    moved = net(x.roll((4, across), (2, 3)))
    torch.testing.assert_close(
        moved[:, :, 32:96, 32:96],
        net(x).roll((4, across), (2, 3))[:, :, 32:96, 32:96],
        rtol=1e-4,
        atol=1e-5,
    )
    assert moved[:, :, 32:96, 32:96].std() > 0.01


def test_each_scale_reaches_the_logits():
    """Logits are the head's product with each scale's maps, enlarged: without two scales, the third
    one's alone.
    """
    net, x = small(), torch.randn(1, 3, 32, 32)
    weight, bias = net.head.dense2.weight.data, net.head.dense2.bias.data
    scales = [net.normalize(scale) for scale in net.pyramid(x)]
    total = bias.view(1, -1, 1, 1)
    for k, scale in enumerate(scales):
        maps = farabet.enlarge(net.features(scale), (8, 8))
        total = total + F.conv2d(maps, weight[:, 8 * k : 8 * (k + 1)])
    torch.testing.assert_close(net(x), farabet.enlarge(total, (32, 32)), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"maps": []}, r"expected maps, one number or more, got \[\]; "),
        ({"kernel_size": 4}, "expected kernel_size odd, got 4; "),
        (
            {"pools": 3},
            "expected pools of at most 2, one after each of maps but the last, got 3; ",
        ),
        ({"size": (32, 15)}, "expected at least 16 x 16 pixels, got 32 x 15; "),
        ({"activation": "gelu"}, "expected activation tanh, relu, got 'gelu'; "),
    ],
)
def test_farabet_refuses(change, sentence):
    with pytest.raises(ValueError, match=f"^farabet: {sentence}"):
        models.build("farabet", **SMALL | change)
