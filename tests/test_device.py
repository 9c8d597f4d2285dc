"""The device that training takes: never guessed in silence, and compiled for where that pays."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from typing import Any

import pytest
import torch
from recipes import IMAGE_RECIPE

from pipeline import data, device, train
from pipeline.stage import StageError

CPU = torch.device("cpu")
Resolve = Callable[..., dict[str, Any]]


def fit(recipe: dict[str, Any]) -> tuple[Any, train.State]:
    return train.fit(recipe, data.make(recipe["data"])[0], on=CPU, label="tiny")


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_cuda_without_a_gpu() -> None:
    with pytest.raises(StageError, match=r"asked for cuda, torch .*; check nvidia-smi, or set `device: cpu`"):
        device.choose("cuda")
    assert device.choose("auto") == device.choose("cpu") == CPU


@pytest.mark.long
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler on a CPU, none is here")
def test_a_compiled_network_trains_as_it_does(resolved: Resolve) -> None:
    """Oracle: eager, to the noise of float32 sums in another order; the weights bear the same names."""
    changes = {"net": {"dropout": 0.0}, "train": {"optimizer": "sgd", "lr": 0.05}}
    net, state = fit(resolved(IMAGE_RECIPE, **changes))
    changes["train"] |= {"compile": "on"}
    compiled, found = fit(resolved(IMAGE_RECIPE, **changes))
    assert list(compiled.state_dict()) == list(net.state_dict())
    for eager, other in zip(state.history, found.history, strict=True):
        assert other == pytest.approx(eager, rel=1e-4)


def test_compiling_is_for_a_gpu_and_many_steps() -> None:
    """Oracle: by hand. `auto` never compiles on a CPU; a GPU's own rule is not run here."""
    cuda = torch.device("cuda")
    found = [device.compiles("auto", on, steps) for on, steps in ((CPU, 10**9), (cuda, 10), (cuda, 10**5))]
    assert found == [False, False, True]
    assert device.compiles("on", CPU, 1) and not device.compiles("off", cuda, 10**9)
