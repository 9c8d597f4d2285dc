"""The results of an entry: parity, accuracy and latency of each of its files on each device."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from convline.loading import load_file, open_model
from convline.model_file.registry import supports_device, variant_file_name
from convline.runtime.engine import has_openvino
from convline.runtime.session import available_devices
from convline.timeseries.forecaster import Forecaster

from pipeline.check.engines import OnnxRuntimeResult, measure_openvino
from pipeline.check.latency import measure_file
from pipeline.check.limits import broken_limit, document_mismatch, no_better_than_baseline
from pipeline.check.machine import describe_machine
from pipeline.check.parity import float32_rounding_error, measure_parity, stream_difference
from pipeline.check.predictions import LARGE_BATCH, Outputs, predict
from pipeline.check.predictions import answers as outputs_as_answers
from pipeline.check.roofline import has_arithmetic, machine_limits
from pipeline.check.tasks import TASKS
from pipeline.check.variant_selection import judge_variant, recommend_variant
from pipeline.core.errors import StageError
from pipeline.core.files import read_json
from pipeline.core.paths import OUT, RESULTS
from pipeline.data.dataset import Data, describe_far
from pipeline.evaluate.retrieval import measure_retrieval
from pipeline.export.graph_analysis import BATCH, find_float16_overflow
from pipeline.params.schema import Check

STREAM_SHARE = 0.1  # of the limit on the difference from torch

Inputs = dict[str, np.ndarray]  # "test" and "random", as served
TorchOutputs = dict[str, Outputs]  # for them, and "answers", which the metric judges


@dataclass
class FileResult:
    """What one file on one device was measured to do.

    parity, golden, stream: rows of check.json; timing: as `measure_file` returns it, None where the
    device has no arithmetic of this precision.
    """

    device: str
    variant: str
    digest: str
    answers: Outputs  # for the test split
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
    with_openvino = measures_openvino(checks, devices)
    files = [
        check_file(name, device, variant, x, torch_outputs, source, export["operations"], checks)
        for device in devices
        for variant in export["variants"]
        if supports_device(variant, device)
    ]
    fp32 = next(file for file in files if file.variant == "fp32")
    task = TASKS[source.task]
    metric, arrays = task.measure(fp32.answers, torch_outputs["answers"], source)
    recorded = arrays.get("rows", slice(None))  # of a forecaster, the windows with raw files
    for file in (file for file in files if file.timing):
        key = f"predictions_{file.device}_{file.variant}"  # stage infer compares with these
        arrays[key] = task.record(file.answers)[recorded]
    variants = judge_variants(name, metric["name"], files, source, checks)
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
    checked["against_baseline"] = task.compare_with_baseline(metric, source)
    broken = broken_limit(name, checked, describe_far(source.about)) or no_better_than_baseline(
        name, checked, checks.baseline
    )
    sentence = broken or describe_pass(checked, checks.atol, task.BEYOND)
    checked = {"passed": broken is None, "verdict": sentence, **checked}
    timings = [row for file in files if file.timing for row in file.timing["rows"]]
    speed: dict[str, Any] = {
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
            device: recommend_variant(device, timings, metric, variants) for device in devices
        },
    }
    if with_openvino and broken is None:
        ships = [
            "fp32",
            *(v for v, on in variants.items() if "cpu" in on and on["cpu"]["accepted"]),
        ]
        beside = {
            file.variant: OnnxRuntimeResult(file.answers, file.parity)
            for file in files
            if file.device == "cpu" and file.variant in ships
        }
        base = speed["choice"]["cpu"]["variant"]
        speed["engines"] = {
            "cpu": measure_openvino(
                name, OUT / name / "export", source, x, torch_outputs, beside, base,
                metric["name"], checks,
            )
        }  # fmt: skip
    return checked, speed, arrays, {variant_file_name(file.variant): file.digest for file in files}


def measures_openvino(checks: Check, devices: Sequence[str]) -> bool:
    """Return whether OpenVINO is measured; StageError where it is asked for and is not installed,
    or the CPU is not among the devices.
    """
    asked = "openvino" in checks.engines
    if asked and not has_openvino():
        what = "check.engines: expected engines that are installed, got openvino"
        raise StageError(f"{what}; pip install 'convline[openvino]', or leave it out")
    if asked and "cpu" not in devices:
        what = f"check.engines: openvino is for the CPU, got the devices {', '.join(devices)}"
        raise StageError(f"{what}; add cpu to check.devices, or leave openvino out")
    return asked or ("all" in checks.engines and has_openvino() and "cpu" in devices)


def read_torch_outputs(name: str, source: Data) -> tuple[Inputs, TorchOutputs]:
    """Return the inputs of the comparison with torch, and torch's outputs, as stage export left
    them.

    Torch's answers are its outputs for the test split, unless export saved others.
    """
    with np.load(OUT / name / "export" / "torch.npz") as saved:
        x = {"test": source.served("test"), "random": saved["random"]}
        outputs = {
            kind: [saved[key] for key in sorted(saved) if key.startswith(f"{kind}_")]
            for kind in (*x, "answers")
        }
    return x, outputs | {"answers": outputs["answers"] or outputs["test"]}


def check_file(
    name: str,
    device: str,
    variant: str,
    x: Inputs,
    torch_outputs: TorchOutputs,
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
    whole = {kind: predict(model, inputs, LARGE_BATCH) for kind, inputs in x.items()}
    rows = measure_parity(model, place, x, torch_outputs, checks.atol, limit, whole)
    if (device, variant) == ("cuda", "fp32"):  # what TF32 would change, for the report
        tf32 = open_model(file, device, tf32=True)
        place_tf32 = place | {"variant": "fp32, TF32"}
        rows += measure_parity(tf32, place_tf32, x, torch_outputs, checks.atol, None)
    if variant == "fp16":
        require_float16_range(name, file.path, x)
    task = TASKS[source.task]
    same = task.answers is outputs_as_answers
    answers = whole["test"] if same else task.answers(model, x["test"])
    del whole  # a segmenter's are its largest arrays
    stream = None
    if file.has_step_graph and isinstance(model, Forecaster):
        windows, forecast = x["test"][:LARGE_BATCH], answers[0][:LARGE_BATCH]
        difference = stream_difference(file, device, windows, forecast)
        limit = STREAM_SHARE * model.golden_atol
        stream = place | {"difference": difference, "limit": limit}
    golden = place | {"difference": model.replay_golden(), "limit": model.golden_atol}
    timing = None
    if has_arithmetic(device, variant):
        timing = measure_file(file, variant, device, x["test"], operations, checks)
    return FileResult(device, variant, file.digest, answers, rows, golden, stream, timing)


def require_float16_range(name: str, path: Path, x: Inputs) -> None:
    """Raise StageError where a node overflows float16, which the CPU's outputs do not show."""
    rows = np.concatenate([part[:BATCH] for part in x.values()])
    if node := find_float16_overflow(onnx.load(path), rows):
        what = f"fp16: the output of node {node!r} leaves float16's range"
        cure = "take fp16 out of check.variants, or train with a larger weight decay"
        raise StageError(f"{name}: {what}; {cure}; see {path}")


