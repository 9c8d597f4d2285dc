"""How fast a model file runs: latency and throughput over batches and threads, the first result, memory, placement.

A row says how near it comes to what the machine can do (pipeline/check/roofline.py), a file's facts which provider runs its
nodes, as onnxruntime tells it.
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
from convline.images.classifier import Classifier
from convline.loading import open_model
from convline.model_file.onnx_file import ModelFile
from convline.runtime.io_binding import bind, run_bound
from convline.runtime.placement import on_cpu, placement, recordable
from convline.runtime.session import running
from convline.timeseries.forecaster import Forecaster

from pipeline.check import roofline
from pipeline.core.errors import StageError
from pipeline.params.schema import Check

Model = Classifier | Forecaster
WARM_UP, LEAST_RUNS, WINDOWS = 3, 5, 12
STABLE = 0.05  # two windows whose medians are so near end a measurement
WORTH = 1.05  # a larger batch that gives less than this throughput ends the sweep
FIRST = """
import sys, time
sys.modules["torch"] = None
from convline.loading import load_file
model = load_file(sys.argv[1], sys.argv[2])
model.replay_golden()
end = time.time()  # getrusage would count what the parent held before this program began
print(end, *[line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")])
"""


def predict(model: Model, x: np.ndarray, batch: int) -> list[np.ndarray]:
    """Return the file's outputs for x, run in batches of `batch`; an empty x is one empty batch."""
    parts = []
    for start in range(0, max(len(x), 1), batch):
        rows = np.ascontiguousarray(x[start : start + batch])
        parts.append(
            (model.predict_proba(rows),) if isinstance(model, Classifier) else forecast(model, rows)
        )
    return [np.concatenate(column) for column in zip(*parts, strict=True)]


def forecast(model: Forecaster, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return forecast and quantiles for what `Data.served` holds of a series: its history, and its calendar beside."""
    context, columns = model.context, len(model.columns)
    return model.run_encoded(
        x[:, :context, :columns], x[:, :, columns:] if model.calendar else None
    )


def measure(
    contract: ModelFile,
    precision: str,
    device: str,
    x: np.ndarray,
    ops: dict[str, float],
    limits: Check,
) -> dict[str, Any]:
    """Return {"rows", "placement", "first_s", "memory_mb", "bytes"} of one file on one device.

    Of a GPU also {"on_cpu": operators that run on the CPU all the same}, of CUDA {"cuda_graph": whether it takes one}.
    ops: of one sample, {"macs", "weights", "moved"}: multiply-adds, and the numbers that products read and write.
    """
    rows: list[dict[str, Any]] = []
    threads = (
        [0] if device != "cpu" else [0, *(n for n in limits.threads if n < (os.cpu_count() or 1))]
    )
    for count in threads:  # 0: onnxruntime's own choice, every core
        model = open_model(contract, device, threads=count or None)

        def row_of(batch: int, model: Model = model, count: int = count) -> dict[str, Any]:
            given = np.ascontiguousarray(x[np.arange(batch) % len(x)])
            row = {
                "device": device,
                "variant": precision,
                "batch": batch,
                "threads": count or os.cpu_count(),
            }
            row |= {"way": "arrays"}
            row |= timed(lambda: predict(model, given, batch), batch, limits.seconds)
            return row | against_limit(row, precision, ops, roofline.limits(device))

        rows += sweep(row_of, limits.batches if count == 0 else [1])
        placed = placement(model.session)
    facts: dict[str, Any] = {"placement": placed}
    if device != "cpu":
        facts["on_cpu"] = [*dict.fromkeys(node.operator for node in on_cpu(model.session))]
    if device == "cuda":
        facts["cuda_graph"] = recordable(model.session)
    if device != "cpu" and "calendar" not in contract.json["input"]:  # one tensor is bound
        for way in ("bound", "graph") if facts.get("cuda_graph") else ("bound",):

            def bound_row(batch: int, way: str = way) -> dict[str, Any]:
                given = np.ascontiguousarray(x[np.arange(batch) % len(x)])
                row = {
                    "device": device,
                    "variant": precision,
                    "batch": batch,
                    "threads": os.cpu_count(),
                    "way": way,
                }
                row |= bound(contract, device, given, way, limits.seconds)
                return row | against_limit(row, precision, ops, roofline.limits(device))

            rows += that_fit(bound_row, limits.batches)
    return {
        "rows": rows,
        **facts,
        **first_result(contract.path, device),
        "bytes": len(contract.content),
    }


def bound(
    contract: ModelFile, device: str, given: np.ndarray, way: str, seconds: float
) -> dict[str, Any]:
    """Return the timing of a batch that lies on the device already, as does its answer; way graph: as a CUDA graph."""
    model = open_model(contract, device, cuda_graph=way == "graph")
    plain = open_model(contract, device) if way == "graph" else model
    answers = predict(plain, given, len(given))
    with running(contract.name, f"a batch of {given.shape}"):
        binding = bind(model.session, given, device, answers)
        return timed(lambda: run_bound(model.session, binding), len(given), seconds)


def sweep(row_of: Callable[[int], dict[str, Any]], batches: list[int]) -> list[dict[str, Any]]:
    """Return the rows of ever larger batches, up to the first that gives hardly more throughput than the one before."""
    rows: list[dict[str, Any]] = []
    for row in that_fit(row_of, batches):
        rows.append(row)
        if len(rows) > 1 and rows[-1]["per_second"] < WORTH * rows[-2]["per_second"]:
            break
    return rows


def that_fit(
    row_of: Callable[[int], dict[str, Any]], batches: list[int]
) -> Iterator[dict[str, Any]]:
    """Yield the row of each batch, up to the first for which the device's memory is too small; the first must fit."""
    for place, batch in enumerate(batches):
        try:
            row = row_of(batch)
        except DeviceMemoryError as error:
            if not place:
                raise
            print(f"   {error}; batches from {batch} on are not measured", file=sys.stderr)
            return
        yield row


def timed(call: Callable[[], object], samples: int, seconds: float) -> dict[str, Any]:
    """Return p50, p90 and p99 of `call` in ms, and samples per second at p50.

    After a warm-up, windows of `seconds` / 3 each are taken until two that follow one another agree, WINDOWS at most;
    `stable` says whether they did. The figures are of all windows from the one before the last on.
    """
    for _ in range(WARM_UP):
        call()
    windows: list[list[float]] = []
    while len(windows) < WINDOWS:
        times: list[float] = []
        end = time.perf_counter() + seconds / 3
        while time.perf_counter() < end or len(times) < LEAST_RUNS:
            start = time.perf_counter()
            call()
            times.append(time.perf_counter() - start)
        windows.append(times)
        if (
            stable := len(windows) > 1
            and abs(np.median(windows[-1]) / np.median(windows[-2]) - 1) < STABLE
        ):
            break
    p50, p90, p99 = (
        float(np.quantile(np.concatenate(windows[-2:]), q)) * 1e3 for q in (0.5, 0.9, 0.99)
    )
    facts = {"runs": sum(map(len, windows)), "stable": bool(stable)}
    return facts | {
        "p50_ms": p50,
        "p90_ms": p90,
        "p99_ms": p99,
        "per_second": samples / (p50 / 1e3),
    }


def against_limit(
    row: dict[str, Any], precision: str, ops: dict[str, float], limit: dict[str, float]
) -> dict[str, float]:
    """Return achieved operations/s, operations per byte, and the share of the machine's limit at that intensity."""
    width = roofline.WIDTHS[precision]
    moved = width * (ops["weights"] / row["batch"] + ops["moved"])  # bytes a sample
    intensity = 2 * ops["macs"] / moved
    achieved = 2 * ops["macs"] * row["per_second"]
    share = achieved / roofline.bound(limit, precision, intensity)
    return {"ops_per_second": achieved, "intensity": intensity, "share_of_limit": share}


def first_result(path: Path, device: str) -> dict[str, float]:
    """Return the seconds from the start of a new process to its first answers, and the most memory that it held."""
    start = time.time()
    words = [sys.executable, "-c", FIRST, str(path), device]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["it says nothing"])[-1]
        raise StageError(
            f"{path}: a new process that opens it on {device} ends with {done.returncode}: {reason}"
        )
    end, kilobytes = done.stdout.split()
    return {"first_s": float(end) - start, "memory_mb": int(kilobytes) / 1024}
