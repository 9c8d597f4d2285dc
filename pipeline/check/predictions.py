"""Run a model file on any number of inputs."""

from __future__ import annotations

from typing import Any

import numpy as np
from convline.images.image_model import ImageModel
from convline.timeseries.forecaster import Forecaster

LARGE_BATCH = 256

Model = ImageModel[Any] | Forecaster
Outputs = list[np.ndarray]  # of a model, or of torch


def predict(model: Model, x: np.ndarray, batch: int) -> Outputs:
    """Return the model's outputs for x, run in batches of `batch` rows; an empty x is one empty
    batch.

    Of an image model those that torch's are compared with, such as probabilities (N, K); of a
    forecaster forecast (N, S, D) and quantiles (N, S, D, Q).
    """
    parts: list[tuple[np.ndarray, ...]] = []
    for start in range(0, max(len(x), 1), batch):
        rows = np.ascontiguousarray(x[start : start + batch])
        if isinstance(model, ImageModel):
            parts.append(model.parity_outputs(rows))
        else:  # the history, and beside it the calendar of history and horizon
            context, columns = model.context, len(model.columns)
            calendar = rows[:, :, columns:] if model.calendar else None
            parts.append(model.run_encoded(rows[:, :context, :columns], calendar))
    return [np.concatenate(column) for column in zip(*parts, strict=True)]


def answers(model: Model, x: np.ndarray) -> Outputs:
    """Return the model's outputs for x, which most tasks judge as they are."""
    return predict(model, x, LARGE_BATCH)


def record(found: Outputs) -> np.ndarray:
    """Return the first output."""
    return found[0]
