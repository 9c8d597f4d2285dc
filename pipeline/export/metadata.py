"""The model document that travels inside the ONNX file."""

from __future__ import annotations

import shutil
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from convline.model_file.golden import pack_array

from pipeline.data import dataset
from pipeline.export.graph import NAMES, answers
from pipeline.params.schema import Recipe

RANGE_WINDOWS = 32  # of the training split


GOLDEN = 4  # samples that travel inside the file


PACKAGES = (
    "torch",
    "onnx",
    "onnxruntime-gpu",
    "onnxruntime",
    "numpy",
    "pillow",
)  # of the two in the middle, one


def document(
    name: str,
    recipe: Recipe,
    about: dict[str, Any],
    metrics: dict[str, Any],  # results/<entry>/train.json
    x: np.ndarray,
    y: list[np.ndarray],
    atol: float,
) -> dict[str, Any]:
    """Return the JSON document that makes the graph a Convline model (serve/convline/model_file/schema.py); golden are the first of x."""
    forecasting = about["task"] == "forecasting"
    weights = recipe.weights
    licence = about["licence"] + (f"; weights: {weights.licence}" if weights else "")
    given = {"input": x[:GOLDEN]}
    if "calendar" in about["input"]:
        context, columns = about["input"]["context"], len(about["columns"])
        given = {"input": x[:GOLDEN, :context, :columns], "calendar": x[:GOLDEN, :, columns:]}
    task = {"forecast": about["forecast"]} if forecasting else {"labels": about["labels"]}
    return {
        "format": 1,
        "name": name,
        "task": about["task"],
        **task,
        "input": about["input"],
        "provenance": {
            "data": {key: about[key] for key in ("source", "hash", "licence")},
            "params": recipe.model_dump(
                mode="json", include={"arch", "data", "net", "train", "size"}
            ),
            "revision": revision(),
            "versions": versions(),
            "metrics": {"validation": metrics["validation"], "parameters": metrics["parameters"]},
            "licence": licence,
        },
        "golden": {
            **{key: pack_array(part) for key, part in given.items()},
            "outputs": {
                n: pack_array(o[:GOLDEN]) for n, o in zip(NAMES[about["task"]][1], y, strict=True)
            },
            "atol": atol,
        },
    }


def by_column(answer: np.ndarray) -> np.ndarray:
    """Return forecasts (N, S, D') or quantiles (N, S, D', Q) as float64 (values, D')."""
    return np.moveaxis(answer, 2, -1).reshape(-1, answer.shape[2]).astype(np.float64)


def training_range(net: torch.nn.Module, source: dataset.Data) -> dict[str, Any] | None:
    """Return `input.range` of a forecaster's document, None where its answers move with its window's level and scale.

    That is tried on windows of the training split, moved by ten times its range and made three times as large.
    Intervals do not grow with their window where they were calibrated: by offsets in the series' own units.
    """
    columns, context, targets = (
        source.about["columns"],
        source.about["input"]["context"],
        source.about["forecast"],
    )
    own, x, train = len(targets.get("columns", columns)), source.served("train"), source.x["train"]
    width = np.ptp(train, axis=0)
    some = x[dataset.spread(len(x), RANGE_WINDOWS)]
    still = [by_column(part) for part in answers(net, some)]

    def follows(scale: float) -> bool:
        moved = some.copy()
        moved[:, :context, : len(columns)] = scale * moved[:, :context, : len(columns)] + 10 * width
        after = [by_column(part) for part in answers(net, moved)]
        gaps = [
            np.abs(b - (scale * a + 10 * width[:own])).max(0)
            for a, b in zip(still, after, strict=True)
        ]
        rounding = (
            16 * float(np.finfo(np.float32).eps) * np.abs(moved[:, :context, :own]).max((0, 1))
        )
        return bool((np.max(gaps, 0) <= 1e-3 * scale * width[:own] + rounding).all())

    if follows(3):
        return None
    history = x[:, :context, : len(columns)]
    kind, seen = ("changes", history - history[:, -1:]) if follows(1) else ("values", train[None])
    return {"of": kind, "low": seen.min((0, 1)).tolist(), "high": seen.max((0, 1)).tolist()}


def versions() -> dict[str, str]:
    """Return the installed version of each of PACKAGES, without those that are not installed."""
    found = {}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def revision() -> str:
    """Return the git revision, "-dirty" where files differ from it, or "no git": a copy without .git is fine too."""
    if not Path(".git").exists() or not shutil.which("git"):
        return "no git"
    command = ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    return found.stdout.strip() if found.returncode == 0 else "no git"


def limit(outputs: list[np.ndarray], relative: float) -> float:
    """Return the largest difference allowed: `relative` of probabilities, and of the spread (std) of forecasts.

    Forecasts far from zero are granted four units in their last place of float32 besides.
    """
    if outputs[0].ndim == 2:
        return relative
    spread = float(outputs[0].std()) or 1.0
    return relative * spread + 4 * float(np.finfo(np.float32).eps) * max(
        float(np.abs(o).max()) for o in outputs
    )
