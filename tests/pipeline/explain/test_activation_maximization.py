"""Optimising images where the result is known: linear units, orthogonal layers, Gram matrices."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from pipeline.explain import (
    activation_maximization,
    feature_inversion,
    image_optimization,
    style_transfer,
)
from pipeline.explain.activations import capture_outputs, find_map_stages, short_name
from pipeline.explain.image_grid import to_tensor
from pipeline.network.modules import Classifier


def test_total_variation_by_hand() -> None:
    """[[0, 1, 3], [2, 2, 2], ...]: at the two places with both neighbours 1 + 4 and 4 + 1; the mean
    is 5.
    """
    u = torch.tensor([[0.0, 1.0, 3.0], [2.0, 2.0, 9.0]]).reshape(1, 1, 2, 3)
    assert image_optimization.total_variation(u).tolist() == [((1 + 4) + (4 + 1)) / 2]
    assert image_optimization.total_variation(torch.full((2, 3, 4, 4), 0.7)).tolist() == [0, 0]


def test_alpha_norm_by_hand() -> None:
    """The mean of 0, 1, 64 and 1 / 64."""
    u = torch.tensor([0.0, -1.0, 2.0, 0.5]).reshape(1, 1, 2, 2)
    assert image_optimization.alpha_norm(u).tolist() == [(0 + 1 + 64 + 1 / 64) / 4]


def test_a_linear_unit_under_an_l2_prior_is_maximised_by_its_weights() -> None:
    """w x - lambda ||u||^2 with x = 127.5 (1 + u) is largest at u = 127.5 w / (2 lambda)."""
    w = torch.randn(2, 1, 3, 3, generator=torch.Generator().manual_seed(0)) / 127.5
    method = activation_maximization.Method(
        torch.zeros(2, 1, 3, 3), prior=lambda u: 2 * u.square().sum((1, 2, 3))
    )
    (found,) = activation_maximization.maximise(lambda x: (w * x).sum((1, 2, 3)), [method], 300, 0)
    expected = (127.5 * (1 + 127.5 * w / 4)).clamp(0, 255)
    torch.testing.assert_close(found, expected, rtol=0, atol=0.6)  # whole grey levels


def test_images_of_a_batch_are_independent() -> None:
    w = torch.randn(3, 1, 4, 4, generator=torch.Generator().manual_seed(0))

    def alone(some: torch.Tensor) -> torch.Tensor:
        method = activation_maximization.Method(
            torch.zeros_like(some),
            prior=image_optimization.total_variation,
            transform=activation_maximization.jitter,
        )
        (found,) = activation_maximization.maximise(
            lambda x: (some * x).tanh().mean((1, 2, 3)), [method], 5, 4
        )
        return found

    assert torch.equal(alone(w)[1:2], alone(w[1:2]))


def test_methods_that_share_a_batch_find_what_each_finds_alone(
    digits: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each has another value of the same rows. Large images do not share a batch."""
    sizes: list[int] = []
    w = torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(0)) / 127.5

    def objective(x: torch.Tensor) -> torch.Tensor:
        sizes.append(len(x))
        return (w * x.unflatten(0, (-1, 2))).tanh().mean((2, 3, 4)).flatten()

    methods = [
        replace(method, value=lambda rows, k=k: -(rows - k / 10).square())
        for k, method in enumerate(activation_maximization.make_methods(digits, 2, 3).values())
    ]
    together = activation_maximization.maximise(objective, methods, 6, 4)
    assert {*sizes} == {2 * len(methods)}
    alone = [activation_maximization.maximise(objective, [one], 6, 4)[0] for one in methods]
    sizes.clear()
    monkeypatch.setattr(activation_maximization, "MOST_PIXELS", 64)
    in_turn = activation_maximization.maximise(objective, methods, 6, 4)
    assert {*sizes} == {2}
    for found in zip(together, alone, in_turn, strict=True):
        assert torch.equal(found[0], found[1]) and torch.equal(found[0], found[2])


