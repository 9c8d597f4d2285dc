"""Parity: how far the outputs of a model file are from torch's, on real and on random inputs."""

from __future__ import annotations

from typing import Any

import numpy as np
from convline.model_file.onnx_file import ModelFile
from convline.runtime.streaming import Stream

from pipeline.check.predictions import LARGE_BATCH, Model, Outputs, predict
from pipeline.check.single_operator import open_operator
from pipeline.check.tasks import TASKS

# Relative. TF32 is 2^-12 off in `float32_rounding_error`, sums of float32 in any order 1e-6.
MAX_ROUNDING_ERROR = 2.0**-14
# Batch size (empty, one, odd with a rest, large) -> rows tried, None for all.
ROWS_AT_BATCH = {0: 0, 1: 8, 7: 22, LARGE_BATCH: None}


def measure_parity(
    model: Model,
    place: dict[str, str],
    x: dict[str, np.ndarray],
    torch_outputs: dict[str, Outputs],
    close: float,
    limit: float | None,
    whole: dict[str, Outputs] | None = None,
) -> list[dict[str, Any]]:
    """Return the differences from torch's outputs, a row for each kind of input and batch size.

    place: provider and variant, which each row repeats; x and torch_outputs: by kind of input;
    close: as the task's `compare` takes it; limit: the largest difference that passes, None where
    the metric decides; whole: the model's outputs for all of x by LARGE_BATCH, if they are known.
    """
    rows, compare = [], TASKS[model.file.task].compare
    for kind, inputs in x.items():
        for batch, most in ROWS_AT_BATCH.items():
            count = len(inputs) if most is None else min(len(inputs), most)
            if whole and batch == LARGE_BATCH:
                outputs = whole[kind]
            else:
                outputs = predict(model, inputs[:count], max(batch, 1))
            facts = compare(model, outputs, torch_outputs[kind], count, close)
            passed = facts["finite"] and (limit is None or facts["max_difference"] <= limit)
            row = {**place, "input": kind, "batch": batch, "n": count, **facts}
            rows.append(row | {"limit": limit, "passed": passed})
    return rows


def stream_difference(file: ModelFile, device: str, x: np.ndarray, forecast: np.ndarray) -> float:
    """Return the largest difference between a stream's forecasts and those of its windows.

    x: windows (M, T, D), of which each stream gets the last `samples` rows; forecast (M, S, D').
    """
    stream = Stream(file, device)
    stream.reset(len(x))
    for t in range(x.shape[1] - stream.samples, x.shape[1]):
        streamed, _ = stream.advance(np.ascontiguousarray(x[:, t]))
    return float(np.abs(streamed.astype(np.float64) - forecast).max())


def float32_rounding_error(device: str) -> float:
    """Return the largest relative error of a convolution and a product of float32 numbers.

    The numbers are 1 + 2^-12, which takes 12 fraction bits: float32 keeps it and its sums are
    exact, TF32 has 10 bits and makes it 1. onnxruntime can use TF32 without a message.
    """
    value, errors = 1 + 2.0**-12, []
    for operator, shape, ones, terms in (
        ("Conv", (8, 64, 16, 16), (64, 64, 3, 3), 64 * 9),
        ("MatMul", (256, 256), (256, 256), 256),
    ):
        inputs = {
            "x": np.full(shape, value, np.float32),
            "weights": np.ones(ones, np.float32),
        }
        (sums,) = open_operator(device, operator, inputs, np.float32).run(None, inputs)
        errors.append(float(np.abs(sums / (terms * value) - 1).max()))
    return max(errors)
