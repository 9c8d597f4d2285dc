"""What this machine can do at most: its product rate by precision and its memory rate, measured once (the roofline).

Williams, Waterman & Patterson 2009, "Roofline": a rate is bounded by the product rate, and by the memory rate times the
operations done for each byte that is moved. Kept in out/machine.json under the machine's description.
"""

from __future__ import annotations

import os
import platform
import time
from pathlib import Path
from typing import Any

import numpy as np
from convline.model_file.registry import runs_on
from convline.runtime.host import driver_cuda, driver_version, proc_value, processor
from convline.runtime.session import open_session, sees_gpu

from pipeline.core.files import read_json, write_json
from pipeline.core.paths import OUT

FILE = OUT / "machine.json"
SIDE = 1536  # of the square matrices: three of them in float32 are 28 MB, beyond the caches' reach
STREAM = 2**26  # floats: 256 MB
REPEATS = 7
GPUS = Path("/proc/driver/nvidia/gpus")
WIDTHS = {"fp32": 4, "fp16": 2, "int8": 1}  # bytes of a number


def computes(device: str, precision: str) -> bool:
    """Return whether a device has arithmetic of a precision: the CPU plays float16 in fp32, int8 is for CPUs."""
    return runs_on(precision, device) and (device, precision) != ("cpu", "fp16")


def describe() -> dict[str, Any]:
    """Return what the timings were measured on."""
    import onnxruntime

    return {
        "cpu": processor(),
        "cores": os.cpu_count(),
        "clock_mhz": clock_mhz(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "onnxruntime": onnxruntime.__version__,
        **gpu(),
    }


def gpu() -> dict[str, str]:
    """Return the GPUs' names, their driver and the CUDA that onnxruntime is built for; nothing where none is seen."""
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
    """Return the first core's clock now, where it can be read."""
    found = proc_value("/proc/cpuinfo", "cpu MHz")
    return round(float(found)) if found else None


def limits(device: str) -> dict[str, float]:
    """Return operations/s by precision and bytes/s of a device; measured where it was not before (seconds)."""
    about = {key: value for key, value in describe().items() if key != "clock_mhz"}
    known = read_json(FILE, "check") if FILE.exists() else {}
    if known.get("machine") != about:
        known = {"machine": about, "limits": {}}
    if device not in known["limits"]:
        rates = {p: product_rate(device, p) for p in WIDTHS if computes(device, p)}
        known["limits"][device] = rates | {"stream": stream_rate(device)}
        write_json(FILE, known)
    return dict(known["limits"][device])


def bound(limit: dict[str, float], precision: str, intensity: float) -> float:
    """Return the roofline in operations/s: intensity in operations per byte."""
    return min(limit.get(precision, limit["fp32"]), limit["stream"] * intensity)


def product_rate(device: str, precision: str) -> float:
    """Return the operations/s of one large matrix product, two for each multiply-add."""
    from onnx import TensorProto

    rng = np.random.default_rng(0)
    shape = (SIDE, SIDE)
    if precision == "int8":
        a, b = rng.integers(0, 255, shape, np.uint8), rng.integers(-127, 127, shape, np.int8)
        given, made = (TensorProto.UINT8, TensorProto.INT8), TensorProto.INT32
    else:
        a, b = (
            rng.standard_normal(shape).astype("float32" if precision == "fp32" else "float16")
            for _ in range(2)
        )
        kind = TensorProto.FLOAT if precision == "fp32" else TensorProto.FLOAT16
        given, made = (kind, kind), kind
    seconds = best_time(
        device, "MatMulInteger" if precision == "int8" else "MatMul", {"a": a, "b": b}, given, made
    )
    return 2 * SIDE**3 / seconds


def stream_rate(device: str) -> float:
    """Return the bytes/s of an operation that reads and writes each number once."""
    from onnx import TensorProto

    x = np.ones(STREAM, np.float32)
    return (
        2 * x.nbytes / best_time(device, "Neg", {"a": x}, (TensorProto.FLOAT,), TensorProto.FLOAT)
    )


def best_time(
    device: str, operator: str, inputs: dict[str, np.ndarray], given: tuple[int, ...], made: int
) -> float:
    """Return the least seconds of one operator, inputs and output on the device."""
    import onnxruntime
    from onnx import helper

    shapes = [array.shape for array in inputs.values()]
    values = [
        helper.make_tensor_value_info(n, k, s)
        for n, k, s in zip(inputs, given, shapes, strict=True)
    ]
    out = helper.make_tensor_value_info("out", made, shapes[0])
    graph = helper.make_graph(
        [helper.make_node(operator, [*inputs], ["out"])], "limit", values, [out]
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    session = open_session(model.SerializeToString(), device)
    binding, place = session.io_binding(), "cpu" if device == "cpu" else "cuda"
    for name, array in inputs.items():
        binding.bind_ortvalue_input(name, onnxruntime.OrtValue.ortvalue_from_numpy(array, place, 0))
    binding.bind_output("out", place)
    times = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        session.run_with_iobinding(binding)
        binding.synchronize_outputs()
        times.append(time.perf_counter() - start)
    return min(times)
