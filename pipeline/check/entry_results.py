"""The results of an entry: parity, accuracy and latency of each of its files on each device."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from convline.loading import load_file, open_model
from convline.model_file.registry import supports_device, variant_file_name
from convline.runtime.session import available_devices

from pipeline.check.latency import measure_file
from pipeline.check.limits import broken_limit, document_mismatch, no_better_than_baseline
from pipeline.check.machine import describe_machine
from pipeline.check.parity import float32_rounding_error, measure_parity, stream_difference
from pipeline.check.predictions import predict
from pipeline.check.roofline import has_arithmetic, machine_limits
from pipeline.check.variant_selection import judge_variant, recommend_variant
from pipeline.core.errors import StageError
from pipeline.core.files import read_json
from pipeline.core.paths import OUT, RESULTS
from pipeline.data.dataset import Data
from pipeline.data.raw_windows import choose_raw_windows
from pipeline.evaluate import metrics
from pipeline.evaluate.retrieval import measure_retrieval
from pipeline.export.graph_analysis import BATCH, find_float16_overflow
from pipeline.params.schema import Check

LARGE_BATCH = 256
STREAM_SHARE = 0.1  # of the limit on the difference from torch

Inputs = dict[str, np.ndarray]  # "test" and "random", as served
Outputs = dict[str, list[np.ndarray]]  # torch's for them


@dataclass
class FileResult:
    """What one file on one device was measured to do.

    parity, golden, stream: rows of check.json; timing: as `measure_file` returns it, None where the
    device has no arithmetic of this precision.
    """

    device: str
    variant: str
    digest: str
    outputs: list[np.ndarray]  # for the test split
    parity: list[dict[str, Any]]
    golden: dict[str, Any]
    stream: dict[str, Any] | None
    timing: dict[str, Any] | None


def check_entry(
    name: str, source: Data, checks: Check
) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any], dict[str, str]]:
    """Return the contents of check.json, speed.json, test.npz and digests.json."""
    export = read_json(RESULTS / name / "export.json", f"export@{name}")
    x, torch_outputs = read_torch_outputs(name, source)
    devices = checks.devices or available_devices()
    files = [
        check_file(name, device, variant, x, torch_outputs, source, export["operations"], checks)
        for device in devices
        for variant in export["variants"]
        if supports_device(variant, device)
    ]
    fp32 = next(file for file in files if file.variant == "fp32")
    metric, arrays = measure_metric(fp32.outputs, torch_outputs["test"][0], source)
    recorded = arrays.get("rows", slice(None))  # of a forecaster, the windows with raw files
    for file in (file for file in files if file.timing):
        key = f"predictions_{file.device}_{file.variant}"  # stage infer compares with these
        arrays[key] = file.outputs[0][recorded]
    variants = judge_variants(name, files, source, checks)
    checked: dict[str, Any] = {
        "golden": [file.golden for file in files],
        "rows": [row for file in files for row in file.parity],
        "metric": metric,
        "variants": variants,
    }
    if (features := OUT / name / "export" / "features.npz").exists():
        with np.load(features) as vectors:
            labels = (np.asarray(source.y[split]) for split in ("train", "test"))
            checked["retrieval"], arrays["nearest"] = measure_retrieval(
                vectors["train"], vectors["test"], *labels
            )
    if streams := [file.stream for file in files if file.stream]:
        checked["streams"] = streams
    if "cuda" in devices:
        checked["rounding"] = {"cuda": float32_rounding_error("cuda")}
    labels = source.about.get("labels", [])
    checked["against_baseline"] = metrics.compare_with_best_baseline(metric, labels)
    broken = broken_limit(name, checked) or no_better_than_baseline(name, checked, checks.baseline)
    sentence = broken or describe_pass(checked, checks.atol)
    checked = {"passed": broken is None, "verdict": sentence, **checked}
    timings = [row for file in files if file.timing for row in file.timing["rows"]]
    speed = {
        "machine": describe_machine(),
        "limits": {device: machine_limits(device) for device in devices},
        "rows": timings,
        "files": [
            {"device": file.device, "variant": file.variant}
            | {key: value for key, value in file.timing.items() if key != "rows"}
            for file in files
            if file.timing
        ],
        "choice": {
            device: recommend_variant(device, timings, metric["value"], variants)
            for device in devices
        },
    }
    return checked, speed, arrays, {variant_file_name(file.variant): file.digest for file in files}


def read_torch_outputs(name: str, source: Data) -> tuple[Inputs, Outputs]:
    """Return the inputs of the comparison with torch, and torch's outputs, as stage export left
    them.
    """
    count = 1 if source.task == "classification" else 2
    with np.load(OUT / name / "export" / "torch.npz") as saved:
        x = {"test": source.served("test"), "random": saved["random"]}
        return x, {kind: [saved[f"{kind}_{i}"] for i in range(count)] for kind in x}


def check_file(
    name: str,
    device: str,
    variant: str,
    x: Inputs,
    torch_outputs: Outputs,
    source: Data,
    operations: dict[str, float],
    checks: Check,
) -> FileResult:
    """Return what one file does on one device.

    Raises StageError where its document is not of this entry's data, or where float16 overflows.
    """
    model = load_file(OUT / name / "export" / variant_file_name(variant), device)
    file, place = model.file, {"provider": device, "variant": variant}
    if mismatch := document_mismatch(name, file.json, source.about):
        raise StageError(mismatch)
    limit = {"fp32": model.golden_atol, "fp16": checks.fp16_atol, "int8": None}[variant]
    rows = measure_parity(model, place, x, torch_outputs, checks.atol, limit)
    if (device, variant) == ("cuda", "fp32"):  # what TF32 would change, for the report
        tf32 = open_model(file, device, tf32=True)
        place_tf32 = place | {"variant": "fp32, TF32"}
        rows += measure_parity(tf32, place_tf32, x, torch_outputs, checks.atol, None)
    if variant == "fp16":
        require_float16_range(name, file.path, x)
    outputs = predict(model, x["test"], LARGE_BATCH)
    stream = None
    if file.has_step_graph:
        windows, forecast = x["test"][:LARGE_BATCH], outputs[0][:LARGE_BATCH]
        difference = stream_difference(file, device, windows, forecast)
        limit = STREAM_SHARE * model.golden_atol
        stream = place | {"difference": difference, "limit": limit}
    golden = place | {"difference": model.replay_golden(), "limit": model.golden_atol}
    timing = None
    if has_arithmetic(device, variant):
        timing = measure_file(file, variant, device, x["test"], operations, checks)
    return FileResult(device, variant, file.digest, outputs, rows, golden, stream, timing)


def require_float16_range(name: str, path: Path, x: Inputs) -> None:
    """Raise StageError where a node overflows float16, which the CPU's outputs do not show."""
    graph = onnx.load(path)
    for rows in x.values():
        if node := find_float16_overflow(graph, rows[:BATCH]):
            what = f"fp16: the output of node {node!r} leaves float16's range"
            cure = "take fp16 out of check.variants, or train with a larger weight decay"
            raise StageError(f"{name}: {what}; {cure}; see {path}")


