"""Run a model file on inputs as `Data.served` holds them."""

from __future__ import annotations

import numpy as np
from convline.images.classifier import Classifier
from convline.timeseries.forecaster import Forecaster

Model = Classifier | Forecaster


def predict(model: Model, x: np.ndarray, batch: int) -> list[np.ndarray]:
    """Return the model's outputs for x, run in batches of `batch` rows; an empty x is one empty
    batch.

    Of a classifier probabilities (N, K), of a forecaster forecast (N, S, D) and quantiles (N, S, D,
    Q).
    """
    parts: list[tuple[np.ndarray, ...]] = []
    for start in range(0, max(len(x), 1), batch):
        rows = np.ascontiguousarray(x[start : start + batch])
        if isinstance(model, Classifier):
            parts.append((model.predict_proba(rows),))
        else:  # the history, and beside it the calendar of history and horizon
            context, columns = model.context, len(model.columns)
            calendar = rows[:, :, columns:] if model.calendar else None
            parts.append(model.run_encoded(rows[:, :context, :columns], calendar))
    return [np.concatenate(column) for column in zip(*parts, strict=True)]
