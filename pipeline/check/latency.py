"""How fast a model file runs: latency over batches and threads, the first result, memory,
placement.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from convline.errors import DeviceMemoryError
from convline.loading import open_model
from convline.model_file.onnx_file import ModelFile
from convline.runtime.io_binding import bind_batch, run_bound
from convline.runtime.placement import allows_cuda_graph, count_by_provider, cpu_nodes
from convline.runtime.session import translate_errors

from pipeline.check import roofline
from pipeline.check.predictions import Model, predict
from pipeline.core.errors import StageError
from pipeline.core.stage import note
from pipeline.params.schema import Check

WARM_UP_RUNS, MIN_RUNS, MAX_WINDOWS = 3, 3, 12
WARM_UP_S = 0.05  # at least, of short calls: cores that were idle raise their clocks meanwhile
MAX_RUNS = 500  # of a window: of two together, ten are slower than p99
STABLE = 0.05  # a measurement ends when the medians of two windows differ by less
MIN_GAIN = 1.05  # of throughput; a larger batch that gives less ends the sweep
FIRST_RESULT_PROGRAM = """
import sys, time
sys.modules["torch"] = None
from convline.loading import load_file
model = load_file(sys.argv[1], sys.argv[2])
model.replay_golden()
end = time.time()  # getrusage would count what the parent held before this program began
print(end, *[line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")])
"""
Row = dict[str, Any]  # of speed.json: device, variant, batch, threads, way, timings, share of limit


def measure_file(
    file: ModelFile,
    precision: str,
    device: str,
    x: np.ndarray,
    operations: dict[str, float],
    checks: Check,
) -> dict[str, Any]:
    """Return {"rows", "placement", "first_s", "memory_mb", "bytes"} of one file on one device.

    Of a GPU also {"on_cpu": operators that run on the CPU all the same}, of CUDA {"cuda_graph":
    whether the file can be recorded as one}. x: inputs as served; operations: as in
    `compare_with_limit`. The `way` of a row: "arrays" are copied to the device and back, "bound"
    tensors stay there, "graph" is a CUDA graph on bound tensors.
    """
    cores, limits, rows = os.cpu_count() or 1, roofline.machine_limits(device), []

    def timer(
        way: str, threads: int, time_batch: Callable[[np.ndarray], Row]
    ) -> Callable[[int], Row]:
        def row_of(batch: int) -> Row:
            place = {"device": device, "variant": precision, "batch": batch, "threads": threads}
            inputs = np.ascontiguousarray(x[np.arange(batch) % len(x)])
            row = place | {"way": way} | time_batch(inputs)
            return row | roofline.compare_with_limit(row, precision, operations, limits)

        return row_of

    fewer = [n for n in checks.threads if n < cores and device == "cpu"]
    for threads in [None, *fewer]:  # None: onnxruntime takes every core
        model = open_model(file, device, threads=threads)

        def time_arrays(batch: np.ndarray, model: Model = model) -> Row:
            return time_call(lambda: predict(model, batch, len(batch)), len(batch), checks.seconds)

        batches = [1] if threads else checks.batches
        rows += sweep_batches(timer("arrays", threads or cores, time_arrays), batches)
        facts: dict[str, Any] = {"placement": count_by_provider(model.session)}
    if device != "cpu":
        facts["on_cpu"] = [*dict.fromkeys(node.operator for node in cpu_nodes(model.session))]
    if device == "cuda":
        facts["cuda_graph"] = allows_cuda_graph(model.session)
    if device != "cpu" and "calendar" not in file.json["input"]:  # only one tensor is bound
        for way in ("bound", "graph") if facts.get("cuda_graph") else ("bound",):

            def time_bound(batch: np.ndarray, way: str = way) -> Row:
                return time_bound_batch(file, device, batch, way, checks.seconds)

            rows += measure_while_memory_lasts(timer(way, cores, time_bound), checks.batches)
    facts |= measure_first_result(file.path, device)
    return {"rows": rows, **facts, "bytes": len(file.content)}


def time_bound_batch(file: ModelFile, device: str, x: np.ndarray, way: str, seconds: float) -> Row:
    """Return the timing of a batch that is on the device already, as its output will be.

    way: "bound", or "graph" for a CUDA graph.
    """
    graph = way == "graph"
    model = open_model(file, device, cuda_graph=graph)
    plain = open_model(file, device) if graph else model
    outputs = predict(plain, x, len(x))
    with translate_errors(file.name, f"a batch of {x.shape}"):
        binding = bind_batch(model.session, x, device, outputs)
        return time_call(lambda: run_bound(model.session, binding), len(x), seconds)


def sweep_batches(row_of: Callable[[int], Row], batches: list[int]) -> list[Row]:
    """Return the rows of ever larger batches, up to the first that gains little throughput."""
    rows: list[Row] = []
    for row in measure_while_memory_lasts(row_of, batches):
        rows.append(row)
        if len(rows) > 1 and rows[-1]["per_second"] < MIN_GAIN * rows[-2]["per_second"]:
            break
    return rows


def measure_while_memory_lasts(row_of: Callable[[int], Row], batches: list[int]) -> Iterator[Row]:
    """Yield the row of each batch, up to the first that exceeds the memory of the device.

    Raises DeviceMemoryError where the smallest does.
    """
    for place, batch in enumerate(batches):
        try:
            row = row_of(batch)
        except DeviceMemoryError as error:
            if not place:
                raise
            note(f"{error}; batches from {batch} on are not measured")
            return
        yield row


def time_call(call: Callable[[], object], samples: int, seconds: float) -> Row:
    """Return p50, p90 and p99 of `call` in ms, and samples per second at p50.

    After a warm-up of WARM_UP_RUNS and WARM_UP_S the call is repeated in windows of a third of
    `seconds` or of MAX_RUNS, until the medians of two successive windows agree (`stable`), for
    MAX_WINDOWS at most. The figures are of the last two. Of calls that are longer than a window
    each holds MIN_RUNS, and no third one begins after the time that MAX_WINDOWS of short calls
    take; they are warm after two runs, of which the first may build an engine.
    """
    runs, first = 0, time.perf_counter()
    while runs < WARM_UP_RUNS or time.perf_counter() - first < WARM_UP_S:
        begin = time.perf_counter()
        call()
        runs += 1
        if runs > 1 and time.perf_counter() - begin > seconds:
            break
    windows: list[list[float]] = []
    stable, last_begin = False, time.perf_counter() + MAX_WINDOWS * seconds / 3
    while len(windows) < 2 or not (
        stable or len(windows) == MAX_WINDOWS or time.perf_counter() > last_begin
    ):
        times: list[float] = []
        end = time.perf_counter() + seconds / 3
        while len(times) < MIN_RUNS or (time.perf_counter() < end and len(times) < MAX_RUNS):
            start = time.perf_counter()
            call()
            times.append(time.perf_counter() - start)
        windows.append(times)
        if len(windows) > 1:
            change = np.median(windows[-1]) / np.median(windows[-2]) - 1
            stable = bool(abs(change) < STABLE)
    last = np.concatenate(windows[-2:])
    p50, p90, p99 = (float(np.quantile(last, q)) * 1e3 for q in (0.5, 0.9, 0.99))
    rate = samples / (p50 / 1e3)
    return {"stable": stable, "p50_ms": p50, "p90_ms": p90, "p99_ms": p99, "per_second": rate}


def measure_first_result(path: Path, device: str) -> dict[str, float]:
    """Return the seconds from the start of a new process to its first outputs, and its peak memory.

    The outputs are those of the golden samples.
    """
    start = time.time()
    command = [sys.executable, "-c", FIRST_RESULT_PROGRAM, str(path), device]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["without a message"])[-1]
        what = f"a new process that opens it on {device} ends with {done.returncode}"
        raise StageError(f"{path}: {what}: {reason}")
    end, kilobytes = done.stdout.split()
    return {"first_s": float(end) - start, "memory_mb": int(kilobytes) / 1024}
