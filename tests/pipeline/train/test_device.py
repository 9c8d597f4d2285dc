"""The device of training: never chosen without a word, and compiled if that pays."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from convline.runtime import host
from recipes import IMAGE_RECIPE, ROOT, SERIES_RECIPE

from pipeline.core.errors import StageError
from pipeline.data import prepare as data
from pipeline.train import device, loop
from pipeline.train.batches import Batches

CPU = torch.device("cpu")
Resolve = Callable[..., dict[str, Any]]


def fit(recipe: dict[str, Any]) -> tuple[Any, loop.State]:
    return loop.fit(recipe, data.make(recipe.data)[0], on=CPU, label="tiny")


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_cuda_without_a_gpu() -> None:
    with pytest.raises(
        StageError, match=r"asked for cuda, torch .*; check nvidia-smi, or set `device: cpu`"
    ):
        device.choose("cuda")
    assert device.choose("auto") == device.choose("cpu") == CPU


@pytest.fixture
def driver_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Return a function that installs a driver library whose cuDriverGetVersion returns this CUDA
    version.
    """

    def install(version: int) -> None:
        source, library = tmp_path / "driver.c", tmp_path / "libcuda.so.1"
        source.write_text(f"int cuDriverGetVersion(int *v) {{ *v = {version}; return 0; }}")
        subprocess.run(["cc", "-shared", "-o", library, source], check=True)
        (tmp_path / "version").write_text(
            "NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.54.15\nGCC version 12.3"
        )
        monkeypatch.setattr(host, "DRIVER", str(library))
        monkeypatch.setattr(host, "DRIVER_FILE", str(tmp_path / "version"))

    return install


