"""Layers, networks, data, loss and the forecaster against numbers of the lecture notes."""

import math

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from torch import nn

import models
from models import layers, lenet5, summary
from pipeline.data import series_sources
from pipeline.data.normalization import image_statistics
from pipeline.params.schema import ResolvedTrain, WavesSet
from pipeline.train.losses import cross_entropy

# ---- layers


def test_batch_normalisation():
    """Ioffe and Szegedy 2015, algorithm 2, by numpy: variance with 1 / B in training; the
    running variance takes the unbiased one, 1 / (B - 1), here with Keras's momentum .99 and epsilon
    1e-3.
    """
    rng = np.random.default_rng(0)
    x = rng.normal(3, 2, (16, 5))
    layer = nn.BatchNorm1d(5, **layers.KERAS_BATCH_NORM, dtype=torch.float64).train()
    gamma, beta = rng.normal(size=(2, 5))
    layer.weight.data, layer.bias.data = torch.tensor(gamma), torch.tensor(beta)
    mean = x.sum(0) / 16
    variance = ((x - mean) ** 2).sum(0) / 16
    expected = gamma * (x - mean) / np.sqrt(variance + 1e-3) + beta
    np.testing.assert_allclose(layer(torch.tensor(x)).detach().numpy(), expected, rtol=1e-12)
    np.testing.assert_allclose(layer.running_mean.numpy(), 0.01 * mean, rtol=1e-12)
    np.testing.assert_allclose(
        layer.running_var.numpy(), 0.99 + 0.01 * variance * 16 / 15, rtol=1e-12
    )


def test_local_response_normalisation():
    """Krizhevsky et al. 2012, section 3.3, by numpy: a / (2 + 1e-4 * sum of 5 squares) ** .75.

    torch divides alpha by n, so the paper's 1e-4 is torch's 5e-4.
    """
    a = np.random.default_rng(0).normal(0, 50, (2, 8, 3, 3))
    squares = np.pad(a**2, ((0, 0), (2, 2), (0, 0), (0, 0)))
    neighbours = sum(squares[:, k : k + 8] for k in range(5))
    layer = nn.LocalResponseNorm(5, alpha=5 * 1e-4, beta=0.75, k=2)
    np.testing.assert_allclose(
        layer(torch.tensor(a)).numpy(), a / (2 + 1e-4 * neighbours) ** 0.75, rtol=1e-12
    )


def test_dropout():
    """Notes: zero with probability 1 - p, multiply by p at test. torch: p is the probability to
    DROP, survivors grow by 1 / (1 - p) in training, nothing happens at test; the mean is the same.
    """
    torch.manual_seed(0)
    net = models.build("fcnn", in_channels=1, size=(1, 1), classes=2, hidden=[4], dropout=0.3)
    (layer,) = (layer for layer in net.modules() if isinstance(layer, nn.Dropout))
    x = torch.ones(100_000)
    assert torch.equal(layer.eval()(x), x)
    y = layer.train()(x)
    assert y.unique().tolist() == pytest.approx([0, 1 / 0.7])
    assert (y == 0).float().mean().item() == pytest.approx(
        0.3, abs=0.006
    )  # four standard errors of 100,000 draws
    assert y.mean().item() == pytest.approx(1, abs=0.01)


# ---- whole networks


def test_parameter_counts():
    """The lecture notes: fcNN 420,260, cnn1 251,210; cnn2 (from its code) 36,314, moving statistics
    counted, as in Keras.
    """
    for arch, name, count in (
        ("fcnn", "fcNN 784-500-50-10", 420_260),
        ("cnn1", "cnn1", 251_210),
        ("cnn2", "cnn2", 36_314),
    ):
        net = summary.on_meta(arch, models.references(arch)[name]["options"])
        assert summary.total(net) == count, name


def test_connection_table_of_lenet():
    """LeCun et al. 1998, section II.B: six maps of C3 see three neighbours of S2, six see four,
    three see four in two pairs, one sees all; 60 kernels, 60 * 25 + 16 = 1,516 parameters.
    """
    seen = {m: {s for out, s in lenet5.connections() if out == m} for m in range(16)}
    for m in range(6):
        assert seen[m] == {m, (m + 1) % 6, (m + 2) % 6}
        assert seen[m + 6] == {m, (m + 1) % 6, (m + 2) % 6, (m + 3) % 6}
    assert [seen[m] for m in range(12, 15)] == [{0, 1, 3, 4}, {1, 2, 4, 5}, {0, 2, 3, 5}]
    assert seen[15] == set(range(6))
    assert all(sum(s in seen[m] for m in range(16)) == 10 for s in range(6))
    assert len(lenet5.connections()) == 60 and summary.trainable(lenet5.SparseC3()) == 1_516


@pytest.mark.parametrize("arch", ["fcnn", "cnn1", "cnn2", "lenet5"])
def test_loss_of_an_ignorant_network(arch):
    """All parameters zero: every class has probability 1 / 10, the loss is -log(.1) = 2.3025851,
    accuracy is .1.
    """
    for reference in models.references(arch).values():
        net = models.build(arch, **reference["options"]).eval()
        for parameter in net.parameters():
            nn.init.zeros_(parameter)
        labels = torch.arange(10)
        logits = net(torch.randn(10, *reference["input"]))
        loss = cross_entropy(logits, labels, ResolvedTrain(epochs=1))
        assert loss.item() == pytest.approx(2.3025851, rel=1e-6)
        assert (logits.argmax(1) == labels).float().mean().item() == pytest.approx(0.1)


# ---- data and loss


