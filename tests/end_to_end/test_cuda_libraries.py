"""All libraries that a GPU machine loads come from the wheels that `make` installs, except the
NVIDIA driver.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from importlib.util import find_spec
from pathlib import Path

import pytest

DRIVER = {"libcuda.so.1"}
NVIDIA = re.compile(r"lib(cu|nv|nccl)")  # by name: CUDA, cuDNN, NCCL, NVSHMEM
ROOT = Path(__file__).parents[2]
PRELOADED = """
import onnxruntime, re, sys
onnxruntime.preload_dlls()
found = sorted(set(re.findall(r"/.*/nvidia/.*", open("/proc/self/maps").read())))
print("loaded", *found, sep="\\n")
"""


def package(name: str) -> Path:
    """Return the folder of an installed package, without importing it."""
    spec = find_spec(name)
    assert spec and spec.submodule_search_locations, f"{name} is not installed; run make"
    return Path(next(iter(spec.submodule_search_locations)))


def needed(library: Path, folders: set[str] | None = None) -> dict[str, str | None]:
    """Return where the dynamic loader finds the libraries that a library needs, recursively; None:
    nowhere.
    """
    place = {**os.environ, "LD_LIBRARY_PATH": os.pathsep.join(sorted(folders or ()))}
    done = subprocess.run(["ldd", library], capture_output=True, text=True, check=True, env=place)
    pairs = re.findall(r"^\s*(\S+) => (not found|/\S+)", done.stdout, re.M)
    return {
        name: None if path == "not found" else str(Path(path).resolve()) for name, path in pairs
    }


def preloaded() -> list[Path]:
    """Return NVIDIA's libraries in a process after onnxruntime has loaded them as
    convline.runtime.session makes it do.
    """
    done = subprocess.run(
        [sys.executable, "-c", PRELOADED], capture_output=True, text=True, check=True
    )
    return [Path(line) for line in done.stdout.partition("loaded\n")[2].splitlines()]


def assert_from_wheels(found: dict[str, str | None]) -> None:
    """Assert that each of NVIDIA's libraries is in site-packages; only the driver's may be missing."""
    assert {name for name, path in found.items() if path is None} <= DRIVER
    wheels = str(package("onnxruntime").resolve().parent)
    outside = {
        n: p
        for n, p in found.items()
        if NVIDIA.match(n) and n not in DRIVER and not str(p).startswith(wheels)
    }
    assert not outside


def test_the_cuda_provider_finds_its_libraries() -> None:
    """The dynamic loader, with the folders of what onnxruntime preloads. libcurand comes only by an
    extra.
    """
    provider = package("onnxruntime") / "capi" / "libonnxruntime_providers_cuda.so"
    loaded = preloaded()
    found = needed(provider, {str(path.parent) for path in loaded})
    assert_from_wheels(found)
    assert {"libcurand.so.10", "libcublas.so.13", "libcudart.so.13"} <= {
        *found
    }  # the oracle sees its NEEDED entries
    names = {path.name for path in loaded}
    assert {
        name for name in found if NVIDIA.match(name)
    } - DRIVER <= names and "libcudnn.so.9" in names


def test_torchs_cuda_library_finds_its_libraries() -> None:
    """The dynamic loader alone: torch's library itself names the wheels' folders."""
    found = needed(package("torch") / "lib" / "libtorch_cuda.so")
    assert_from_wheels(found)
    assert {"libcudnn.so.9", "libnccl.so.2", "libcudart.so.13"} <= {*found}


@pytest.mark.parametrize("extra", ["gpu", "train"])
def test_each_extra_brings_cudas_libraries(extra: str) -> None:
    """The metadata of onnxruntime-gpu: these extras list CUDA's wheels and cuDNN's."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    (asked,) = [
        line
        for line in project["optional-dependencies"][extra]
        if line.startswith("onnxruntime-gpu")
    ]
    assert re.fullmatch(r"onnxruntime-gpu\[cuda,cudnn\]>=1\.31\.1", asked)
