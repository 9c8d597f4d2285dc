"""pipeline/train/tasks/segmentation.py: the loss over pixels, its weights, and what is right."""

import numpy as np
import pytest
import torch
from convline.metrics.segmentation import VOID

from pipeline.params.schema import ResolvedTrain
from pipeline.train.tasks import segmentation as task


@pytest.fixture
def logits() -> torch.Tensor:
    return torch.randn(2, 3, 4, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@pytest.fixture
def masks() -> torch.Tensor:
    """Mostly class 0, a little of 1, none of 2, and a corner that is not known."""
    y = torch.zeros(2, 4, 5, dtype=torch.uint8)
    y[0, 1, 1:4], y[1, :2, :2] = 1, VOID
    return y


def entropies(logits: torch.Tensor, masks: torch.Tensor) -> dict[int, np.ndarray]:
    """Return -log p of the true class of each known pixel, by class, in numpy."""
    z = np.moveaxis(logits.numpy(), 1, -1)
    losses = np.log(np.exp(z).sum(-1, keepdims=True)) - z
    return {k: losses[masks.numpy() == k][:, k] for k in range(3)}


@pytest.mark.parametrize("balance", [0.0, 0.5, 1.0])
def test_a_pixel_weighs_by_the_frequency_of_its_class(
    logits: torch.Tensor, masks: torch.Tensor, balance: float
) -> None:
    """The weighted mean in numpy: 0 is the mean over pixels, 1 the mean of the means of classes."""
    by_class = {k: own for k, own in entropies(logits, masks).items() if len(own)}
    weights = {k: len(own) ** -balance for k, own in by_class.items()}
    total = sum(weights[k] * own.sum() for k, own in by_class.items())
    expected = total / sum(weights[k] * len(own) for k, own in by_class.items())
    got = task.objective(logits, masks, ResolvedTrain(balance=balance))
    assert float(got) == pytest.approx(expected, rel=1e-12)
    if balance == 1:
        assert expected == pytest.approx(np.mean([own.mean() for own in by_class.values()]))


def test_void_pixels_have_no_loss_and_no_gradient(
    logits: torch.Tensor, masks: torch.Tensor
) -> None:
    logits.requires_grad_()
    task.objective(logits, masks, ResolvedTrain()).backward()
    assert logits.grad is not None
    assert torch.equal(logits.grad.abs().amax(1) > 0, masks != VOID)


def test_a_batch_that_is_all_void_has_loss_0(logits: torch.Tensor) -> None:
    y = torch.full((2, 4, 5), VOID, dtype=torch.uint8)
    loss = task.objective(logits.requires_grad_(), y, ResolvedTrain(balance=0.5))
    loss.backward()
    assert loss.item() == 0 and logits.grad is not None and not logits.grad.any()
    assert task.sum_correct(logits, y).item() == 0


def test_sum_correct_is_the_share_of_each_image(masks: torch.Tensor) -> None:
    """Class 0 everywhere: 17 of 20 pixels of the first mask, all 16 known ones of the second."""
    logits = torch.zeros(2, 3, 4, 5)
    logits[:, 0] = 1
    assert float(task.sum_correct(logits, masks)) == pytest.approx(17 / 20 + 1)
