"""The device that training takes: never guessed in silence, and compiled for where that pays."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from recipes import IMAGE_RECIPE, ROOT

from pipeline import data, device, train
from pipeline.stage import StageError
from serve import machine

CPU = torch.device("cpu")
Resolve = Callable[..., dict[str, Any]]


def fit(recipe: dict[str, Any]) -> tuple[Any, train.State]:
    return train.fit(recipe, data.make(recipe["data"])[0], on=CPU, label="tiny")


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_cuda_without_a_gpu() -> None:
    with pytest.raises(StageError, match=r"asked for cuda, torch .*; check nvidia-smi, or set `device: cpu`"):
        device.choose("cuda")
    assert device.choose("auto") == device.choose("cpu") == CPU


@pytest.fixture
def driver_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """A function that puts a driver library in place whose CUDA version, as cuDriverGetVersion gives it, is this."""

    def install(version: int) -> None:
        source, library = tmp_path / "driver.c", tmp_path / "libcuda.so.1"
        source.write_text(f"int cuDriverGetVersion(int *v) {{ *v = {version}; return 0; }}")
        subprocess.run(["cc", "-shared", "-o", library, source], check=True)
        (tmp_path / "version").write_text("NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.54.15\nGCC version 12.3")
        monkeypatch.setattr(machine, "DRIVER", str(library))
        monkeypatch.setattr(machine, "DRIVER_FILE", str(tmp_path / "version"))

    return install


@pytest.mark.skipif(shutil.which("cc") is None, reason="needs a C compiler")
@pytest.mark.skipif(torch.cuda.is_available() or not torch.version.cuda, reason="needs a CUDA build and no GPU")
def test_a_driver_that_is_too_old_is_named(driver_for: Callable[[int], None]) -> None:
    """Oracle: by hand. 12040 is CUDA 12.4, which does not run a build for CUDA 13; torch itself says no GPU."""
    driver_for(12040)
    built = torch.version.cuda.split(".")[0]
    reason = f"NVIDIA driver 550.54.15 supports CUDA 12.4, CUDA {built} is needed; update the driver to 580 or newer"
    with pytest.raises(StageError, match=f"^asked for cuda, torch .* sees no GPU: the {reason}, or set `device: cpu`"):
        device.choose("cuda")
    assert device.choose("auto") == CPU and device.describe(CPU, "auto").endswith(f"the {reason})")
    assert device.describe(CPU, "cpu") == "cpu"


@pytest.mark.skipif(shutil.which("cc") is None, reason="needs a C compiler")
@pytest.mark.parametrize(
    ("version", "built", "old"),
    [
        (13000, "13.2", False),
        (12090, "12.4", False),
        (12090, "13.0", True),
        (14000, "13.2", False),
        (0, "13.2", False),
        (12040, None, False),
    ],
)
def test_which_drivers_are_too_old(
    driver_for: Callable[[int], None], version: int, built: str | None, old: bool
) -> None:
    """Oracle: NVIDIA's minor version compatibility: a driver runs every build of its own CUDA's major version."""
    driver_for(version)
    assert machine.driver_cuda() == ((version // 1000, version % 1000 // 10) if version else None)
    assert (machine.old_driver(built) is not None) == old


def test_no_driver_is_no_old_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "DRIVER", "libnone.so.1")
    monkeypatch.setattr(machine, "DRIVER_FILE", "/none")
    assert (machine.driver_cuda(), machine.driver_version(), machine.old_driver("13.2")) == (None, None, None)


def test_a_gpu_that_torch_cannot_use(monkeypatch: pytest.MonkeyPatch) -> None:
    """Oracle: by hand. `auto` trains on the CPU and says why, where a GPU is seen."""
    monkeypatch.setattr(device, "old_driver", lambda built: None)
    for seen, built, said in ((True, "13.2", "cannot use the GPU that is seen"), (True, None, "is a CPU-only build")):
        monkeypatch.setattr(device, "sees_gpu", lambda seen=seen: seen)
        monkeypatch.setattr(torch.version, "cuda", built)
        assert said in device.describe(CPU, "auto")
    monkeypatch.setattr(device, "sees_gpu", lambda: False)
    assert device.describe(CPU, "auto") == "cpu"


@pytest.mark.skipif(shutil.which("make") is None, reason="needs make")
@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("echo 550.54.15; echo 550.54.15", "all runs on the CPU: NVIDIA driver 550.54.15 is too old for CUDA {cuda}"),
        ("echo 580.65.06", "NVIDIA GPU seen, driver 580.65.06; params.yaml has 'device: auto'"),
        ("echo version mismatch; exit 18", "all runs on the CPU: nvidia-smi fails (version mismatch)"),
    ],
)
def test_make_says_what_the_driver_is_worth(tmp_path: Path, script: str, said: str) -> None:
    """Oracle: by hand, for the CUDA version that requirements.lock installs."""
    tool = tmp_path / "nvidia-smi"
    tool.write_text(f"#!/bin/sh\n{script}\n")
    tool.chmod(0o755)
    environment = os.environ | {"PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}"}
    done = subprocess.run(["make", "welcome"], cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
    cuda = re.findall(r"^nvidia-cuda-runtime==(\d+)", (ROOT / "requirements.lock").read_text(), re.M)[0]
    assert f"  device    {said.format(cuda=cuda)}" in done.stdout
    assert f"LEAST_DRIVER := {machine.LEAST_DRIVER[int(cuda)]}\n" in (ROOT / "Makefile").read_text()


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
