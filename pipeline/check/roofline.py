"""The roofline: what this machine can do at most, and how near a file comes to it.

Williams, Waterman & Patterson 2009, "Roofline: an insightful visual performance model": a rate is
limited by the product rate, and by the memory rate times the operations per byte. The limits are
measured once per machine and kept in out/machine.json. The report draws them because latency alone
does not tell whether a file could be faster: the line's files reach 1 to 64 % of the limit on two
cores, and one far below it waits for something other than arithmetic and memory.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np
from convline.model_file.registry import supports_device

from pipeline.check.machine import describe_machine
from pipeline.check.single_operator import open_operator
from pipeline.core.files import read_json, write_json
from pipeline.core.paths import OUT

FILE = OUT / "machine.json"
SIDE = 1536  # of square matrices; three of them in float32 are 28 MB, more than caches hold
STREAM = 2**26  # floats: 256 MB
REPEATS = 7
BYTES = {"fp32": 4, "fp16": 2, "int8": 1}  # of a number


def has_arithmetic(device: str, precision: str) -> bool:
    """Return whether a device computes in a precision.

    int8 files are for CPUs. The CPU runs fp16 files too, but emulates float16 in float32.
    """
    return supports_device(precision, device) and (device, precision) != ("cpu", "fp16")


def compare_with_limit(
    row: dict[str, Any], precision: str, operations: dict[str, float], limits: dict[str, float]
) -> dict[str, float]:
    """Return achieved operations/s, operations per byte, and the share of the limit at that
    intensity.

    row: a batch and its samples per second; operations: of one sample, {"macs", "weights",
    "moved"}, multiply-adds and the numbers that products read and write; limits: of
    `machine_limits`.
    """
    numbers = operations["weights"] / row["batch"] + operations["moved"]  # of one sample
    intensity = 2 * operations["macs"] / (BYTES[precision] * numbers)
    rate = 2 * operations["macs"] * row["per_second"]
    share = rate / attainable_rate(limits, precision, intensity)
    return {"ops_per_second": rate, "intensity": intensity, "share_of_limit": share}


def attainable_rate(limits: dict[str, float], precision: str, intensity: float) -> float:
    """Return the roofline in operations/s at an intensity in operations per byte."""
    return min(limits.get(precision, limits["fp32"]), limits["stream"] * intensity)


def machine_limits(device: str) -> dict[str, float]:
    """Return operations/s by precision, and bytes/s as "stream", of a device.

    Measured in some seconds where out/machine.json does not hold them for this machine.
    """
    machine = {key: value for key, value in describe_machine().items() if key != "clock_mhz"}
    known = read_json(FILE, "check") if FILE.exists() else {}
    if known.get("machine") != machine:
        known = {"machine": machine, "limits": {}}
    if device not in known["limits"]:
        rates = {p: measure_product_rate(device, p) for p in BYTES if has_arithmetic(device, p)}
        known["limits"][device] = rates | {"stream": measure_memory_rate(device)}
        write_json(FILE, known)
    return dict(known["limits"][device])


def measure_product_rate(device: str, precision: str) -> float:
    """Return the operations/s of one large matrix product: two per multiply-add."""
    rng, shape = np.random.default_rng(0), (SIDE, SIDE)
    if precision == "int8":
        inputs = {
            "a": rng.integers(0, 255, shape, np.uint8),
            "b": rng.integers(-127, 127, shape, np.int8),
        }
        return 2 * SIDE**3 / time_operator(device, "MatMulInteger", inputs, np.int32)
    dtype = np.float32 if precision == "fp32" else np.float16
    inputs = {name: rng.standard_normal(shape).astype(dtype) for name in ("a", "b")}
    return 2 * SIDE**3 / time_operator(device, "MatMul", inputs, dtype)


def measure_memory_rate(device: str) -> float:
    """Return the bytes/s of an operation that reads and writes each number once."""
    x = np.ones(STREAM, np.float32)
    return 2 * x.nbytes / time_operator(device, "Neg", {"x": x}, np.float32)


def time_operator(
    device: str, operator: str, inputs: dict[str, np.ndarray], output_type: type[np.generic]
) -> float:
    """Return the least seconds of one operator, its inputs and its output on the device."""
    from onnxruntime import OrtValue

    session = open_operator(device, operator, inputs, output_type)
    binding, place = session.io_binding(), "cpu" if device == "cpu" else "cuda"
    for name, array in inputs.items():
        binding.bind_ortvalue_input(name, OrtValue.ortvalue_from_numpy(array, place, 0))
    binding.bind_output("out", place)
    times = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        session.run_with_iobinding(binding)
        binding.synchronize_outputs()
        times.append(time.perf_counter() - start)
    return min(times)
