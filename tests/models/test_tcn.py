"""models/tcn.py and ltsflinear.py: causality, receptive field, normalization, linear path."""

import itertools

import numpy as np
import pytest
import torch
from torch import nn

import models

OPTIONS = {
    "series": 2,
    "targets": 2,
    "calendar": 0,
    "horizon": 3,
    "context": 24,
    "quantiles": 1,
    "channels": 6,
}
OPTIONS |= {
    "kernel_size": 3,
    "blocks": 0,
    "patch": 1,
    "stride": 1,
    "dropout": 0.0,
    "independent": True,
}
OPTIONS |= {"normalise": "none", "linear": False}


def tcn(**options):
    torch.manual_seed(0)
    return models.build("tcn", **OPTIONS | options).eval()


@pytest.mark.parametrize(("patch", "stride"), [(1, 1), (4, 2), (8, 8)])
def test_features_before_a_change_stay_bit_equal(patch, stride):
    """Position p of the features ends at step T - 1 - (P - 1 - p) stride; a change at step t leaves
    all that end before t bit-equal, and reaches the first that ends at t or later.
    """
    net, x = tcn(patch=patch, stride=stride), torch.randn(2, 2, 24)
    features = lambda x: net.stages(net.embed(net.separate_targets(x)))  # noqa: E731
    before = features(x)
    ends = 23 - stride * np.arange(before.shape[2])[::-1]
    for t in (0, 9, 16, 23):
        other = x.clone()
        other[:, :, t] += 1
        same = (features(other) == before).flatten(0, 1).all(0).numpy()
        assert same[ends < t].all() and not same[np.argmax(ends >= t)]


@pytest.mark.parametrize(
    ("options", "reach"),
    [
        ({"patch": 1, "stride": 1, "blocks": 2}, 7),  # 1 + 2 (1 + 2)
        ({"patch": 4, "stride": 2, "blocks": 2}, 16),  # 4 + 2 * 2 (1 + 2)
        ({"patch": 4, "stride": 4, "kernel_size": 2, "blocks": 3}, 32),  # 4 + 4 (1 + 2 + 4)
    ],
)
def test_receptive_field(options, reach):
    """The formula by hand, and the gradient of the forecast on a longer window."""
    net = tcn(context=48, independent=False, **options)
    assert net.receptive_field == reach
    for parameter in net.parameters():
        nn.init.constant_(parameter, 0.1)
    x = torch.ones(1, 48, 2, requires_grad=True)
    net(x).sum().backward()
    reached = x.grad[0, :, 0].nonzero().flatten()
    assert (int(reached.min()), int(reached.max()), len(reached)) == (48 - reach, 47, reach)


@pytest.mark.parametrize(("patch", "stride", "kernel_size"), [(1, 1, 2), (16, 8, 3), (4, 4, 5)])
@pytest.mark.parametrize("context", [7, 96, 336])
def test_the_blocks_cover_the_context_and_one_less_would_not(patch, stride, kernel_size, context):
    options = {"patch": patch, "stride": stride, "kernel_size": kernel_size, "context": context}
    net = tcn(**options)
    assert net.receptive_field >= context
    if len(net.stages) > 1:
        assert tcn(**options, blocks=len(net.stages) - 1).receptive_field < context


def test_the_linear_path_alone_decides_the_initial_forecast():
    """The dense layer alone, on the whole context; after one step every weight has a gradient."""
    net, x = tcn(blocks=1, linear=True), torch.randn(4, 24, 2)
    assert net.receptive_field == 24
    assert torch.equal(net(x), net.linear(x.transpose(1, 2)).transpose(1, 2))
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    for _ in range(2):
        optimizer.zero_grad()
        net(x).square().mean().backward()
        optimizer.step()
    assert all(p.grad.any() for p in net.parameters())


def test_instance_normalisation_is_undone():
    """Kim et al.

    2022: a shifted and scaled window has a forecast shifted and scaled alike, exactly if the
    deviation is far above eps; the form of the last value follows a shift.
    """
    x = torch.randn(3, 24, 2, dtype=torch.float64)
    for normalise, stretch in (("instance", 50.0), ("last", 1.0)):
        net = tcn(normalise=normalise, linear=True).double()
        torch.testing.assert_close(net(stretch * x + 7), stretch * net(x) + 7, rtol=1e-4, atol=1e-4)
    net = tcn(normalise="instance")
    level, size = net.level_and_size(x)
    np.testing.assert_allclose(level.numpy()[:, 0], x.numpy().mean(1))
    np.testing.assert_allclose(size.numpy()[:, 0], np.sqrt(x.numpy().var(1) + 1e-5))