def judge_variants(
    name: str, metric: str, files: list[FileResult], source: Data, checks: Check
) -> dict[str, dict[str, dict[str, Any]]]:
    """Return `judge_variant` of each file but fp32, by variant and device.

    It is compared with the fp32 file on the same device.
    """
    if not (lose := TASKS[source.task].lose):
        return {}
    fp32 = {file.device: file.answers for file in files if file.variant == "fp32"}
    judged: dict[str, dict[str, dict[str, Any]]] = {}
    for file in (file for file in files if file.variant != "fp32"):
        loss = lose(fp32[file.device], file.answers, source)
        verdict = judge_variant(name, metric, file.parity, loss, checks)
        judged.setdefault(file.variant, {})[file.device] = verdict
    return judged


def describe_pass(checked: dict[str, Any], atol: float, beyond: str) -> str:
    """Return the verdict of an entry that broke no limit; beyond: the task's BEYOND."""
    sentence, beside = "all limits kept", checked["against_baseline"]
    if checked["metric"]["name"] != "accuracy" or not beside["better"]:
        sentence += f"; {beside['sentence']}"
    if count := max(row.get("beyond", 0) for row in checked["rows"] if row["variant"] == "fp32"):
        sentence += f"; {beyond.format(count=count, atol=atol)}"
    return sentence
