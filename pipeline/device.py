"""The device that torch uses: never guessed in silence."""

from __future__ import annotations

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
    return (
        f"cuda ({torch.cuda.get_device_name(device)})"
        if device.type == "cuda"
        else f"cpu ({torch.get_num_threads()} threads)"
    )


def make_deterministic(wanted: bool) -> None:
    """Two runs on the same machine then give the same numbers (torch, "Reproducibility")."""
    torch.use_deterministic_algorithms(wanted)
    torch.backends.cudnn.benchmark = not wanted
