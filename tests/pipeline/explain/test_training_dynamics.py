"""Features during training: properties of the alignment (CKA), and the snapshots of training."""

import copy
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from subjects import CIFAR, built, digits, subject

from pipeline.data import dataset
from pipeline.explain import training_dynamics
from pipeline.explain.training_dynamics import cka, gram


def test_alignment_is_invariant_to_rotation_and_scale() -> None:
    """Kornblith et al.

    2019, sections 2.1 and 2.2: invariant to orthogonal transforms and isotropic scaling, not to any
    invertible one.
    """
    rng = np.random.default_rng(0)
    x = rng.standard_normal((30, 8)) * np.arange(1, 9)
    turn = np.linalg.qr(rng.standard_normal((8, 8)))[0]
    for other in (x, 3 * x + 5, x @ turn):
        assert cka(gram(x), gram(other)) == pytest.approx(1)
    assert cka(gram(x), gram(x / np.arange(1, 9))) < 0.9


def test_alignment_equals_its_formula() -> None:
    """Section 3, the linear kernel: ||Y'X||^2 / (||X'X|| ||Y'Y||), Frobenius norms, centred
    features.
    """
    rng = np.random.default_rng(1)
    x, y = rng.standard_normal((20, 5)), rng.standard_normal((20, 7))
    a, b = x - x.mean(0), y - y.mean(0)
    norm = np.linalg.norm
    assert cka(gram(x), gram(y)) == pytest.approx(
        norm(b.T @ a) ** 2 / (norm(a.T @ a) * norm(b.T @ b))
    )


def test_the_section_follows_a_network_to_its_end(
    tmp_path: Path, images_of: Callable[..., dataset.Data]
) -> None:
    """Weights on a straight line from one network to another: the last snapshot equals the end (1),
    and no earlier one does.
    """
    net, start = built("resnet", 16, **CIFAR), built("resnet", 16, seed=1, **CIFAR)
    given = subject(tmp_path, net, images_of(*digits(16)))
    assert training_dynamics.make_section(given) is None
    folder = tmp_path / "train" / "snapshots"
    folder.mkdir(parents=True)
    end, kept = net.state_dict(), copy.deepcopy(net.state_dict())
    for epoch, share in ((1, 0.0), (5, 0.5), (10, 1.0)):
        mixed = {
            k: torch.lerp(v, end[k], share) if v.is_floating_point() else v
            for k, v in start.state_dict().items()
        }
        torch.save(mixed, folder / f"epoch-{epoch:03d}.pt")
    found = training_dynamics.make_section(given)
    facts = found.facts["cka"]
    assert facts.pop("epochs") == [1, 5, 10]
    assert list(facts) == ["conv1", "stage1", "stage2", "stage3", "logits"]
    assert all(row[0] < row[2] and row[2] == pytest.approx(1, abs=1e-3) for row in facts.values())
    assert "conv1 in epoch" in found.pictures[0].caption and len(found.pictures) == 2
    assert all(
        torch.equal(tensor, kept[name]) for name, tensor in net.state_dict().items()
    )  # the subject is left alone
