"""Captioning in training: all references count, what is not there does not, and a network learns."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from captions import data, network
from torch import Tensor

from pipeline.core.errors import StageError
from pipeline.params.schema import Augment
from pipeline.train import augment
from pipeline.train.tasks import captioning

PLAIN: Any = SimpleNamespace(label_smoothing=0.0)


def batch(count: int) -> tuple[Tensor, Tensor]:
    source = data()
    part = captioning.load_batches(source, "train", network(), torch.device("cpu"))
    return part.x[:count], part.y[:count]


def test_the_loss_is_the_mean_over_the_words_of_all_references() -> None:
    """By a sum over captions, one word after the other, by the architecture's `step`."""
    net, (x, y) = network().eval(), batch(4)
    with torch.no_grad():
        output = captioning.forward(net, x, y, PLAIN)
        gains, right = [], []
        for row, captions in enumerate(y):
            hits = []
            for caption in captions:
                hidden, cell = net.encode(x[row : row + 1])
                before = torch.tensor([0])
                for word in caption[caption >= 0]:
                    answer, hidden, cell = net.net.step(before, hidden, cell)
                    gains.append(float(answer[0, word]))
                    hits.append(int(answer[0].argmax()) == int(word))
                    before = word[None]
            right.append(np.mean(hits))
    assert float(captioning.objective(output, y, PLAIN)) == pytest.approx(-np.mean(gains), rel=1e-5)
    assert float(captioning.sum_correct(output, y)) == pytest.approx(sum(right), rel=1e-5)


def test_a_missing_reference_changes_nothing() -> None:
    net, (x, y) = network().eval(), batch(4)
    more = torch.cat([y, torch.full_like(y[:, :1], -1)], 1)
    for measure in (lambda o, y: captioning.objective(o, y, PLAIN), captioning.sum_correct):
        first, second = (measure(captioning.forward(net, x, t, PLAIN), t) for t in (y, more))
        torch.testing.assert_close(first, second, rtol=1e-6, atol=0)


def test_no_word_sees_itself_or_a_later_one() -> None:
    net, (x, y) = network().eval(), batch(2)
    before = captioning.forward(net, x, y, PLAIN)
    y[:, 0, 2] = 2
    changed = (captioning.forward(net, x, y, PLAIN) != before).any(3)
    assert not changed[:, 1].any() and changed[:, 0, 3:].all() and not changed[:, 0, :3].any()


def test_frozen_features_are_computed_once() -> None:
    """The same words follow the features of `load_batches` as the images, without the layers that
    made them; images cannot be augmented any more.
    """
    torch.manual_seed(0)
    net, (images, y) = network(frozen=True), batch(8)
    features = captioning.load_batches(data(), "train", net, torch.device("cpu")).x
    assert features.shape == (48, 64, 4, 4) and features.dtype == torch.float16
    expected = captioning.forward(net, images, y, PLAIN)
    net.net.features = torch.nn.Identity()
    found = captioning.forward(net, features[:8], y, PLAIN)
    torch.testing.assert_close(found, expected, rtol=0, atol=0.01)
    assert (expected[0] - expected[1]).abs().max() > 0.1
    with pytest.raises(StageError, match=r"train.augment: expected images.*; drop `augment`"):
        augment.build(Augment(flip="horizontal"), features)


def test_a_short_training_learns_the_captions() -> None:
    """Bright or dark, above or below: scenes of one square each, in 120 steps."""
    torch.manual_seed(0)
    net, (x, y) = network(), batch(48)
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-2)
    for _ in range(120):
        loss = captioning.objective(captioning.forward(net, x, y, PLAIN), y, PLAIN)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    net.eval()
    output = captioning.forward(net, x, y, PLAIN)
    # Of nine words of an image's references one differs between them: no answer has both.
    assert float(captioning.sum_correct(output, y)) > 0.88 * len(x)
