"""The machine that a command runs on: its processor, the cores that this process may use, its peak memory."""

import math
import os
import platform
from pathlib import Path

QUOTAS = ("/sys/fs/cgroup/cpu.max", "/sys/fs/cgroup/cpu/cpu.cfs_quota_us")  # of version 2, of version 1
PERIOD = "/sys/fs/cgroup/cpu/cpu.cfs_period_us"


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
    """Return how many workers can run at once: the cores allowed, and no more than a container's quota is worth."""
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
