"""The model document, the JSON in an ONNX file that makes it a Convline model, and the files with
it.
"""

from __future__ import annotations

import shutil
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from convline.model_file.golden import pack_array, unpack_array
from convline.model_file.onnx_file import seal
from convline.model_file.registry import variant_file_name

from pipeline.data import dataset
from pipeline.export.graph import TENSOR_NAMES, torch_outputs
from pipeline.export.graph_analysis import run_graph
from pipeline.export.quantize import Variant
from pipeline.params.schema import ExportCheck, Recipe

GOLDEN = 4  # samples that travel in the file
RANGE_WINDOWS = 32  # training windows on which `training_range` tries the network
INT8_ATOL = 0.02  # of probabilities, of one int8 file on two processors
SOURCES = ("models", "params.yaml", "pipeline", "serve")  # what a model file is made by
VERSIONED_PACKAGES = ("torch", "onnx", "onnxruntime-gpu", "onnxruntime", "numpy", "pillow")


def model_document(
    name: str,
    recipe: Recipe,
    about: dict[str, Any],
    metrics: dict[str, Any],
    x: np.ndarray,
    outputs: list[np.ndarray],
    atol: float,
) -> dict[str, Any]:
    """Return the document of the fp32 file (its fields: serve/convline/model_file/schema.py).

    about: results/<entry>/data.json; metrics: results/<entry>/train.json; x: inputs as served, of
    which the first are the golden samples, with the outputs of torch and the tolerance `atol`.
    """
    task = about["task"]
    licence = about["licence"] + (f"; weights: {recipe.weights.licence}" if recipe.weights else "")
    golden_inputs = {"input": x[:GOLDEN]}
    if "calendar" in about["input"]:  # beside the history in x
        context, columns = about["input"]["context"], len(about["columns"])
        golden_inputs = {
            "input": x[:GOLDEN, :context, :columns],
            "calendar": x[:GOLDEN, :, columns:],
        }
    target = "forecast" if task == "forecasting" else "labels"
    return {
        "format": 1,
        "name": name,
        "task": task,
        target: about[target],
        "input": about["input"],
        "provenance": {
            "data": {key: about[key] for key in ("source", "hash", "licence")},
            "params": recipe.model_dump(
                mode="json", include={"arch", "data", "net", "train", "size"}
            ),
            "revision": git_revision(),
            "versions": package_versions(),
            "metrics": {"validation": metrics["validation"], "parameters": metrics["parameters"]},
            "licence": licence,
        },
        "golden": {
            **{key: pack_array(array) for key, array in golden_inputs.items()},
            "outputs": {
                output: pack_array(array[:GOLDEN])
                for output, array in zip(TENSOR_NAMES[task][1], outputs, strict=True)
            },
            "atol": atol,
        },
    }


def write_models(
    folder: Path,
    variants: list[Variant],
    document: dict[str, Any],
    fp32_fields: dict[str, Any],
    checks: ExportCheck,
) -> dict[str, dict[str, Any]]:
    """Write each variant's file, its document sealed in; return bytes and facts by precision.

    fp32_fields: what optional outputs add to the document; other variants do not have these.
    """
    written = {}
    for variant in variants:
        fields = fp32_fields
        if variant.precision != "fp32":
            fields = variant_fields(document, variant, checks)
        sealed = seal(variant.graph.SerializeToString(), document | fields)
        (folder / variant_file_name(variant.precision)).write_bytes(sealed)
        written[variant.precision] = {"bytes": len(sealed), **variant.facts}
    return written


