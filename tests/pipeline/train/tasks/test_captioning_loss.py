"""Captioning in training: all references count, what is not there does not, and a network learns."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from captions import data, network
from torch import Tensor

from pipeline.train.tasks import captioning

PLAIN: Any = SimpleNamespace(label_smoothing=0.0)


def batch(count: int) -> tuple[Tensor, Tensor]:
    source = data()
    part = captioning.load_batches(source, "train", None, torch.device("cpu"))
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
