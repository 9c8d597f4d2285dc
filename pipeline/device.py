"""The device that torch uses: never guessed in silence."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from pipeline.stage import StageError
from serve.machine import old_driver
from serve.session import sees_gpu

# Channels: on two CPU cores VGG-16's step halves, Inception's takes a third less, LeNet-5's would double.
CHANNELS_LAST_FROM = 128
COMPILE_FROM = 5000  # steps: at 50 ms each, of which compiling saves a fifth, 50 s


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
    """Return why torch cannot use the GPU of this machine, with the cure; None where no GPU is seen."""
    if reason := old_driver(torch.version.cuda):  # torch itself then says only that there is no GPU
        return f"torch {torch.__version__} sees no GPU: {reason}"
    if not sees_gpu():
        return None
    if not torch.version.cuda:
        return f"torch {torch.__version__} is a CPU-only build; install one with CUDA, as `make` does"
    return f"torch {torch.__version__} cannot use the GPU that is seen; check nvidia-smi"


def describe(device: torch.device, request: str = "") -> str:
    """Return the device in words, for the line that says what was chosen; with `auto`, why a GPU is left unused."""
    if device.type == "cuda":
        return f"cuda ({torch.cuda.get_device_name(device)})"
    reason = unusable_gpu() if request == "auto" else None
    return f"cpu ({reason})" if reason else "cpu"


def place(net: Any, on: torch.device) -> Any:
    """Return the network on the device, its images channels last in memory where that is faster."""
    widest = max((m.out_channels for m in net.modules() if isinstance(m, nn.Conv2d)), default=0)
    last = widest >= (1 if on.type == "cuda" else CHANNELS_LAST_FROM)
    return net.to(on, memory_format=torch.channels_last) if last else net.to(on)


def send(numbers: Tensor, to: torch.device) -> Tensor:
    """Return CPU numbers on the device; a GPU gets them from pinned memory, so that neither waits for the other."""
    return (numbers.pin_memory() if to.type == "cuda" else numbers).to(to, non_blocking=True)


def compiles(choice: str, on: torch.device, steps: int) -> bool:
    """Return whether torch.compile pays: `auto` says so on a GPU where the steps outlast a minute of compiling."""
    return choice == "on" or (choice == "auto" and on.type == "cuda" and steps >= COMPILE_FROM)


def prepare(recipe: dict[str, Any]) -> None:
    """Make two runs on the same machine give the same numbers (torch, "Reproducibility"), on any number of cores.

    On two threads and one, three epochs take LeNet-5 1.55 and .94 s, DenseNet-121 46 and 30 s, ResNet-20 14 s both:
    a second core is better spent on a second training.
    """
    deterministic = recipe.get("deterministic", True)
    torch.use_deterministic_algorithms(deterministic)
    torch.backends.cudnn.benchmark = not deterministic
    torch.set_num_threads(recipe.get("threads", 1))
