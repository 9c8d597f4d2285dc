"""Describe the machine that timings were measured on."""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import Any

from convline.runtime.host import driver_cuda, driver_version, proc_value, processor
from convline.runtime.session import sees_gpu

GPUS = Path("/proc/driver/nvidia/gpus")


def describe_machine() -> dict[str, Any]:
    """Return processor, cores, clock, system, versions, and of a GPU its name and driver."""
    import onnxruntime

    return {
        "cpu": processor(),
        "cores": os.cpu_count(),
        "clock_mhz": clock_mhz(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "onnxruntime": onnxruntime.__version__,
        **describe_gpu(),
    }


def describe_gpu() -> dict[str, str]:
    """Return the GPUs' names, the driver, and the CUDA version that onnxruntime was built for.

    Empty where no GPU is seen.
    """
    import onnxruntime

    if not sees_gpu():
        return {}
    models = [proc_value(str(file), "Model") for file in sorted(GPUS.glob("*/information"))]
    version = driver_cuda()
    return {
        "gpu": ", ".join(filter(None, models)) or "unknown",
        "driver": driver_version() or "unknown",
        "driver_cuda": "{}.{}".format(*version) if version else "unknown",
        "onnxruntime_cuda": getattr(onnxruntime, "cuda_version", "") or "none",
    }


def clock_mhz() -> int | None:
    """Return the present clock of the first core, None where the system does not show it."""
    clock = proc_value("/proc/cpuinfo", "cpu MHz")
    return round(float(clock)) if clock else None