class Recorded:
    """A section of a network, and what `maximise` and `draw_image_rows` are given.

    Instead of the optimised images there are random ones.
    """

    def __init__(self, digits: torch.Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
        import models

        torch.manual_seed(0)
        net = models.build("cnn2", in_channels=1, size=(8, 8), classes=10, dropout=0.5)
        self.net = Classifier(net, torch.full((1, 1, 1), 60.0), torch.full((1, 1, 1), 0.01))
        self.net.train()(digits.permute(0, 2, 3, 1))  # batch norms that change something
        self.net.eval().requires_grad_(False)
        self.pool = digits
        self.subject = SimpleNamespace(
            settings=SimpleNamespace(synthesis_steps=4, seed=0),
            labels=[*"0123456789"],
            file=SimpleNamespace(predict_proba=lambda x: self.net(torch.from_numpy(x)).numpy()),
            samples=lambda count, split: (None, np.arange(count) % 10),
        )
        self.facts = dict[str, Any]()
        monkeypatch.setattr(activation_maximization, "maximise", self.maximise)
        monkeypatch.setattr(activation_maximization, "draw_image_rows", self.draw)

    def maximise(self, objective: Any, methods: Any, steps: int, seed: int) -> list[torch.Tensor]:
        shape = len(methods), len(methods[0].start), 1, 8, 8
        images = torch.randint(256, shape, generator=torch.Generator().manual_seed(1)).float()
        rows = objective(images.flatten(0, 1)).chunk(len(methods))
        self.values = [one.value(found) for one, found in zip(methods, rows, strict=True)]
        return [*images]

    def draw(
        self, section: Any, file: str, alt: str, caption: str, images: Any, notes: Any
    ) -> None:
        self.images, self.notes = images, notes

    def on_the_scale_of_the_pool(
        self, measure: Callable[[torch.Tensor], float], image: torch.Tensor
    ) -> float:
        values = [measure(one) for one in self.pool]
        mean = sum(values) / len(values)
        return (measure(image) - mean) / (max(values) - mean)


def test_units_in_one_batch_have_the_values_of_each_image_alone(
    digits: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of each method, stage and unit: the mean of the unit's map, in a pass of one image."""
    made = Recorded(digits, monkeypatch)
    activation_maximization.maximise_units(made, made.net, made.net, digits)
    units = [note.split(",\nunit ") for note in made.notes.pop(activation_maximization.TRAINING)]
    assert len({stage for stage, _ in units}) == 2 and len(units) == 6
    modules = {short_name(name): module for name, module in made.net.named_modules()}
    for name, values in zip(made.notes, made.values, strict=True):
        for (stage, unit), image, value, note in zip(
            units, made.images[name], values, made.notes[name], strict=True
        ):

            def mean_of_map(one: torch.Tensor, stage: str = stage, unit: str = unit) -> float:
                maps: list[torch.Tensor] = []
                hook = modules[stage].register_forward_hook(lambda *to: maps.append(to[2].clone()))
                made.net.logits(one[None])
                hook.remove()
                return float(maps[0][0, int(unit)].mean())

            expected = made.on_the_scale_of_the_pool(mean_of_map, image)
            assert float(value) == pytest.approx(expected, abs=1e-3)
            assert float(note) == pytest.approx(expected, abs=0.006)


def test_a_stage_runs_the_images_of_its_own_units_alone(
    digits: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The images of all methods are 5 times 6: half of them belong to units of the last stage, and
    the other half need not reach it.
    """
    made = Recorded(digits, monkeypatch)
    ran: list[tuple[str, int]] = []
    for name in find_map_stages(made.net, digits[:1]):
        made.net.get_submodule(name).register_forward_hook(
            lambda module, inputs, output, name=name: ran.append((short_name(name), len(output)))
        )
    maximise = made.maximise

    def alone(*inputs: Any) -> list[torch.Tensor]:
        ran.clear()
        images = maximise(*inputs)
        counted.extend(ran)
        return images

    counted: list[tuple[str, int]] = []
    monkeypatch.setattr(activation_maximization, "maximise", alone)
    activation_maximization.maximise_units(made, made.net, made.net, digits)
    units = [note.split(",\nunit ")[0] for note in made.notes[activation_maximization.TRAINING]]
    first, last = dict.fromkeys(units)
    assert [rows for name, rows in counted if name == last] == [5 * units.count(last)]
    assert [rows for name, rows in counted if name == first] == [5 * 3, 5 * 3]


def test_classes_in_one_batch_have_the_values_of_each_image_alone(
    digits: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of each way and class: the score on the scale of the data, or the probability."""
    made = Recorded(digits, monkeypatch)
    activation_maximization.maximise_classes(made, made.net, made.net, digits)
    del made.notes[activation_maximization.TRAINING]
    assert [*made.notes] == ["score", "probability", "score, Fourier", "score, MACO"]
    for way, values in zip(made.notes, made.values, strict=True):
        for label, image, value, note in zip(
            [0, 2, 4, 5, 7, 9], made.images[way], values, made.notes[way], strict=True
        ):

            def score(one: torch.Tensor, label: int = label) -> float:
                return float(made.net.logits(one[None])[0, label])

            probability = float(made.net.logits(image[None])[0].softmax(0)[label])
            relative = made.on_the_scale_of_the_pool(score, image)
            expected = probability if way == "probability" else relative
            assert float(value) == pytest.approx(expected, abs=1e-3)
            shown = [float(number) for number in note.split(", p ")]
            assert shown == pytest.approx([score(image), probability], abs=0.051)


@pytest.fixture(scope="module")
def digits() -> torch.Tensor:
    from sklearn.datasets import load_digits

    return to_tensor((load_digits().images[:40, :, :, None] * 15).astype(np.uint8))


@pytest.fixture(scope="module")
def small(digits: torch.Tensor) -> Classifier:
    """Three convolutions with random weights; the second one's ReLU works in place."""
    import models

    torch.manual_seed(0)
    net = models.build("cnn2", in_channels=1, size=(8, 8), classes=10, dropout=0.0)
    return (
        Classifier(net, torch.full((1, 1, 1), 60.0), torch.full((1, 1, 1), 0.01))
        .eval()
        .requires_grad_(False)
    )


def test_equal_seeds_give_equal_images_that_raise_the_unit(
    small: Classifier, digits: torch.Tensor
) -> None:
    layer = find_map_stages(small, digits[:1])[0]

    def answer(x: torch.Tensor) -> torch.Tensor:
        return capture_outputs(small, x, [layer])[0][:, 0].mean((1, 2))

    for name, method in activation_maximization.make_methods(digits, 2, 5).items():
        (found,) = activation_maximization.maximise(answer, [method], 12, 5)
        (again,) = activation_maximization.maximise(
            answer, [activation_maximization.make_methods(digits, 2, 5)[name]], 12, 5
        )
        (other,) = activation_maximization.maximise(
            answer, [activation_maximization.make_methods(digits, 2, 6)[name]], 12, 6
        )
        assert torch.equal(found, again) and not torch.equal(found, other), name
        assert found.min() >= 0 and found.max() <= 255 and (found == found.round()).all(), name
        assert (
            answer(found) > answer(image_optimization.to_levels(method.to_image(method.start)))
        ).all(), name


def test_a_spectrum_gives_its_frequency_and_the_pools_colours() -> None:
    """One coefficient is one cosine. A pool of only red and yellow has no blue in its mixtures."""
    rng = np.random.default_rng(0)
    pool = rng.integers(0, 256, (6, 8, 12, 3), np.uint8)
    pool[..., 2] = 40
    waves = image_optimization.fourier_parametrisation(to_tensor(pool))
    spectrum = torch.zeros(1, *image_optimization.spectrum_shape(to_tensor(pool)))
    spectrum[0, :, 0, 3, 0] = 1.0  # 3 periods across
    image = waves(spectrum)[0]
    expected = torch.cos(2 * torch.pi * 3 * torch.arange(12) / 12)
    strongest = image.abs().amax((1, 2)).argmax()
    torch.testing.assert_close(
        image[strongest, 5] / image[strongest, 5, 0], expected, rtol=0, atol=1e-5
    )
    assert image[2].abs().max() < 1e-5 < image[:2].abs().max()


@pytest.mark.parametrize("size, channels", [((8, 8), 1), ((7, 10), 3), ((9, 5), 3)])
def test_phases_change_images_but_never_their_magnitudes(
    size: tuple[int, int], channels: int
) -> None:
    """The oracle is numpy's transform of the pool along its principal colours, by numpy's SVD.

    Even and odd sides: a frequency that is its own negative has no phase, only a sign. The pool is
    dark, so a mean of the wrong sign would show.
    """
    rng = np.random.default_rng(0)
    pool = rng.integers(0, 120, (6, *size, channels)).astype(np.uint8)
    pool //= np.arange(1, channels + 1, dtype=np.uint8)  # axes of unequal variance
    to_image = image_optimization.phase_parametrisation(to_tensor(pool))
    u = pool.transpose(0, 3, 1, 2) / 127.5 - 1
    pixels = pool.reshape(-1, channels).astype(float)
    axes = np.linalg.svd(pixels - pixels.mean(0), full_matrices=False)[2][::-1]  # as rows

    def magnitudes(images: np.ndarray) -> np.ndarray:
        return np.abs(np.fft.fft2(np.einsum("dc,nchw->ndhw", axes, images)))

    expected = magnitudes(u).mean(0)
    start = torch.from_numpy(rng.uniform(-np.pi, np.pi, (2, channels, *size))).float()
    step = torch.randn(start.shape, generator=torch.Generator().manual_seed(0))
    images = [to_image(start), to_image(start + step)]
    for image in images:
        found = magnitudes(image.double().numpy())
        np.testing.assert_allclose(found, np.broadcast_to(expected, found.shape), 0, 1e-4)
        assert (image.mean((1, 2, 3)) < 0).all()
    assert (images[0] - images[1]).abs().amax() > 0.1


def test_phases_alone_raise_a_unit_of_colour_photos() -> None:
    """A linear unit: its image is brighter where the weights are positive, and repeats."""
    pool = np.random.default_rng(1).integers(0, 256, (8, 9, 12, 3), np.uint8)
    w = torch.zeros(1, 3, 9, 12)
    w[:, 0, :, :6], w[:, 0, :, 6:] = 0.01, -0.01

    def unit(x: torch.Tensor) -> torch.Tensor:
        return (w * x).sum((1, 2, 3))

    method = activation_maximization.make_methods(to_tensor(pool), 2, 0)["MACO"]
    (found,) = activation_maximization.maximise(unit, [method], 30, 0)
    before = image_optimization.to_levels(method.to_image(method.start))
    assert (unit(found) > unit(before) + 1).all()
    assert torch.equal(found, activation_maximization.maximise(unit, [method], 30, 0)[0])


def test_a_crop_is_enlarged_to_the_size_of_its_image(monkeypatch: pytest.MonkeyPatch) -> None:
    """A constant image stays constant but for noise of at most NOISE_LEVELS; without noise a crop of
    a ramp is a part of the ramp; the whole without noise is the image itself.
    """
    crop = activation_maximization.crop_with_noise
    grey = torch.full((2, 3, 20, 30), 90.0)
    found = crop(grey, np.random.default_rng(0))
    assert found.shape == grey.shape and found.dtype == grey.dtype
    assert 5 < (found - 90).abs().max() <= activation_maximization.NOISE_LEVELS
    assert torch.equal(found, crop(grey, np.random.default_rng(0)))
    monkeypatch.setattr(activation_maximization, "NOISE_LEVELS", 0.0)
    ramp = torch.arange(20.0).expand(1, 1, 20, 20)
    part = crop(ramp, np.random.default_rng(0))
    assert 0.75 * 19 < part.max() - part.min() < 19 and (part.diff(dim=3) >= 0).all()
    monkeypatch.setattr(activation_maximization, "LEAST_CROP", 1.0)
    assert torch.equal(crop(ramp, np.random.default_rng(0)), ramp)


def test_likeness_by_hand() -> None:
    """As differences from the mean (1, 1): (1, 0) is at 45 degrees from (1, 1), and the nearer of
    two to (0, 1) is itself. A group without images does not count.
    """
    x = torch.tensor([[2.0, 1.0], [1.0, 2.0], [5.0, 5.0]]).reshape(3, 1, 1, 2)
    groups = [[[2.0, 2.0]], [[0.0, 0.0], [1.0, 2.0]]]
    tensors = [torch.tensor(g).reshape(-1, 1, 1, 2) for g in groups] + [torch.zeros(0, 1, 1, 2)]
    found = activation_maximization.likeness_to_data(x, tensors, torch.ones(1, 1, 2))
    assert found == pytest.approx((0.5**0.5 + 1) / 2, rel=1e-6)


def test_an_orthogonal_layer_is_inverted(digits: torch.Tensor) -> None:
    """An orthogonal matrix loses nothing of the image; black images are far from it."""
    matrix = nn.init.orthogonal_(torch.empty(64, 64), generator=torch.Generator().manual_seed(0))
    x, pool = digits[:2], digits
    found = feature_inversion.invert_features(lambda z: (z - 60).flatten(1) @ matrix, x, pool, 60)
    assert (
        feature_inversion.psnr(found, x).min()
        > 30
        > 15
        > feature_inversion.psnr(torch.zeros_like(x), x).max()
    )


def test_psnr_by_hand() -> None:
    """One level of error everywhere is 20 log10(255) = 48.13 dB; no error is that of rounding,
    58.92.
    """
    x = torch.full((1, 1, 2, 2), 9.0)
    assert feature_inversion.psnr(x + 1, x).item() == pytest.approx(48.1308, abs=1e-3)
    assert feature_inversion.psnr(x, x).item() == pytest.approx(
        10 * np.log10(255**2 * 12), abs=1e-3
    )


def test_descent_finds_the_minimum_of_a_quadratic() -> None:
    target = torch.arange(6.0).reshape(1, 6)
    found = image_optimization.minimise_lbfgs(
        lambda p: ((p - target) ** 2 * torch.tensor([1.0, 9, 1, 4, 1, 25])).sum(),
        torch.zeros(1, 6),
        40,
    )
    torch.testing.assert_close(found, target, rtol=0, atol=1e-3)


def test_gram_matrix_and_losses_by_hand() -> None:
    """F = [[1, 2], [3, 4]] of N = 2 maps and M = 2 places: G = F F' = [[5, 11], [11, 25]].

    Against A = 0, E = (25 + 2 * 121 + 625) / (4 * 2^2 * 2^2) = 892 / 64; the content loss is (1 + 4
    + 9 + 16) / 2.
    """
    maps = torch.tensor([[1.0, 2.0], [3.0, 4.0]]).reshape(1, 2, 1, 2)
    zero = torch.zeros_like(maps)
    assert style_transfer.gram(maps).tolist() == [[[5, 11], [11, 25]]]
    assert style_transfer.style_losses([maps], [zero])[0].item() == 892 / 64
    assert style_transfer.content_loss(maps, zero).item() == 15


def test_gram_matrices_are_symmetric_and_positive_semidefinite(
    small: Classifier, digits: torch.Tensor
) -> None:
    found = style_transfer.gram(
        capture_outputs(small, digits[:5], find_map_stages(small, digits[:1])[:1])[0]
    ).double()
    torch.testing.assert_close(found, found.transpose(1, 2), rtol=1e-6, atol=0)
    values = torch.linalg.eigvalsh(found)
    assert (values > -1e-5 * values.amax(1, keepdim=True)).all() and values.max() > 0


def test_a_transfer_lowers_the_style_loss_and_repeats(
    small: Classifier, digits: torch.Tensor
) -> None:
    layers = find_map_stages(small, digits[:1], min_px=3)
    content, other = digits[:2], digits[2:4]
    made, again = (
        style_transfer.transfer_style(small, layers, content, other, digits, 25) for _ in range(2)
    )
    before, after = (
        sum(
            style_transfer.style_losses(
                capture_outputs(small, z, layers), capture_outputs(small, other, layers)
            )
        )
        for z in (content, made)
    )
    assert torch.equal(made, again) and (after < 0.3 * before).all()


def test_a_dream_increases_the_output_of_its_layer(small: Classifier, digits: torch.Tensor) -> None:
    layer = find_map_stages(small, digits[:1])[0]
    x = digits[:2].repeat_interleave(3, 2).repeat_interleave(3, 3)
    made = style_transfer.dream(small, layer, x, 10, 0)
    square = [capture_outputs(small, z, [layer])[0].square().flatten(1).mean(1) for z in (x, made)]
    assert made.shape == x.shape and (square[1] > square[0]).all()
    assert torch.equal(made, style_transfer.dream(small, layer, x, 10, 0))


def test_captured_outputs_equal_the_layers_and_the_pass_stops_there() -> None:
    """The layers are applied one by one here; a ReLU in place does not change the output before it."""
    first, second = nn.Conv2d(1, 2, 3), nn.Conv2d(2, 3, 3)
    ran: list[str] = []
    second.register_forward_hook(lambda *_: ran.append("second"))
    net = Classifier(
        nn.Sequential(first, nn.ReLU(inplace=True), second),
        torch.full((1, 1, 1), 9.0),
        torch.ones(1, 1, 1),
    )
    x = torch.randn(2, 1, 6, 6)
    (alone,) = capture_outputs(net, x, ["net.0"])
    assert not ran
    both = capture_outputs(net, x, ["net.0", "net.2"])
    assert ran and (both[0] < 0).any()
    torch.testing.assert_close(alone, first(x - 9), rtol=0, atol=0)
    torch.testing.assert_close(both[1], second(first(x - 9).relu()), rtol=0, atol=0)


def test_short_names() -> None:
    assert [
        short_name(name) for name in ("net.features.stage1", "net.net.features.3", "net.net.conv1")
    ] == [
        "stage1",
        "features.3",
        "conv1",
    ]
