"""The page of an entry: its result, mistakes, speed and command to serve it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pipeline.evaluate.metric_catalogue import CATALOGUE
from pipeline.plots.learning_curves import draw_learning_curve
from pipeline.plots.style import Picture
from pipeline.report import (
    browser_demo,
    explain_page,
    tables,
    tradeoff_plots,
)
from pipeline.report.result_files import STAGE_OF_FILE, Entry
from pipeline.report.tasks import TASKS


def entry_context(entry: Entry, img: Path) -> dict[str, Any]:
    """Return the context of entry.html.j2, and that of explain.html.j2."""
    task = TASKS[entry.task]
    noise = img / f"{entry.name}.noise.png"
    return {
        "entry": entry,
        "task": task,
        "metric": tables.named_metric(entry) if entry.metric else None,
        "metric_title": CATALOGUE[entry.metric["name"]].title if entry.metric else "",
        "verdicts": verdicts(entry),
        "made_of": {file: entry.results.get(file) for file in STAGE_OF_FILE},
        "rows": tables.detail_rows(entry) | {"single": single_input_rows(entry)},
        "serve": task.serve_command(entry),
        "served_part": served_part(entry),
        "curves": learning_curves(entry, img),
        "analysis": task.analyse(entry, img),
        "noise": entry.signal_to_noise and tradeoff_plots.signal_to_noise_plot([entry], noise),
        "explain_page": explain_page.page_name(entry),
        "inside": browser_demo.is_small(entry),
        "seen": explain_page.explain_sections(entry, img),
    }


def verdicts(entry: Entry) -> dict[str, str]:
    """Return what the stages found, in words: against the baseline, intervals, gate, serving."""
    check, infer = entry.results.get("check"), entry.results.get("infer")
    found = TASKS[entry.task].verdicts(entry)
    if check:
        found["Check"] = (
            "✓ passed: onnxruntime predicts what torch predicts"
            if check["passed"]
            else f"✗ failed, so the file is not packaged: {check['verdict']}"
        )
    if infer:
        found["Served as checked"] = (
            f"✓ yes: the packaged command reached the checked metric from {served_part(entry)}"
            if infer["equal"]
            else "✗ no: the packaged command predicts something else"
        )
    return found


def single_input_rows(entry: Entry) -> list[list[Any]]:
    """Return device, variant, threads, p50, p99 in ms and throughput at batch 1."""
    rows = [tables.speed_row(row) for row in entry.results.get("speed", {}).get("rows", [])]
    return [[*row[:2], *row[4:6], *row[7:9]] for row in rows if row[3] == 1]


def served_part(entry: Entry) -> str:
    """Return which part of the test split stage infer served, as the end of a sentence."""
    if "infer" not in entry.results or "data" not in entry.results:
        return ""
    served, tested = entry.results["infer"]["n"], entry.results["data"]["test"]
    inputs = TASKS[entry.task].SAMPLES
    if served == tested:
        return f"all {tested:,} test {inputs}"
    return f"{served:,} of the {tested:,} test {inputs}, spread evenly over them"


def learning_curves(entry: Entry, img: Path) -> list[Picture]:
    """Return a chart over epochs of loss and accuracy, as far as training recorded them."""
    history = (entry.history or []) if entry.has_epochs else []
    recorded, drawn = history[0] if history else {}, []
    for measure in [m for m in ("loss", "accuracy") if f"validation_{m}" in recorded]:
        path = img / f"{entry.name}.curve-{measure}.png"
        drawn.append(draw_learning_curve(history, measure, entry.best_epoch, path))
    return drawn