def variant_fields(
    document: dict[str, Any], variant: Variant, checks: ExportCheck
) -> dict[str, Any]:
    """Return the fields in which a variant's document differs from that of the fp32 file.

    The golden outputs of fp16 are torch's, within its rounding. Those of int8 are the int8 graph's
    own: they tell whether another processor, whose int8 products may saturate, predicts the same.
    """
    golden = document["golden"] | {"atol": checks.fp16_atol}
    if variant.precision == "int8":
        outputs = run_graph(variant.graph, unpack_array(document["golden"]["input"]))
        names = TENSOR_NAMES[document["task"]][1]
        packed = {name: pack_array(a) for name, a in zip(names, outputs, strict=True)}
        golden |= {"outputs": packed, "atol": INT8_ATOL}
    how = {key: value for key, value in variant.facts.items() if key in ("method", "kept")}
    provenance = document["provenance"] | {"variant": {"precision": variant.precision} | how}
    return {"golden": golden, "provenance": provenance}


def parity_limit(outputs: list[np.ndarray], relative: float) -> float:
    """Return the largest difference from these outputs of torch that stage check allows.

    `relative` of probabilities (N, K), and of the standard deviation of forecasts, to which four
    units in the last place of float32 are added: they matter where forecasts are far from zero.
    """
    if outputs[0].ndim == 2:
        return relative
    spread = float(outputs[0].std()) or 1.0
    largest = max(float(np.abs(output).max()) for output in outputs)
    return relative * spread + 4 * float(np.finfo(np.float32).eps) * largest


def training_range(net: torch.nn.Module, source: dataset.Data) -> dict[str, Any] | None:
    """Return `input.range` of a forecaster's document: the range of its training inputs.

    None where forecasts follow the level and the scale of their window, so that no range limits
    them: this is tried on training windows, moved by ten times their range and scaled by three.
    Calibrated intervals do not grow with the window, since their offsets are in the units of the
    series; where forecasts follow the level alone, the range is that of changes against the
    window's last row.
    """
    about = source.about
    columns, context = len(about["columns"]), about["input"]["context"]
    targets = len(about["forecast"].get("columns", about["columns"]))
    x, train = source.served("train"), source.x["train"]
    width = np.ptp(train, axis=0)
    windows = x[dataset.spread(len(x), RANGE_WINDOWS)]
    before = [values_by_column(output) for output in torch_outputs(net, windows)]

    def follows(scale: float) -> bool:
        moved = windows.copy()
        moved[:, :context, :columns] = scale * moved[:, :context, :columns] + 10 * width
        after = [values_by_column(output) for output in torch_outputs(net, moved)]
        gaps = [
            np.abs(b - (scale * a + 10 * width[:targets])).max(0)
            for a, b in zip(before, after, strict=True)
        ]
        largest = np.abs(moved[:, :context, :targets]).max((0, 1))
        rounding = 16 * float(np.finfo(np.float32).eps) * largest
        return bool((np.max(gaps, 0) <= 1e-3 * scale * width[:targets] + rounding).all())

    if follows(3):
        return None
    history = x[:, :context, :columns]
    kind, seen = ("changes", history - history[:, -1:]) if follows(1) else ("values", train[None])
    return {"of": kind, "low": seen.min((0, 1)).tolist(), "high": seen.max((0, 1)).tolist()}


def values_by_column(output: np.ndarray) -> np.ndarray:
    """Return forecasts (N, S, D) or quantiles (N, S, D, Q) as float64 (values, D)."""
    return np.moveaxis(output, 2, -1).reshape(-1, output.shape[2]).astype(np.float64)


def package_versions() -> dict[str, str]:
    """Return the version of each of VERSIONED_PACKAGES that is installed."""
    versions = {}
    for package in VERSIONED_PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    return versions


def git_revision() -> str:
    """Return the last git commit that changed one of SOURCES, or "no git".

    With "-dirty" where a file of theirs differs from it. Commits of results and pages do not count,
    so that a model that is exported again from the same sources is the same file.
    """

    def git(*words: str) -> str:
        command = ["git", *words, "--", *SOURCES]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        return done.stdout.strip()

    if not Path(".git").exists() or not shutil.which("git"):
        return "no git"
    if not (revision := git("log", "-1", "--format=%H")):
        return "no git"
    return f"{revision}-dirty" if git("status", "--porcelain") else revision