def test_targets_are_independent_and_covariates_are_used():
    """By which outputs change: the second of two targets, a past covariate, the calendar of a step
    ahead.
    """
    x = torch.randn(2, 24, 3)
    moved = x.clone()
    moved[:, 20, 1] += 1
    alone, both = tcn(series=3, targets=3), tcn(series=3, targets=3, independent=False)
    assert (alone(x) != alone(moved)).any(1).tolist() == [[False, True, False]] * 2
    assert (both(x) != both(moved)).any(1).all()
    for independent in (True, False):
        net = tcn(series=3, targets=1, independent=independent)
        assert net(x).shape == (2, 3, 1) and (net(x) != net(moved)).all()
    known = torch.cat([torch.nn.functional.pad(x, (0, 0, 0, 3)), torch.randn(2, 27, 4)], 2)
    later = known.clone()
    later[:, 25, 4] += 1
    for independent in (True, False):
        net = tcn(series=3, targets=2, calendar=4, independent=independent, quantiles=3)
        changed = (net(known) != net(later)).unflatten(1, (3, 3))  # (N, S, Q, targets)
        assert not changed[:, [0, 2]].any() and changed[:, 1].all()


def test_independent_series_equal_single_series():
    """The same weights on each series alone."""
    net, one = tcn(series=3, targets=3, linear=True), tcn(series=1, targets=1, linear=True)
    one.load_state_dict(net.state_dict())
    x = torch.randn(2, 24, 3)
    expected = torch.cat([one(x[:, :, [d]]) for d in range(3)], 2)
    torch.testing.assert_close(net(x), expected, rtol=1e-5, atol=1e-6)


def test_nlinear_and_dlinear_follow_their_formulas():
    """Zeng et al. 2022 in numpy: W (x - last) + b + last; W1 trend + b1 + W2 (x - trend) + b2."""
    x = np.random.default_rng(0).normal(size=(4, 30, 2))
    options = {"series": 2, "horizon": 5, "context": 30, "quantiles": 1}
    net = models.build("ltsflinear", kind="nlinear", **options).double()
    w, b = (p.detach().numpy() for p in net.head.parameters())
    last = x[:, -1:]
    expected = np.einsum("st,ntd->nsd", w, x - last) + b[:, None] + last
    np.testing.assert_allclose(
        net(torch.from_numpy(x)).detach().numpy(), expected, rtol=1e-10, atol=1e-12
    )
    net = models.build("ltsflinear", kind="dlinear", **options).double()
    v, c = (p.detach().numpy() for p in net.trend.parameters())
    w, b = (p.detach().numpy() for p in net.head.parameters())
    padded = np.concatenate([x[:, :1].repeat(12, 1), x, x[:, -1:].repeat(12, 1)], 1)
    trend = np.stack([padded[:, t : t + 25].mean(1) for t in range(30)], 1)
    expected = (
        sum(np.einsum("st,ntd->nsd", m, part) for m, part in ((v, trend), (w, x - trend)))
        + (b + c)[:, None]
    )
    np.testing.assert_allclose(
        net(torch.from_numpy(x)).detach().numpy(), expected, rtol=1e-10, atol=1e-12
    )


def test_a_stream_of_steps_equals_the_window_once_settled():
    """From the sample on that settles it; one before, the two differ."""
    nets = {
        "tcn": tcn(blocks=3, patch=2, independent=False, context=40),
        "causal": models.build(
            "causal",
            series=2,
            horizon=3,
            channels=4,
            kernel_size=3,
            dilations=[1, 2],
            activation="relu",
        ),
    }
    x = torch.randn(5, 40, 2)
    for net in nets.values():
        for rows, settled in ((net.samples, True), (net.samples - 1, False)):
            tails = [torch.zeros(5, *shape) for shape in net.tails]
            for t in range(40 - rows, 40):
                answer, tails = net.step(x[:, t], tails)
            assert torch.allclose(answer, net(x), rtol=1e-5, atol=1e-6) == settled


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"normalise": "last"}, "normalise: last looks at the whole window"),
        ({"linear": True}, "linear path looks at the whole window"),
        ({"patch": 4, "stride": 2}, "patches come every 2 samples"),
        ({"calendar": 2}, "a stream has no calendar"),
        ({}, "independent: true holds a state for each series"),
    ],
)
def test_a_network_without_a_stream_gives_the_reason(options, reason):
    with pytest.raises(ValueError, match=f"tcn: .*{reason}"):
        tcn(**options).tails  # noqa: B018


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"normalise": "batch"}, "expected normalise instance, last, none, got 'batch'"),
        ({"patch": 2, "stride": 4}, "expected patch >= stride"),
    ],
)
def test_contradictory_options_are_errors(options, reason):
    with pytest.raises(ValueError, match=f"tcn: {reason}"):
        tcn(**options)


def test_every_combination_of_options_runs():
    flags = itertools.product(
        (True, False), ("instance", "last", "none"), (True, False), (0, 4), (1, 3), (1, 3)
    )
    for independent, normalise, linear, calendar, quantiles, targets in flags:
        net = tcn(
            series=3,
            targets=targets,
            independent=independent,
            normalise=normalise,
            linear=linear,
            calendar=calendar,
            quantiles=quantiles,
            patch=4,
            stride=2,
        )
        rows = 27 if calendar else 24
        y = net(torch.randn(2, rows, 3 + calendar))
        assert y.shape == (2, 3 * quantiles, targets) and y.isfinite().all()