def test_standardisation_by_pixel():
    """(X - mean) / (std + 1e-4) from the training images gives every pixel mean 0 and std 1;
    one that never changes gives 0. The same constants, not their own statistics, standardise other
    images.
    """
    grey = np.round(load_digits().images * 255 / 16).astype(np.uint8)[..., None]
    train, other = grey[:1500], grey[1500:]
    mean, scale = image_statistics(train, "pixel")
    z = (train.transpose(0, 3, 1, 2) - mean.astype(np.float64)) * scale
    constant = train.std(0).transpose(2, 0, 1) == 0
    assert constant.sum() > 0 and not z[:, constant].any()
    np.testing.assert_allclose(z.mean(0), 0, atol=1e-6)
    np.testing.assert_allclose(
        z.std(0)[~constant], 1, rtol=2e-3
    )  # 1e-4 beside the least std, about .1 grey levels
    notes = (other - train.mean(0)) / (train.std(0) + 0.0001)
    ours = (other.transpose(0, 3, 1, 2) - mean) * scale
    np.testing.assert_allclose(
        ours[:, ~constant], notes.transpose(0, 3, 1, 2)[:, ~constant], rtol=1e-4, atol=1e-4
    )


def test_clipped_softmax_learns_nothing_from_a_sure_mistake():
    """The notes' 76 %: class 0 has probability e^-30, below the clip at 1e-7, so the loss stays at
    -log(1e-7) = 16.118 and its gradient is 0. From logits the loss is 30 and the gradient p - y =
    (-1, 1).
    """
    y = torch.tensor([0])
    losses, gradients = {}, {}
    for kind in ("softmax-clip", "cross-entropy"):
        logits = torch.tensor([[0.0, 30.0]], requires_grad=True)
        losses[kind] = cross_entropy(logits, y, ResolvedTrain(epochs=1, loss=kind))
        losses[kind].backward()
        gradients[kind] = logits.grad[0].tolist()
    assert losses["softmax-clip"].item() == pytest.approx(-math.log(1e-7))
    assert losses["cross-entropy"].item() == pytest.approx(30)
    assert gradients["softmax-clip"] == [0, 0]
    assert gradients["cross-entropy"] == pytest.approx([-1, 1])


# ---- the forecaster's data and network


def waves(count, length):
    """Return noise-free curves (count, length) of source `waves`."""
    spec = WavesSet(
        source="waves", train=count, validation=1, test=1, length=length, noise=0.0, seed=1
    )
    parts, _ = series_sources.waves(spec, context=length - 10, horizon=10)
    return np.stack([series.values[:, 0] for series in parts["train"]])


def test_f02_f03_waves():
    """The generator's product is, by product-to-sum, half of cos(19 pi t / 137) - cos(2u + 21 pi t
    / 137): only one of the two waves has a random phase, so all curves share the other half. (The
    notebook's 0 ... 20 pi and 0 ... pi over 138 points are 20 pi / 137 and pi / 137 a step.)
    """
    curves, t = waves(50, 138), np.arange(138)
    random_half = np.cos(19 * np.pi * t / 137) - 2 * curves
    basis = np.stack([np.cos(21 * np.pi * t / 137), np.sin(21 * np.pi * t / 137)])
    phases, *_ = np.linalg.lstsq(basis.T, random_half.T, rcond=None)
    np.testing.assert_allclose(phases.T @ basis, random_half, atol=1e-13)
    np.testing.assert_allclose((phases**2).sum(0), 1, rtol=1e-12)


def test_f09_waves_obey_a_four_tap_recurrence():
    """Two cosines of 19 and 21 pi / 137 a step: their polynomial (1 - 2 cos(a) z + z^2)(1 - 2
    cos(b) z + z^2) gives the taps 3.58570, -5.21390, 3.58570, -1. A causal layer that holds them
    forecasts the next step exactly.
    """
    a, b = 2 * np.cos(np.array([19, 21]) * np.pi / 137)
    taps = [a + b, -(2 + a * b), a + b, -1]
    assert taps == pytest.approx([3.58570, -5.21390, 3.58570, -1], abs=5e-6)
    options = {
        "series": 1,
        "horizon": 100,
        "channels": 1,
        "kernel_size": 4,
        "dilations": [1],
        "activation": "none",
    }
    net = models.build("causal", **options).double()
    net.stages[0].weight.data[0, 0] = torch.tensor(
        taps[::-1]
    )  # the last weight meets the newest sample
    net.head.weight.data[:] = 1
    nn.init.zeros_(net.stages[0].bias), nn.init.zeros_(net.head.bias)
    curves = torch.tensor(waves(20, 138))
    forecasts = net(curves[:, :-1, None])[..., 0]  # made at steps 37 ... 136, for steps 38 ... 137
    torch.testing.assert_close(forecasts, curves[:, 38:], rtol=0, atol=1e-12)


def test_f04_every_forecast_looks_ten_steps_ahead():
    """T = 128, S = 10: output j stands at step 118 + j and sees nothing later, so the forecast of
    step 128 ignores the 9 newest samples.
    """
    options = models.references("causal")["causal dilated"]["options"]
    net = models.build("causal", **options)
    for j in range(10):
        x = torch.randn(1, 128, 1, requires_grad=True)
        net(x)[0, j, 0].backward()
        assert x.grad.flatten().nonzero().max() == 118 + j


def test_f05_parameters_of_the_forecasters():
    """Keras: 5 * 1 * 32 + 32 = 192, three times 5 * 32 * 32 + 32 = 5,152, 32 + 1 = 33; 15,681 with
    either dilation.
    """
    for reference in models.references("causal").values():
        net = models.build("causal", **reference["options"])
        layers = [
            summary.trainable(layer) for layer in net.modules() if isinstance(layer, nn.Conv1d)
        ]
        assert layers == [192, 5_152, 5_152, 5_152, 33] and sum(layers) == 15_681
