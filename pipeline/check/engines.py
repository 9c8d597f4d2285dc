"""OpenVINO beside onnxruntime, with `check.engines`: how far its outputs differ, what it loses of
the metric, how many inputs it answers in a second.

The files are those that onnxruntime has passed. What is measured here decides which engine `infer`
takes by itself, and nothing else: it is in speed.json, and the results in git are the same with
OpenVINO and without it.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from convline.errors import DeviceError, ModelFileError
from convline.loading import load_file, open_model
from convline.model_file.registry import variant_file_name
from convline.runtime.engine import BF16, ONNXRUNTIME, Engine
from convline.runtime.host import usable_cores

from pipeline.check.parity import measure_parity
from pipeline.check.predictions import LARGE_BATCH, Model, Outputs, predict
from pipeline.check.tasks import TASKS
from pipeline.check.variant_selection import MIN_SPEEDUP, judge_variant
from pipeline.data.dataset import Data
from pipeline.params.schema import Check

# bfloat16 has 8 significant bits and float16 has 11: each rounding is off by 2^3 times as much.
BF16_TO_FP16 = 8
MOST_BATCH = 32  # larger ones are not timed: `infer` gains little by them
ROUNDS = 3  # in which engines take turns, so that a slow second of the machine slows all

Rows = list[dict[str, Any]]  # of parity


class OnnxRuntimeResult(NamedTuple):
    """What onnxruntime computes from one file on the CPU."""

    answers: Outputs  # for the test split
    parity: Rows  # differences from torch


def measure_openvino(
    name: str,
    folder: Path,
    source: Data,
    x: dict[str, np.ndarray],
    torch_outputs: dict[str, Outputs],
    beside: dict[str, OnnxRuntimeResult],
    base: str,
    metric: str,
    checks: Check,
) -> dict[str, Any]:
    """Return {"engine", "variant", "why", "version", "files", "rates"} for the CPU.

    folder: with the files; beside: by variant, those that ship; base: the variant that is
    recommended for onnxruntime. files: by variant the verdict of `judge_variant`, or "accepted" and
    "why" alone.
    """
    verdicts: dict[str, dict[str, Any]] = {}
    contenders = {
        (ONNXRUNTIME.name, variant): open_for_workers(folder, variant, ONNXRUNTIME)
        for variant in dict.fromkeys((base, "fp32"))  # fp32: what gains are told against
    }
    for variant in [v for v in ("fp32", BF16, "int8") if v == BF16 or v in beside]:
        file = "fp32" if variant == BF16 else variant
        if variant == BF16 and TASKS[source.task].lose is None:
            continue  # the task has no precision but fp32
        try:
            model = open_for_workers(folder, file, Engine("openvino", variant == BF16))
            place = {"provider": "cpu", "variant": variant}
            rows = compare_outputs(model, place, folder, x, torch_outputs, beside[file], checks)
        except (DeviceError, ModelFileError) as error:
            verdicts[variant] = {"accepted": False, "why": f"{name}: {variant}: {error}"}
            continue
        verdicts[variant] = judge(name, metric, model, rows, x, beside["fp32"], source, checks)
        if verdicts[variant]["accepted"]:
            contenders["openvino", variant] = model
    rates = list(measure_rates(contenders, x["test"], checks))
    return choose_engine(rates, base) | {
        "version": version("openvino"),
        "files": verdicts,
        "rates": rates,
    }


def open_for_workers(folder: Path, variant: str, engine: Engine) -> Model:
    """Return the model of a file as `infer images` opens it for workers that fill the cores."""
    file = load_file(folder / variant_file_name(variant), "cpu").file
    streams = usable_cores()
    return open_model(file, "cpu", engine=engine, threads=1, spinning=False, streams=streams)


def compare_outputs(
    model: Model,
    place: dict[str, str],
    folder: Path,
    x: dict[str, np.ndarray],
    torch_outputs: dict[str, Outputs],
    beside: OnnxRuntimeResult,
    checks: Check,
) -> Rows:
    """Return rows of parity: of fp32 and bf16 against torch, of int8 against the nearer of torch
    and onnxruntime's int8, which `reference` then names.

    Two engines round the int8 products of one file to other integers. OpenVINO's may be off either
    by no more, on average over all inputs of a kind, than onnxruntime's are off torch. Of the few
    inputs of small batches one may decide the average: these are compared with its own outputs of
    the same inputs in large batches.
    """
    if place["variant"] != "int8":
        limit = BF16_TO_FP16 * checks.fp16_atol if model.engine.bf16 else model.golden_atol
        return measure_parity(model, place, x, torch_outputs, checks.atol, limit)
    other = load_file(folder / variant_file_name("int8"), "cpu")
    references = {
        "torch": torch_outputs,
        "onnxruntime's int8": {kind: predict(other, x[kind], LARGE_BATCH) for kind in x},
    }
    whole = {kind: predict(model, x[kind], LARGE_BATCH) for kind in x}
    by_count = sorted(beside.parity, key=lambda row: row["n"])
    limits = {row["input"]: row["mean_difference"] for row in by_count}  # of the most inputs
    compare = TASKS[model.file.task].compare
    rows = measure_parity(model, place, x, whole, checks.atol, None, whole)
    for row in rows:
        kind = row["input"]
        row |= {"reference": "itself in large batches", "limit": limits[kind]}
        if row["batch"] == LARGE_BATCH:
            facts = {
                name: compare(model, whole[kind], outputs[kind], row["n"], checks.atol)
                for name, outputs in references.items()
            }
            nearer = min(facts, key=lambda name: float(facts[name]["mean_difference"]))
            row |= {"reference": nearer, **facts[nearer]}
        row["passed"] = row["finite"] and row["mean_difference"] <= row["limit"]
    return rows


def judge(
    name: str,
    metric: str,
    model: Model,
    rows: Rows,
    x: dict[str, np.ndarray],
    fp32: OnnxRuntimeResult,
    source: Data,
    checks: Check,
) -> dict[str, Any]:
    """Return whether OpenVINO may be recommended with a variant, and why; with `rows`."""
    variant, failed = rows[0]["variant"], [row for row in rows if not row["passed"]]
    task = TASKS[source.task]
    verdict: dict[str, Any] = {"accepted": not failed}
    if failed and variant == "int8":
        worst = max(failed, key=lambda row: row["mean_difference"])
        what = f"differs from {worst['reference']} by {worst['mean_difference']:.1e} on average"
        verdict["why"] = f"{name}: int8 {what} (limit {worst['limit']:.1e})"
    elif failed:
        worst = max(row["max_difference"] for row in failed)
        limit = failed[0]["limit"]
        verdict["why"] = f"{name}: {variant} differs from torch by {worst:.1e} (limit {limit:.1e})"
    elif variant == "fp32" or task.lose is None:
        worst = max(row["max_difference"] for row in rows)
        verdict["why"] = f"{name}: fp32 differs from torch by {worst:.1e}"
    else:
        loss = task.lose(fp32.answers, task.answers(model, x["test"]), source)
        verdict = judge_variant(name, metric, rows, loss, checks, refused="it is not recommended")
    return verdict | {"rows": rows}


def measure_rates(
    contenders: dict[tuple[str, str], Model], x: np.ndarray, checks: Check
) -> Iterator[dict[str, Any]]:
    """Yield {"engine", "variant", "batch", "per_second"}: the median of rounds in which all take
    turns, each with a worker on each core.
    """
    batches = [batch for batch in checks.batches if batch <= MOST_BATCH][-2:] or [1]
    with ThreadPoolExecutor(usable_cores()) as pool:
        for batch in batches:
            inputs = np.ascontiguousarray(x[np.arange(batch) % len(x)])
            found: dict[tuple[str, str], list[float]] = {key: [] for key in contenders}
            for _ in range(1 + ROUNDS):  # the first warms up
                for key, model in contenders.items():
                    found[key].append(run_workers(pool, model, inputs, checks.seconds / ROUNDS))
            for (engine, variant), rates in found.items():
                place = {"engine": engine, "variant": variant, "batch": batch}
                yield place | {"per_second": float(np.median(rates[1:]))}


def run_workers(pool: ThreadPoolExecutor, model: Model, x: np.ndarray, seconds: float) -> float:
    """Return the samples per second of all workers of a pool, which run the same batch."""
    start = time.perf_counter()

    def repeat(_: int) -> int:
        runs = 0
        while not runs or time.perf_counter() - start < seconds:
            predict(model, x, len(x))
            runs += 1
        return runs

    runs = sum(pool.map(repeat, range(usable_cores())))
    return runs * len(x) / (time.perf_counter() - start)


def choose_engine(rates: list[dict[str, Any]], base: str) -> dict[str, str]:
    """Return the engine and variant that are recommended for many inputs, and why.

    rates: of `measure_rates`. OpenVINO is recommended where its best rate is MIN_SPEEDUP times
    that of onnxruntime with its recommended variant, `base`.
    """
    best = best_rates(rates)
    own = best[ONNXRUNTIME.name, base]
    best = {key: rate for key, rate in best.items() if key[0] != ONNXRUNTIME.name}
    (engine, variant) = max(best, key=lambda key: best[key], default=(ONNXRUNTIME.name, base))
    ratios = {key[1]: rate / own for key, rate in best.items()}
    sentences = [f"{v} {ratio:.2f} times" for v, ratio in ratios.items()]
    why = "openvino answers {} as many as onnxruntime with {}, with a worker on each core"
    why = why.format(", ".join(sentences), base) if best else "openvino passes with no variant"
    if ratios.get(variant, 0.0) < MIN_SPEEDUP:
        engine, variant = ONNXRUNTIME.name, base
    return {"engine": engine, "variant": variant, "why": why}


def best_rates(rates: list[dict[str, Any]]) -> dict[tuple[str, str], float]:
    """Return samples per second by (engine, variant), each at its best batch size.

    rates: of `measure_rates`.
    """
    best: dict[tuple[str, str], float] = {}
    for row in rates:
        key = row["engine"], row["variant"]
        best[key] = max(best.get(key, 0.0), row["per_second"])
    return best