@pytest.mark.skipif(shutil.which("cc") is None, reason="needs a C compiler")
@pytest.mark.skipif(
    torch.cuda.is_available() or not torch.version.cuda, reason="needs a CUDA build and no GPU"
)
def test_a_driver_that_is_too_old_is_named(driver_for: Callable[[int], None]) -> None:
    """12040 is CUDA 12.4, which does not run a build for CUDA 13; torch itself says that there is
    no GPU.
    """
    driver_for(12040)
    built = torch.version.cuda.split(".")[0]
    reason = f"NVIDIA driver 550.54.15 supports CUDA 12.4, CUDA {built} is needed; "
    reason += "update the driver to 580 or newer"
    with pytest.raises(
        StageError,
        match=f"^asked for cuda, torch .* sees no GPU: the {reason}, or set `device: cpu`",
    ):
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
    """NVIDIA's minor version compatibility: a driver runs every build of its own CUDA's major
    version.
    """
    driver_for(version)
    assert host.driver_cuda() == ((version // 1000, version % 1000 // 10) if version else None)
    assert (host.outdated_driver(built) is not None) == old


def test_no_driver_is_no_old_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host, "DRIVER", "libnone.so.1")
    monkeypatch.setattr(host, "DRIVER_FILE", "/none")
    assert (host.driver_cuda(), host.driver_version(), host.outdated_driver("13.2")) == (
        None,
        None,
        None,
    )


def test_a_gpu_that_torch_cannot_use(monkeypatch: pytest.MonkeyPatch) -> None:
    """`auto` trains on the CPU and gives the reason if a GPU is seen."""
    monkeypatch.setattr(device, "outdated_driver", lambda built: None)
    for seen, built, said in (
        (True, "13.2", "cannot use the GPU that is seen"),
        (True, None, "is a CPU-only build"),
    ):
        monkeypatch.setattr(device, "sees_gpu", lambda seen=seen: seen)
        monkeypatch.setattr(torch.version, "cuda", built)
        assert said in device.describe(CPU, "auto")
    monkeypatch.setattr(device, "sees_gpu", lambda: False)
    assert device.describe(CPU, "auto") == "cpu"


@pytest.mark.skipif(shutil.which("make") is None, reason="needs make")
@pytest.mark.parametrize(
    ("script", "said"),
    [
        (
            "echo 550.54.15; echo 550.54.15",
            "all runs on the CPU: NVIDIA driver 550.54.15 is too old for CUDA {cuda}",
        ),
        ("echo 580.65.06", "NVIDIA GPU seen, driver 580.65.06; params.yaml has 'device: auto'"),
        (
            "echo version mismatch; exit 18",
            "all runs on the CPU: nvidia-smi fails (version mismatch)",
        ),
    ],
)
def test_make_states_whether_the_driver_is_new_enough(
    tmp_path: Path, script: str, said: str
) -> None:
    """For the CUDA version that requirements.lock installs."""
    tool = tmp_path / "nvidia-smi"
    tool.write_text(f"#!/bin/sh\n{script}\n")
    tool.chmod(0o755)
    environment = os.environ | {"PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}"}
    done = subprocess.run(
        ["make", "welcome"], cwd=ROOT, env=environment, capture_output=True, text=True, check=True
    )
    cuda = re.findall(
        r"^nvidia-cuda-runtime==(\d+)", (ROOT / "requirements.lock").read_text(), re.M
    )[0]
    assert f"  device    {said.format(cuda=cuda)}" in done.stdout
    assert f"LEAST_DRIVER := {host.LEAST_DRIVER[int(cuda)]}\n" in (ROOT / "Makefile").read_text()


@pytest.mark.long
@pytest.mark.skipif(
    shutil.which("g++") is None, reason="torch.compile needs a C++ compiler on a CPU, none is here"
)
def test_a_compiled_network_trains_like_the_eager_one(resolved: Resolve) -> None:
    """To the noise of float32 sums in another order; the weights have the same names."""
    changes = {"net": {"dropout": 0.0}, "train": {"optimizer": "sgd", "lr": 0.05}}
    net, state = fit(resolved(IMAGE_RECIPE, **changes))
    changes["train"] |= {"compile": "on"}
    compiled, found = fit(resolved(IMAGE_RECIPE, **changes))
    assert list(compiled.state_dict()) == list(net.state_dict())
    for eager, other in zip(state.history, found.history, strict=True):
        assert other == pytest.approx(eager, rel=1e-4)


@pytest.mark.parametrize(
    ("step_s", "steps", "compiled"), [(0.05, 7000, True), (0.05, 5000, False), (0.0, 10**6, False)]
)
def test_compiling_is_decided_after_twenty_steps(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    step_s: float,
    steps: int,
    compiled: bool,
) -> None:
    """A fifth of 6,975 steps of 50 ms is 70 s, of 4,975 steps 50 s; compiling takes 60 s."""
    clock, calls = [0.0], []
    monkeypatch.setattr(device.time, "perf_counter", lambda: clock[0])

    def loss(*given: Any) -> str:
        clock[0] += 100.0 if len(calls) < 5 else step_s  # the first ones are slow, and not counted
        calls.append(given)
        return "loss"

    inner = SimpleNamespace(compile=lambda: calls.append("compiled"))
    timed = device.compile_where_it_pays(loss, SimpleNamespace(net=inner), CPU, steps, "tiny")
    assert [timed(k) for k in range(40)] == ["loss"] * 40
    assert ([calls.index("compiled")] == [25]) if compiled else ("compiled" not in calls)
    what = "compiled from here on" if compiled else "not compiled"
    assert (
        f"tiny: a step takes {1000 * step_s:.1f} ms, {steps - 25:,} are left: {what}"
        in capsys.readouterr().err
    )


@pytest.mark.parametrize(
    ("choice", "on", "deterministic", "expected"),
    [
        ("auto", "cpu", False, "loss"),
        (
            "auto",
            "cuda",
            True,
            "loss",
        ),  # two runs give equal numbers: nothing is decided by the clock
        ("auto", "cuda", False, "timed"),
        ("on", "cpu", True, "compiled"),
        ("off", "cuda", False, "loss"),
    ],
)
def test_when_a_network_is_compiled(
    monkeypatch: pytest.MonkeyPatch,
    resolved: Resolve,
    choice: str,
    on: str,
    deterministic: bool,
    expected: str,
) -> None:
    """Without a compiler training under `auto` runs as it is; under `on` it is an error with the
    cure.
    """
    recipe = resolved(IMAGE_RECIPE, train={"compile": choice}).updated(deterministic=deterministic)
    done: list[str] = []
    net: Any = SimpleNamespace(net=SimpleNamespace(compile=lambda: done.append("compiled")))

    class Rows:
        device = torch.device(on)

        def __len__(self) -> int:
            return 9

    rows = Batches(Rows(), Rows())  # type: ignore[arg-type]
    monkeypatch.setattr(loop.distributed, "average_gradients", lambda *a, **k: "loss")
    monkeypatch.setattr(device, "compile_where_it_pays", lambda *a: done.append("timed") or "loss")
    monkeypatch.setattr(device, "missing_for_compiling", lambda on: None)

    assert loop.training_loss(recipe, net, rows, rows, "tiny", 3) == "loss"
    assert done == ([expected] if expected != "loss" else [])
    monkeypatch.setattr(
        device, "missing_for_compiling", lambda on: "a compiler (gcc) is missing; install one"
    )
    if choice == "on":
        with pytest.raises(
            StageError,
            match=r"^train tiny: train.compile: on is not possible, a compiler \(gcc\) is ",
        ):
            loop.training_loss(recipe, net, rows, rows, "tiny", 3)
    else:
        done.clear()
        assert loop.training_loss(recipe, net, rows, rows, "tiny", 3) == "loss" and done == []


@pytest.mark.parametrize("kind", ["cuda", "cpu"])
def test_what_compiling_needs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    """A compiler on the path, or the one that the environment names, and Python's header."""
    variable = "CC" if kind == "cuda" else "CXX"
    monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "is missing; install one, such as Debian's package g++" in str(
        device.missing_for_compiling(torch.device(kind))
    )
    compiler = tmp_path / "mine"
    compiler.write_text("#!/bin/sh\n")
    compiler.chmod(0o755)
    monkeypatch.setenv(variable, str(compiler))
    monkeypatch.setattr(device.sysconfig, "get_path", lambda *a: str(tmp_path))
    assert device.missing_for_compiling(torch.device(kind)) == (
        f"{tmp_path / 'Python.h'} is missing; install Python's headers, "
        "such as Debian's package python3-dev"
    )
    (tmp_path / "Python.h").touch()
    assert device.missing_for_compiling(torch.device("cpu" if kind == "cpu" else kind)) is None


def test_compile_on_without_a_compiler_is_one_sentence(
    resolved: Resolve, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Training says it before its first step, in place of a traceback from torch."""
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.delenv("CXX", raising=False)
    with pytest.raises(
        StageError,
        match=r"^train tiny: train.compile: on .* is missing; .* set train.compile: off$",
    ):
        fit(resolved(IMAGE_RECIPE, train={"compile": "on"}))


def test_a_nondeterministic_operation_is_named(resolved: Resolve) -> None:
    """torch raises for max_unpool2d on every device; on a GPU also for the gradient of adaptive
    average pooling.
    """
    recipe = resolved(IMAGE_RECIPE).updated(deterministic=True)
    device.make_repeatable(recipe)
    x, places = torch.nn.functional.max_pool2d(torch.rand(1, 1, 4, 4), 2, return_indices=True)
    with (
        pytest.raises(
            StageError,
            match=r"^train tiny: max_unpooling2d_forward_out .*; set `deterministic: false`",
        ),
        device.explain_errors("train tiny", recipe, CPU),
    ):
        torch.nn.functional.max_unpool2d(x, places, 2)
    with (
        pytest.raises(RuntimeError, match="another"),
        device.explain_errors("train tiny", recipe, CPU),
    ):
        raise RuntimeError("another")
    with (
        pytest.raises(
            StageError,
            match=r"^train tiny: cpu has too little memory; lower train.batch \(64\) or ",
        ),
        device.explain_errors("train tiny", recipe, CPU),
    ):
        raise torch.OutOfMemoryError("CUDA out of memory")


def test_new_tensors_are_filled_up_to_the_first_step(
    resolved: Resolve, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a network has left unset, or reads unset, is NaN, each time; no other step pays."""
    seen: dict[str, list[bool]] = {}

    def spy(module: Any, name: str) -> None:
        function = getattr(module, name)

        def called(*args: Any, **options: Any) -> Any:
            seen.setdefault(name, []).append(bool(torch.empty(1000).isnan().all()))
            return function(*args, **options)

        monkeypatch.setattr(module, name, called)

    spy(loop.network, "build")
    spy(loop, "optimizer_step")
    for _ in range(2):
        seen.clear()
        fit(resolved(IMAGE_RECIPE, train={"epochs": 2}).updated(deterministic=True))
        assert seen["build"] == [True]
        assert seen["optimizer_step"] == [True] + [False] * (len(seen["optimizer_step"]) - 1)
        assert len(seen["optimizer_step"]) > 1


@pytest.mark.slow
def test_adaptive_pooling_is_refused_before_training_on_a_gpu(resolved: Resolve) -> None:
    """torch's list.

    It is refused before the network is moved to the GPU, which is not there; a network without it
    is not.
    """
    digits = {"set": "digits", "size": [64, 64], "colour": "rgb"}
    recipe = resolved(
        {"arch": "zoo", "data": digits, "net": {"name": "alexnet"}, "train": {"epochs": 1}}
    )
    source = data.make(recipe.data)[0]
    sentence = r"^train tiny: the gradient of net.net.avgpool .* differs from run to run .*; "
    sentence += "set `deterministic: false`"
    with pytest.raises(StageError, match=sentence):
        loop.fit(recipe, source, on=torch.device("cuda"), label="tiny")
    net = loop.network.build(recipe, source)
    device.require_repeatable(net, recipe, CPU, "tiny")
    device.require_repeatable(
        net, recipe.updated(deterministic=False), torch.device("cuda"), "tiny"
    )
    mean = torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d((1, 1)))
    device.require_repeatable(mean, recipe, torch.device("cuda"), "tiny")


def test_tf32_is_off_wherever_a_network_is_trained(resolved: Resolve) -> None:
    """torch's own flags after training; evaluation and quantile offsets follow in the same process."""
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = True
    fit(resolved(IMAGE_RECIPE))
    assert not torch.backends.cudnn.allow_tf32 and not torch.backends.cuda.matmul.allow_tf32


def test_evaluation_computes_in_float32(monkeypatch: pytest.MonkeyPatch, resolved: Resolve) -> None:
    """The type of the network's outputs.

    Under bf16 a training step computes in it, an evaluation does not.
    """
    seen: set[tuple[bool, torch.dtype]] = set()
    build = loop.network.build

    def watched(*given: Any) -> Any:
        net = build(*given)
        net.net.register_forward_hook(lambda module, x, y: seen.add((module.training, y.dtype)))
        return net

    monkeypatch.setattr(loop.network, "build", watched)
    for base in (IMAGE_RECIPE, SERIES_RECIPE):
        fit(resolved(base, train={"precision": "bf16"}))
    assert (True, torch.bfloat16) in seen and {
        dtype for training, dtype in seen if not training
    } == {torch.float32}


def test_steps_are_those_of_the_windows_that_are_drawn(
    monkeypatch: pytest.MonkeyPatch, resolved: Resolve
) -> None:
    """Of 900 windows 9 are drawn in an epoch: one step, which compiling would not pay for."""

    class Windows:
        device, drawn = torch.device("cuda"), 9

        def __len__(self) -> int:
            return 900

    recipe = resolved(IMAGE_RECIPE, train={"compile": "auto", "batch": 9}).updated(
        deterministic=False
    )
    windows: Any = Windows()
    monkeypatch.setattr(loop.distributed, "average_gradients", lambda *a, **k: "loss")
    monkeypatch.setattr(device, "missing_for_compiling", lambda on: None)
    monkeypatch.setattr(device, "compile_where_it_pays", lambda *a: a[3])
    steps: Any = loop.training_loss(recipe, None, windows, windows, "tiny", 3)
    assert steps == 3
