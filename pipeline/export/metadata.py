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
from convline.model_file.golden import pack_array, unpack_array
from convline.model_file.onnx_file import seal
from convline.model_file.registry import variant_file_name
from convline.model_file.schema import FORMAT

from pipeline.export.graph_analysis import run_graph
from pipeline.export.quantize import Variant
from pipeline.export.tasks import TASKS
from pipeline.params.schema import ExportCheck, Recipe

GOLDEN = 4  # samples that travel in the file, fewer where they take more than
GOLDEN_BYTES = 2**20
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
    task, count = TASKS[about["task"]], golden_count([x, *outputs])
    licence = about["licence"] + (f"; weights: {recipe.weights.licence}" if recipe.weights else "")
    return {
        "format": FORMAT,
        "name": name,
        "task": about["task"],
        **task.document_fields(about),
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
            **{
                key: pack_array(array)
                for key, array in task.golden_inputs(about, x[:count]).items()
            },
            "outputs": {
                output: pack_array(array[:count])
                for output, array in zip(task.OUTPUT_NAMES, outputs, strict=True)
            },
            "atol": atol,
        },
    }


def golden_count(arrays: list[np.ndarray]) -> int:
    """Return how many rows of the arrays are golden samples: GOLDEN, or what fits GOLDEN_BYTES."""
    return max(1, min(GOLDEN, GOLDEN_BYTES // sum(array[0].nbytes for array in arrays)))


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
        names = list(TASKS[document["task"]].OUTPUT_NAMES)
        outputs = run_graph(variant.graph, unpack_array(document["golden"]["input"]), names)
        packed = {name: pack_array(a) for name, a in zip(names, outputs, strict=True)}
        golden |= {"outputs": packed, "atol": INT8_ATOL}
    how = {key: value for key, value in variant.facts.items() if key in ("method", "kept")}
    provenance = document["provenance"] | {"variant": {"precision": variant.precision} | how}
    return {"golden": golden, "provenance": provenance}


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
