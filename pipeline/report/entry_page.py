"""The page of an entry: its result, errors, speed and command to serve it."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from pipeline.plots import forecasts
from pipeline.plots.learning_curves import draw_learning_curve
from pipeline.plots.style import Picture
from pipeline.report import error_analysis, tables, tradeoff_plots
from pipeline.report.result_files import STAGE_OF_FILE, Entry


def entry_context(entry: Entry, img: Path) -> dict[str, Any]:
    """Return the context of entry.html.j2."""
    classifier = entry.task == "classification"
    noise = img / f"{entry.name}.noise.png"
    return {
        "entry": entry,
        "metric": tables.metric_cell(entry.metric) if entry.metric else None,
        "made_of": {file: entry.results.get(file) for file in STAGE_OF_FILE},
        "rows": tables.detail_rows(entry),
        "serve": serve_command(entry),
        "curves": learning_curves(entry, img),
        "classifier": error_analysis.error_context(entry, img) if classifier else None,
        "noise": entry.signal_to_noise and tradeoff_plots.signal_to_noise_plot([entry], noise),
        "forecaster": forecaster_context(entry, img) if entry.task == "forecasting" else None,
        "seen": explain_sections(entry, img),
    }


def explain_sections(entry: Entry, img: Path) -> list[dict[str, Any]]:
    """Copy the pictures of stage explain; return its sections, none if it has not run."""
    sections: list[dict[str, Any]] = []
    for section in entry.explain_sections or []:
        sections.append({"title": section["title"], "pictures": []})
        for drawn in section["pictures"]:
            name = f"{entry.name}.{drawn['file']}"
            shutil.copyfile(entry.picture(drawn["file"]), img / name)
            kind = drawn.get("kind", "photograph")  # pictures of earlier versions have no kind
            picture = Picture(name, drawn["width"], drawn["height"], drawn["alt"], kind=kind)
            sections[-1]["pictures"].append({"picture": picture, "caption": drawn["caption"]})
    return sections


def serve_command(entry: Entry) -> str:
    """Return the `infer` command for the raw test files that stage data wrote."""
    raw = f"out/{entry.name}/data/raw"
    if entry.task == "forecasting":
        return f"infer series {entry.name} {raw}/*.csv"
    return f"infer images {entry.name} {raw}"


def learning_curves(entry: Entry, img: Path) -> list[Picture]:
    """Return a chart over epochs of loss and accuracy, as far as training recorded them."""
    history = (entry.history or []) if entry.has_epochs else []
    recorded, drawn = history[0] if history else {}, []
    for measure in [m for m in ("loss", "accuracy") if f"validation_{m}" in recorded]:
        path = img / f"{entry.name}.curve-{measure}.png"
        drawn.append(draw_learning_curve(history, measure, entry.best_epoch, path))
    return drawn


def forecaster_context(entry: Entry, img: Path) -> dict[str, Any] | None:
    """Return the plots of the backtest and the numbers of their captions.

    None before stage check has run.
    """
    if entry.predictions is None or entry.metric is None:
        return None
    predictions, about, baselines = (
        entry.predictions,
        entry.results["data"],
        entry.metric["baselines"],
    )
    columns, bounds, first = about["columns"], entry.array("test_y"), predictions["residuals"][:, 0]
    files = ("forecasts", "along", "steps", "residuals")
    examples, along, steps, residuals = (img / f"{entry.name}.{file}.png" for file in files)
    rows = None
    if bounds is not None and len(bounds) == 2:  # several series have no common time axis
        rows = forecasts.draw_test_rows(predictions, columns, about["stride"], along)
    return {
        "examples": forecasts.draw_examples(predictions, columns, examples),
        "along": rows,
        "steps": forecasts.draw_errors_by_step(predictions, list(baselines), steps),
        "residuals": forecasts.draw_residuals(first, columns[0], residuals),
        "column": columns[0],
        "memory": float(forecasts.autocorrelation(first, 1)[0]),
        "noise": 1.96 / len(first) ** 0.5,
        "bias": float(first.mean() / (first.std() or 1)),
    }
