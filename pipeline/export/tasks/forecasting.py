"""Forecasting: forecast and quantiles of the next rows of a series."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from torch import nn

from pipeline.data import dataset
from pipeline.export.graph import difference as difference
from pipeline.export.graph import export_network, torch_outputs

OUTPUT_NAMES = ("forecast", "quantiles")
answers = None  # the outputs are
RANGE_WINDOWS = 32  # training windows on which `training_range` tries the network
count_correct = None  # no other precisions


def export(net: nn.Module, x: np.ndarray) -> onnx.ModelProto:
    """Return the checked graph: series, and a calendar if there is one, to the outputs."""
    return export_network(net, x, ("series", "calendar"), OUTPUT_NAMES)


def random_inputs(source: dataset.Data, seed: int, count: int) -> np.ndarray:
    """Return normal noise with the mean and deviation of the training rows.

    A calendar beside it is that of test windows.
    """
    rng, served = np.random.default_rng(seed), source.served("test")
    columns = len(source.mean)
    noise = source.mean + rng.standard_normal((count, served.shape[1], columns)) / source.scale
    calendar = served[np.arange(count) % len(served), :, columns:]
    return np.concatenate([noise.astype(np.float32), calendar], 2)


def golden_inputs(about: dict[str, Any], x: np.ndarray) -> dict[str, np.ndarray]:
    """Return the history, and the calendar of history and horizon, which is beside it in x."""
    if "calendar" not in about["input"]:
        return {"input": x}
    context, columns = about["input"]["context"], len(about["columns"])
    return {"input": x[:, :context, :columns], "calendar": x[:, :, columns:]}


def parity_limit(outputs: list[np.ndarray], relative: float) -> float:
    """Return `relative` of the standard deviation of forecasts, and four units in the last place of
    float32, which matter where forecasts are far from zero.
    """
    spread = float(outputs[0].std()) or 1.0
    largest = max(float(np.abs(output).max()) for output in outputs)
    return relative * spread + 4 * float(np.finfo(np.float32).eps) * largest


def document_fields(about: dict[str, Any]) -> dict[str, Any]:
    """Return horizon, quantiles and columns of the forecast."""
    return {"forecast": about["forecast"]}


def measured_fields(net: nn.Module, source: dataset.Data) -> dict[str, Any]:
    """Return `input` with the range of the training inputs, where there is one."""
    limits = training_range(net, source)
    return {"input": source.about["input"] | {"range": limits}} if limits else {}


def training_range(net: nn.Module, source: dataset.Data) -> dict[str, Any] | None:
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
