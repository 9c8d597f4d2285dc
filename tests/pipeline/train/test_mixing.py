"""Mixup and CutMix: what becomes of images, of labels, and of the numbers that training reports."""

import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch.nn import functional as F

from pipeline.params.schema import ResolvedTrain
from pipeline.train import distributed, mixing
from pipeline.train.tasks import classification

pytestmark = pytest.mark.slow  # the first import of torchvision takes 4-10 s

LABELS = torch.tensor([0, 1, 2, 3, 0, 1])


def mixed(seed: int = 0, **options: Any) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return six images of 16 x 16, and what became of them and of their labels."""
    x = torch.randint(0, 256, (6, 3, 16, 16), generator=torch.Generator().manual_seed(1))
    torch.manual_seed(seed)
    return x, *mixing.build(ResolvedTrain(**options), 4)(x.to(torch.uint8), LABELS)


def test_without_keys_nothing_is_mixed() -> None:
    x, y = mixing.build(ResolvedTrain(), 4)(images := torch.zeros(2, 1, 4, 4), LABELS)
    assert x is images and y is LABELS


def test_mixup_adds_the_image_before() -> None:
    """x_i becomes s x_i + (1 - s) x_(i-1), labels alike; s is read from the labels."""
    x, images, labels = mixed(mixup=1.0)
    share = float(labels[1, 1])
    assert 0 < share < 1
    one_hot = F.one_hot(LABELS, 4).float()
    torch.testing.assert_close(labels, share * one_hot + (1 - share) * one_hot.roll(1, 0))
    expected = share * x.float() + (1 - share) * x.float().roll(1, 0)
    torch.testing.assert_close(images, expected, rtol=0, atol=1e-3)


def test_cutmix_pastes_a_rectangle_of_the_image_before() -> None:
    """Each pixel is of one of the two images; the label has their shares of the area."""
    x, images, labels = mixed(cutmix=1.0)
    before = (images == x.roll(1, 0)).all(1)  # (N, H, W)
    other = (images == x).all(1)
    assert (before | other).all()
    share = 1 - float((before & ~other)[1].float().mean())
    assert 0 < share < 1 and float(labels[1, 1]) == pytest.approx(share, abs=1e-6)
    torch.testing.assert_close(labels.sum(1), torch.ones(6))


def test_with_both_keys_a_batch_gets_one_of_them() -> None:
    """CutMix keeps whole grey levels, mixup does not; both occur within 20 batches."""
    whole = {bool((mixed(seed, mixup=1.0, cutmix=1.0)[1] % 1 == 0).all()) for seed in range(20)}
    assert whole == {True, False}


def test_loss_and_accuracy_of_mixed_labels() -> None:
    """The loss is the mixture of the two labels' losses, by hand from logits of two classes; an
    image counts as right by the share of the predicted class.
    """
    logits, labels = torch.tensor([[1.0, 0.0], [0.0, 2.0]]), torch.tensor([[0.7, 0.3], [0.6, 0.4]])
    loss = classification.objective((logits,), labels, ResolvedTrain())
    first = math.log(1 + math.exp(-1)) + 0.3 * 1.0
    second = math.log(1 + math.exp(-2)) + 0.6 * 2.0
    assert float(loss) == pytest.approx((first + second) / 2, rel=1e-6)
    assert float(classification.sum_correct((logits,), labels)) == pytest.approx(0.7 + 0.4)


def test_two_processes_mix_as_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each gets the row before its own: together they have the batch of one process."""
    whole = mixed(mixup=1.0)
    x, parts = whole[0].to(torch.uint8), []
    for rank in range(2):
        with monkeypatch.context() as patch:
            group = SimpleNamespace(
                is_initialized=lambda: True,
                get_world_size=lambda: 2,
                get_rank=lambda rank=rank: rank,
            )
            patch.setattr(distributed, "dist", group)
            patch.setattr(distributed, "_shared", None)
            distributed.seed_epoch(0)
            rows = distributed.own_rows(torch.arange(6), neighbour=True)
            assert rows.tolist() == [[5, 0, 1, 2], [2, 3, 4, 5]][rank]
            mix = mixing.build(ResolvedTrain(mixup=1.0), 4)
            parts.append(mix(x[rows], LABELS[rows]))
    torch.testing.assert_close(torch.cat([part[0] for part in parts]), whole[1])
    torch.testing.assert_close(torch.cat([part[1] for part in parts]), whole[2])
