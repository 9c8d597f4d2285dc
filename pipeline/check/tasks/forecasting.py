"""Forecasting: errors of the forecasts of all test windows."""

from __future__ import annotations

from typing import Any

import numpy as np

from pipeline.check.differences import compare as compare
from pipeline.check.predictions import Outputs
from pipeline.check.predictions import answers as answers
from pipeline.check.predictions import record as record
from pipeline.data.dataset import Data
from pipeline.data.raw_windows import choose_raw_windows
from pipeline.evaluate import metrics

BEYOND = ""  # no row of parity counts any
lose = None  # no other precisions


def measure(
    found: Outputs, torch: Outputs, source: Data
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Return the errors of the forecasts, and windows, forecasts and errors for the report.

    `rows` are the windows that have raw files.
    """
    rows = choose_raw_windows(len(found[0]), source.about["input"]["context"])
    source = source.alone()
    history, target = source.windows("test", source.about["stride"])
    arrays = {
        "rows": rows,
        "context": history[rows],
        "target": target[rows],
        "forecast": found[0][rows],
        "quantiles": found[1][rows],
        "quantile_levels": np.array(source.about["forecast"]["quantiles"]),
    }
    metric, backtest = metrics.measure_forecasts(found, torch[0], source)
    return metric, arrays | backtest


def compare_with_baseline(metric: dict[str, Any], source: Data) -> dict[str, Any]:
    """Return how the error compares with that of the best baseline."""
    return metrics.compare_with_best_baseline(metric)
