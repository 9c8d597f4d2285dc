"""First step: versions, the driver, CUDA inside a fork as `pipeline.line.fork_server` makes it,
the libraries that were loaded.
"""

from __future__ import annotations

import platform
import re
import subprocess
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from convline.errors import ServeError
from convline.runtime.session import built_providers, open_session
from onnx import helper

from benchmarks.gpu.clock import Facts, Here, forked
from benchmarks.gpu.files import without_cuda
from pipeline.check import machine
from pipeline.export import metadata
from pipeline.train import device

LIBRARY = re.compile(r"\S*/(lib(?:cu|nv|nccl|torch_cuda|onnxruntime_providers)\S*)$", re.M)


def run(here: Here) -> Facts:
    yield "versions", versions()
    yield "machine", machine.describe_machine()
    yield "nvidia-smi", smi()
    if (
        here.full
    ):  # before CUDA is touched in this process: a fork of it could not use it afterwards
        assert not torch.cuda.is_initialized()
    yield "in a fork", in_fork(here.device)
    on = device.choose(here.device)
    yield "torch", {"device": device.describe(on), **product(on), "capability": capability(on)}
    yield "onnxruntime", onnxruntime(here.device)
    yield (
        "libraries",
        sorted({*LIBRARY.findall(Path("/proc/self/maps").read_text(encoding="utf-8"))}),
    )


def versions() -> dict[str, Any]:
    """Return the versions of everything that the figures depend on."""
    found = {
        "python": platform.python_version(),
        "system": platform.platform(),
        **metadata.package_versions(),
    }
    return found | {
        "cuda of torch": torch.version.cuda,
        "cudnn of torch": torch.backends.cudnn.version(),
    }


def smi() -> str:
    """Return the first lines of nvidia-smi: GPU, driver, the CUDA that the driver is for."""
    try:
        done = subprocess.run(
            ["nvidia-smi"], capture_output=True, text=True, check=False, timeout=10
        )
    except FileNotFoundError:
        return "nvidia-smi is not installed"
    return done.stdout[:2000] or done.stderr[:2000]


def product(on: torch.device) -> dict[str, Any]:
    """Return the seconds to a first product on the device, CUDA's own start among them, and
    whether it is right.
    """
    begun = time.perf_counter()
    a = torch.arange(64.0, device=on).reshape(8, 8)
    right = bool((a @ a).cpu().equal(a.cpu() @ a.cpu()))
    return {"first_s": time.perf_counter() - begun, "right": right}


def capability(on: torch.device) -> str | None:
    return "{}.{}".format(*torch.cuda.get_device_capability(on)) if on.type == "cuda" else None


def in_fork(name: str) -> dict[str, Any]:
    """Return whether a fork of this process, whose libraries are imported, computes on the
    device.
    """

    def work() -> None:
        if not product(device.choose(name))["right"]:
            raise ValueError("a product is wrong in a fork")

    begun = time.perf_counter()
    code = forked(work)
    return {"passed": code == 0, "code": code, "seconds": time.perf_counter() - begun}


def onnxruntime(name: str) -> dict[str, Any]:
    """Return what onnxruntime was built for, and whether it opens a session on the device and
    answers rightly there.
    """
    found: dict[str, Any] = {"built_for": built_providers()}
    if cannot := without_cuda(name):
        return found | {"skipped": cannot}
    values = [helper.make_tensor_value_info(key, onnx.TensorProto.FLOAT, (8, 8)) for key in "xy"]
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "x"], ["y"])], "start", values[:1], values[1:]
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    x = np.arange(64, dtype=np.float32).reshape(8, 8)
    try:
        (y,) = open_session(model.SerializeToString(), name).run(None, {"x": x})
    except ServeError as error:
        return found | {"passed": False, "reason": str(error)}
    return found | {"passed": bool((y == x @ x).all())}
