"""Facts about this machine: processor, usable cores, peak memory, NVIDIA driver."""

import math
import os
import platform
import re
from pathlib import Path

# Of version 2, of version 1.
QUOTAS = ("/sys/fs/cgroup/cpu.max", "/sys/fs/cgroup/cpu/cpu.cfs_quota_us")
PERIOD = "/sys/fs/cgroup/cpu/cpu.cfs_period_us"
# It comes with NVIDIA's driver, never with a Python package.
DRIVER = "nvcuda.dll" if os.name == "nt" else "libcuda.so.1"
DRIVER_FILE = "/proc/driver/nvidia/version"
# By CUDA's major version; NVIDIA, "CUDA Compatibility", minor versions.
LEAST_DRIVER = {12: "525", 13: "580"}


def processor() -> str:
    """Return the processor's model name; Python knows it on Linux only through /proc."""
    return proc_value("/proc/cpuinfo", "model name") or platform.processor() or platform.machine()


def proc_value(file: str, key: str) -> str | None:
    """Return the text after `key:` in a file of /proc, None where there is none."""
    lines = Path(file).read_text().splitlines() if Path(file).exists() else []
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith(key)), None)


def allowed_cores() -> int:
    """Return how many cores this process may be put on (taskset, cpusets)."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def usable_cores() -> int:
    """Return how many workers can run at once: the allowed cores, within a container's quota."""
    quota = core_quota()
    return allowed_cores() if quota is None else max(1, min(allowed_cores(), math.ceil(quota)))


def core_quota(files: tuple[str, str] = QUOTAS, period: str = PERIOD) -> float | None:
    """Return the cores' worth of time that a container grants, None for no limit.

    Threads beyond it make nothing faster: the kernel stops all of them until the period ends.
    """
    for file in files:
        try:
            words = Path(file).read_text().split()
            quota, every = (*words, Path(period).read_text())[:2] if len(words) == 1 else words
        except OSError:
            continue
        return None if quota in ("max", "-1") else int(quota) / int(every)
    return None


def peak_memory() -> int | None:
    """Return the most bytes that this process has held since it began, where Linux tells it."""
    held = proc_value("/proc/self/status", "VmHWM")
    return int(held.split()[0]) * 1024 if held else None


def driver_cuda() -> tuple[int, int] | None:
    """Return the CUDA version that the NVIDIA driver supports, as (13, 0); None without a driver.

    A program built for CUDA 13 runs on a driver that supports 13.0 or newer. No CUDA context is
    started.
    """
    import ctypes  # here: `infer --help` does not need it

    version = ctypes.c_int()
    try:
        ctypes.CDLL(DRIVER).cuDriverGetVersion(ctypes.byref(version))
    except (OSError, AttributeError):  # no such library, or one that is no driver
        return None
    return (version.value // 1000, version.value % 1000 // 10) if version.value else None


def driver_version() -> str | None:
    """Return the NVIDIA driver's own version, as "580.65.06", where Linux tells it."""
    text = Path(DRIVER_FILE).read_text() if Path(DRIVER_FILE).exists() else ""
    found = re.search(r"\b\d{3,}\.\d+(\.\d+)?\b", text)
    return found.group() if found else None


def outdated_driver(built: str | None) -> str | None:
    """Return why the driver is too old for CUDA "13.2", and the cure; None if it is not."""
    supported = driver_cuda()
    major = int(built.split(".")[0]) if built else 0
    if supported is None or supported[0] >= major:
        return None
    name = " ".join(filter(None, ("the NVIDIA driver", driver_version())))
    least = f"{LEAST_DRIVER[major]} or newer" if major in LEAST_DRIVER else f"one for CUDA {major}"
    return (
        f"{name} supports CUDA {supported[0]}.{supported[1]}, CUDA {major} is needed; "
        f"update the driver to {least}"
    )