def measure_metric(
    outputs: list[np.ndarray], torch_output: np.ndarray, source: Data
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Return the metric of the test split, and the arrays of test.npz for stage infer and the
    report.
    """
    if source.task == "classification":
        y = np.asarray(source.y["test"])
        metric = metrics.measure_classification(outputs[0], torch_output, y)
        return metric, {"probabilities": outputs[0], "y": y}
    rows = choose_raw_windows(len(outputs[0]), source.about["input"]["context"])
    source = source.alone()
    history, target = source.windows("test", source.about["stride"])
    arrays = {
        "rows": rows,
        "context": history[rows],
        "target": target[rows],
        "forecast": outputs[0][rows],
        "quantiles": outputs[1][rows],
        "quantile_levels": np.array(source.about["forecast"]["quantiles"]),
    }
    metric, backtest = metrics.measure_forecasts(outputs, torch_output, source)
    return metric, arrays | backtest


def judge_variants(
    name: str, files: list[FileResult], source: Data, checks: Check
) -> dict[str, dict[str, dict[str, Any]]]:
    """Return `judge_variant` of each file but fp32, by variant and device.

    It is compared with the fp32 file on the same device.
    """
    fp32 = {file.device: file.outputs[0] for file in files if file.variant == "fp32"}
    judged: dict[str, dict[str, dict[str, Any]]] = {}
    for file in (file for file in files if file.variant != "fp32"):
        y = np.asarray(source.y["test"])
        verdict = judge_variant(name, file.parity, file.outputs[0], fp32[file.device], y, checks)
        judged.setdefault(file.variant, {})[file.device] = verdict
    return judged


def describe_pass(checked: dict[str, Any], atol: float) -> str:
    """Return the verdict of an entry that broke no limit."""
    sentence, beside = "all limits kept", checked["against_baseline"]
    if checked["metric"]["name"] != "accuracy" or not beside["better"]:
        sentence += f"; {beside['sentence']}"
    if rows := max(row.get("beyond", 0) for row in checked["rows"] if row["variant"] == "fp32"):
        cause = "a feature on the edge of a split"
        sentence += f"; {rows} rows differ from torch by more than {atol:g}: {cause}"
    return sentence
