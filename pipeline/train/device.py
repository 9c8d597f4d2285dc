"""The device that torch uses, and settings that make a training repeatable and fast on it."""

from __future__ import annotations

import importlib.util
import os
import shutil
import sysconfig
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from convline.runtime.host import outdated_driver
from convline.runtime.session import sees_gpu
from torch import Tensor, nn

from pipeline.core.errors import StageError
from pipeline.core.stage import note
from pipeline.network.build import MISTAKES, explained
from pipeline.params.schema import Training
from pipeline.train import distributed, small_maps

# From this many channels on images are channels last on the CPU: on two cores VGG-16's step halves,
# Inception's takes a third less, the small detector's, of 64 channels, a sixth; LeNet-5's would
# double.
CHANNELS_LAST_FROM = 64
UNREPEATABLE = (
    "differs from run to run on {}; set `deterministic: false` in params.yaml, or train on the CPU"
)
FIRST_STEPS = 5  # not timed: kernels are chosen and memory is allocated
TIMED_STEPS = 20
# What compiling saves of a step at least, and its cost; estimates that no GPU has confirmed.
SAVED, COMPILING_S = 0.2, 60.0


def choose(request: str) -> torch.device:
    """Return the device for `auto`, `cuda` or `cpu`; `cuda` without a usable GPU is an error."""
    if request == "cpu":
        return torch.device("cpu")
    if torch.cuda.is_available():
        return torch.device("cuda")
    if request == "cuda":
        reason = unusable_gpu() or f"torch {torch.__version__} sees no GPU; check nvidia-smi"
        raise StageError(f"asked for cuda, {reason}, or set `device: cpu` in params.yaml")
    return torch.device("cpu")


def unusable_gpu() -> str | None:
    """Return why torch cannot use this machine's GPU, and the cure; None where there is no GPU."""
    if reason := outdated_driver(
        torch.version.cuda
    ):  # torch itself then says only that there is no GPU
        return f"torch {torch.__version__} sees no GPU: {reason}"
    if not sees_gpu():
        return None
    if not torch.version.cuda:
        return (
            f"torch {torch.__version__} is a CPU-only build; install one with CUDA, as `make` does"
        )
    return f"torch {torch.__version__} cannot use the GPU that is seen; check nvidia-smi"


def describe(device: torch.device, request: str = "") -> str:
    """Return the device in words; with request `auto` also why a GPU is not used."""
    if device.type == "cuda":
        return f"cuda ({torch.cuda.get_device_name(device)})"
    reason = unusable_gpu() if request == "auto" else None
    return f"cpu ({reason})" if reason else "cpu"


def place(net: Any, on: torch.device) -> Any:
    """Return the network on the device, in channels-last memory format where that is faster.

    There, on the CPU, convolutions to small maps are products of matrices.
    """
    widest = max((m.out_channels for m in net.modules() if isinstance(m, nn.Conv2d)), default=0)
    last = widest >= (1 if on.type == "cuda" else CHANNELS_LAST_FROM)
    if last and on.type == "cpu":
        small_maps.use_products(net)
    return net.to(on, memory_format=torch.channels_last) if last else net.to(on)


def batch_memory(shape: tuple[int, ...], to: torch.device) -> Tensor:
    """Return uint8 memory to fill and `send`: pinned for a GPU, or `send` would copy it again."""
    if to.type == "cuda":
        return torch.empty(shape, dtype=torch.uint8, pin_memory=True)
    return torch.from_numpy(np.empty(shape, np.uint8))  # torch.empty fills it where repeatable


def send(numbers: Tensor, to: torch.device) -> Tensor:
    """Return a CPU tensor on the device; pinned memory spares a GPU and its host the waiting."""
    return (numbers.pin_memory() if to.type == "cuda" else numbers).to(to, non_blocking=True)


def missing_for_compiling(on: torch.device) -> str | None:
    """Return what torch.compile lacks on this machine, and the cure; None if nothing."""
    names = ("gcc", "clang", "cc") if on.type == "cuda" else ("g++", "clang++", "c++")
    chosen = os.environ.get("CC" if on.type == "cuda" else "CXX")
    # Debian's default is posix_local; Triton replaces it, too.
    scheme = sysconfig.get_default_scheme().replace("posix_local", "posix_prefix")
    header = Path(sysconfig.get_path("include", scheme), "Python.h")
    if not any(shutil.which(name) for name in ([chosen] if chosen else names)):
        wanted = chosen or ", ".join(names)
        return f"a compiler ({wanted}) is missing; install one, such as Debian's package g++"
    if not header.exists():
        cure = "install Python's headers, such as Debian's package python3-dev"
        return f"{header} is missing; {cure}"
    if on.type == "cuda" and importlib.util.find_spec("triton") is None:
        return "the package triton is missing; install it"
    return None


