"""What a command sends and writes: the system calls of it and its children, by strace if that may
be used.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

CALLS = "openat,open,creat,mkdir,mkdirat,rename,renameat,renameat2,connect,sendto,sendmsg"
NOT_OURS = re.compile(r"/(dev|proc|sys)/")  # terminals, semaphores, facts about the process


def run(command: Sequence[str], home: Path, cwd: Path) -> tuple[list[str], list[str]]:
    """Return (calls that reach beyond this machine, paths that were written), with HOME and
    TMPDIR in a new folder.
    """
    strace, log = shutil.which("strace"), home / "calls"
    works = (
        strace
        and subprocess.run([strace, "true"], capture_output=True, check=False).returncode == 0
    )
    if not works:
        pytest.skip("strace is not installed, or this process may not trace others")
    (home / "tmp").mkdir(parents=True)
    changed = {"HOME": str(home), "TMPDIR": str(home / "tmp"), "PYTHONDONTWRITEBYTECODE": "1"}
    gone = {"ORT_DISABLE_TELEMETRY", "XDG_CACHE_HOME"}
    environment = {name: value for name, value in os.environ.items() if name not in gone} | changed
    watch = [
        str(strace),
        "-f",
        "--seccomp-bpf",
        "-qq",
        "-s",
        "4096",
        "-e",
        f"trace={CALLS}",
        "-o",
        str(log),
    ]
    done = subprocess.run(
        [*watch, *command], env=environment, cwd=cwd, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    lines = log.read_text().splitlines()
    log.unlink()
    far = [
        line
        for line in lines
        if re.search(r"AF_INET6?", line) and "127.0.0.1" not in line and '"::1"' not in line
    ]
    writes = [
        line for line in lines if re.search(r"O_(WRONLY|RDWR|CREAT)|mkdir|rename|creat\(", line)
    ]
    paths = [
        path
        for line in writes
        if not re.search(r"= -1 E", line)
        for path in re.findall(r'"([^"]+)"', line)
    ]
    return far, [str(cwd / path) for path in paths if not NOT_OURS.match(path)]
