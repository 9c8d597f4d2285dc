"""The line's exported files on the device: placement, golden samples, parity at four batch sizes,
TF32, CUDA graphs.

Imports no torch, as stage check.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from convline.loading import load_file, open_model
from convline.model_file.onnx_file import ModelFile
from convline.runtime import placement
from convline.runtime.io_binding import bind_batch, copy_outputs, run_bound
from convline.runtime.session import built_providers, open_session

from benchmarks.gpu.clock import Facts, Here, attempt
from pipeline.check import parity, predictions
from pipeline.check.differences import row_differences

ROWS = 256  # so that the largest batch of pipeline.check.parity is one
VARIANTS = {"fp32": "model.onnx", "fp16": "model.fp16.onnx"}  # int8 is for CPUs
FP16_ATOL = 1e-2
CURE = "no exported files were carried along; `python -m benchmarks.gpu --pack` takes those that `make` has made"


def run(here: Here) -> Facts:
    """Yield the facts of each file, the smallest first."""
    if cannot := without_cuda(here.device):
        yield "skipped", cannot
        return
    files = sorted(here.carried.glob("files/*/model.onnx"), key=lambda file: file.stat().st_size)
    if not files:
        yield "skipped", CURE
    for file in files:
        for precision, name in VARIANTS.items():
            key, path = f"{file.parent.name} {precision}", file.with_name(name)
            if here.late():
                yield key, {"not_measured": "out of time"}
            elif path.exists() and not (precision == "fp16" and here.device == "cpu"):
                yield key, attempt(partial(of_file, path, precision, here.device))


def of_file(path: Path, precision: str, on: str) -> dict[str, Any]:
    """Return what one file shows on the device; where it cannot be opened or run there, why."""
    model = load_file(path, on)
    with np.load(path.with_name("torch.npz")) as saved:
        x, y = saved["random"], [saved[key] for key in saved if key.startswith("random_")]
    golden = {"difference": model.replay_golden(), "limit": model.golden_atol}
    rows = rows_of(model, precision, on, tiled(x, ROWS), [tiled(answer, ROWS) for answer in y])
    passed = golden["difference"] <= golden["limit"] and all(row["passed"] for row in rows)
    placed = {
        "placement": placement.count_by_provider(model.session),
        "text": placement.describe_placement(model.session),
    }
    return {"passed": passed, **placed, "golden": golden, "rows": rows}


def rows_of(
    model: predictions.Model, precision: str, on: str, inputs: np.ndarray, answers: list[np.ndarray]
) -> list[dict[str, Any]]:
    """Return rows of parity: the file as it serves, with TF32, and as a CUDA graph."""
    x, y = {"random": inputs}, {"random": answers}
    limit = model.golden_atol if precision == "fp32" else FP16_ATOL
    place = {"provider": on, "variant": precision}
    rows = parity.measure_parity(model, place, x, y, 1e-4, limit)
    if on == "cuda" and precision == "fp32":
        rounded = open_model(model.file, on, tf32=True)
        rows += parity.measure_parity(rounded, place | {"variant": "fp32, TF32"}, x, y, 1e-4, None)
    bindable = "calendar" not in model.file.json["input"]  # one tensor is bound
    if on == "cuda" and bindable and placement.allows_cuda_graph(model.session):
        rows += [
            graph_row(model.file, on, inputs[:n], [o[:n] for o in answers], limit) for n in (1, 7)
        ]
    return rows


def graph_row(
    about: ModelFile, on: str, x: np.ndarray, y: list[np.ndarray], limit: float
) -> dict[str, Any]:
    """Return the parity of a batch that a CUDA graph answers."""
    session = open_session(about.prediction_graph, on, cuda_graph=True)
    binding = bind_batch(session, np.ascontiguousarray(x), on, y)
    run_bound(session, binding)
    run_bound(session, binding)
    facts, _ = row_differences(copy_outputs(binding), y, len(x))
    passed = facts["finite"] and facts["max_difference"] <= limit
    return {
        "provider": on,
        "variant": "graph",
        "batch": len(x),
        **facts,
        "limit": limit,
        "passed": passed,
    }


def tiled(rows: np.ndarray, count: int) -> np.ndarray:
    """Return `count` rows: the first ones, from the start again where they are fewer."""
    return np.ascontiguousarray(rows[np.arange(count) % len(rows)])


def without_cuda(name: str) -> str:
    """Return why what needs onnxruntime's CUDA provider is skipped here, or nothing."""
    if name == "cuda" and "CUDAExecutionProvider" not in built_providers():
        return "this onnxruntime is for the CPU: install onnxruntime-gpu[cuda,cudnn]"
    return ""
