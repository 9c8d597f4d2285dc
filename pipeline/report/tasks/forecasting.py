"""Forecasting: forecasts, baselines and intervals; errors are compared window by window."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from convline.errors import describe_count
from convline.model_file.onnx_file import ModelFile

from pipeline.evaluate import paired
from pipeline.report import forecaster_page
from pipeline.report.live_demo import Demo
from pipeline.report.paired_images import rounded
from pipeline.report.result_files import Entry

TITLE = "Forecasting"
SAMPLES = "windows"
METRICS = ["mse", "ratio_to_best_baseline"], ["coverage"]
TEMPLATE = "forecaster.html.j2"

analyse = forecaster_page.forecaster_context


def describe_targets(about: dict[str, Any]) -> str:
    return describe_count(len(about["columns"]), "column")


def describe_test(about: dict[str, Any]) -> str:
    return f"{describe_count(about['forecast']['horizon'], 'step')} ahead"


def serve_command(entry: Entry) -> str:
    return f"infer series {entry.name} out/{entry.name}/data/raw/*.csv"


def verdicts(entry: Entry) -> dict[str, str]:
    return forecaster_page.verdicts(entry.metric) if entry.metric else {}


def test_samples(entry: Entry) -> tuple[Any, ...]:
    """Return target columns, number of windows, and the targets of the recorded windows."""
    about, target = entry.results["data"], entry.prediction("target")
    columns = tuple(about["forecast"].get("columns", about["columns"]))
    windows = entry.prediction("rows").tobytes(), target.shape, target.tobytes()
    return columns, len(entry.prediction("window_errors")), *windows


def compare(entries: list[Entry], picture: Path) -> dict[str, Any]:
    """Return the number of windows and the ratio of errors of each pair, None where it is not
    finite.
    """
    errors = np.stack([entry.prediction("window_errors") for entry in entries])
    blocks = [entry.metric["block"] for entry in entries if entry.metric]
    ratios = paired.error_ratios(errors.astype(np.float64), max(blocks))
    finite = np.isfinite(ratios).all(2)
    rows = [
        [[rounded(r) for r in ratio] if known else None for ratio, known in zip(*row, strict=True)]
        for row in zip(ratios, finite, strict=True)
    ]
    return {"n": errors.shape[1], "ratios": rows}


def demo(file: ModelFile) -> Demo | None:
    """Return the demo of a model that forecasts one series from its own past only."""
    rule = file.json["input"]
    alone = len(rule["columns"]) == 1 and "calendar" not in rule
    return Demo("live_series.html.j2") if alone else None