def compile_where_it_pays(
    loss: Callable[..., Any], net: Any, on: torch.device, steps: int, label: str
) -> Callable[..., Any]:
    """Return `loss`, whose first steps are timed; the others run compiled where that saves time."""
    count, start = 0, 0.0

    def timed(*inputs: Any) -> Any:
        nonlocal count, start
        if count == FIRST_STEPS:
            synchronize(on)
            start = time.perf_counter()
        if count == FIRST_STEPS + TIMED_STEPS:
            synchronize(on)
            (total,) = distributed.sum_over_processes(time.perf_counter() - start)
            seconds, left = total / distributed.size() / TIMED_STEPS, steps - count
            pays = SAVED * seconds * left > COMPILING_S
            if pays:
                net.net.compile()
            if not distributed.rank():
                what = "compiled from here on" if pays else "not compiled"
                step = f"a step takes {1000 * seconds:.1f} ms, {left:,} are left"
                note(f"{label}: {step}: {what}")
        count += 1
        return loss(*inputs)

    return timed


def synchronize(on: torch.device) -> None:
    """Wait until the device has finished its work."""
    if on.type == "cuda":
        torch.cuda.synchronize(on)


def fill_new_tensors(fill: bool) -> None:
    """Let torch write NaN into new tensors before their values, where training is repeatable.

    That is up to a tenth of a step, and no number depends on it, unless a network reads what it
    left unset; then its loss is NaN.
    """
    torch.utils.deterministic.fill_uninitialized_memory = fill  # type: ignore[attr-defined]


def require_repeatable(net: nn.Module, recipe: Training, on: torch.device, label: str) -> None:
    """Raise StageError where deterministic training on a GPU would fail, as torchvision's VGG does.

    Other operations on torch's list of nondeterministic ones are in none of our networks;
    `explain_errors` names them when they raise.
    """
    if on.type != "cuda" or not recipe.deterministic or recipe.head:
        return  # with a head on it, a network may be frozen up to there
    for name, layer in net.named_modules():
        if not isinstance(layer, nn.AdaptiveAvgPool2d) or layer.output_size in (1, (1, 1)):
            continue  # pooling to one pixel is a mean, whose gradient is repeatable
        what = f"the gradient of {name} (AdaptiveAvgPool2d)"
        raise StageError(f"train {label}: {what} {UNREPEATABLE.format(on.type)}")


@contextmanager
def explain_errors(what: str, recipe: Training, on: torch.device) -> Iterator[None]:
    """Raise StageError with a cure for what a device cannot do in a training."""
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError):
        cure = f"lower train.batch ({recipe.train.batch}) or data.size"
        raise StageError(f"{what}: {describe(on)} has too little memory; {cure}") from None
    except RuntimeError as error:
        reason = " ".join(str(error).split())
        if "does not have a deterministic implementation" in reason:
            raise StageError(
                f"{what}: {reason.split()[0]} {UNREPEATABLE.format(on.type)}"
            ) from None
        if type(error).__module__.startswith(("torch._dynamo", "torch._inductor")):
            raise StageError(
                f"{what}: torch.compile failed ({reason[:300]}); set train.compile: off"
            ) from error
        raise explained(error, recipe.arch) from None
    except MISTAKES as error:  # in code that runs in training alone
        raise explained(error, recipe.arch) from None


def make_repeatable(recipe: Training) -> None:
    """Make two runs on one machine give equal numbers, on any number of cores.

    See torch's notes, "Reproducibility". TF32, which rounds the factors of a product to 10 bits, is
    off: evaluation, quantile offsets and the features of heads are computed in float32, as the
    served file computes them. Training steps may use bf16 (train.precision, by autocast). What is
    not set is NaN, until `fill_new_tensors(False)` after a training's first step.

    On two threads and on one, three epochs take LeNet-5 1.55 and .94 s, DenseNet-121 46 and 30 s,
    ResNet-20 14 s both: a second core is better used for a second training.
    """
    deterministic = recipe.deterministic
    torch.use_deterministic_algorithms(deterministic)
    fill_new_tensors(True)
    torch.backends.cudnn.benchmark = not deterministic
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    torch.set_num_threads(recipe.threads)
