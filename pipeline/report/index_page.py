"""The index page, with its tables of entries, and the pages of model files and of explanations."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pipeline.plots.learning_curves import draw_small_loss_curve, loss_limits
from pipeline.plots.style import Picture
from pipeline.report import entry_tables, published_comparison, tables, tradeoff_plots
from pipeline.report.result_files import Entry
from pipeline.report.tasks import TASKS


def index_context(entries: list[Entry], img: Path) -> dict[str, Any]:
    """Return the context of index.html.j2."""
    return {
        "tables": entry_tables.entry_tables(entries, timings=True),
        "entries": len(entries),
        "worse": {entry.name: entry.worse_than for entry in entries if entry.worse_than},
        "intervals": {e.name: e.interval_fault for e in entries if e.interval_fault},
        "curves": small_curves(entries, img),
        "landscape": published_comparison.draw_comparison(entries, img),
        "depths": published_comparison.ilsvrc_rows(),
        "pending": {entry.name: entry for entry in entries if entry.pending_stages},
    }


def small_curves(entries: list[Entry], img: Path) -> dict[str, list[tuple[str, Picture]]]:
    """Return (entry name, loss curve) of the trained entries by title of their task.

    All curves of a task are on one scale.
    """
    drawn: dict[str, list[tuple[str, Picture]]] = {}
    for name, task in TASKS.items():
        trained = [e for e in entries if e.task == name and e.has_epochs]
        limits = loss_limits(entry.history or [] for entry in trained)
        for entry in trained:
            path, history = img / f"{entry.name}.loss.png", entry.history or []
            picture = draw_small_loss_curve(history, entry.best_epoch, limits, path)
            drawn.setdefault(task.TITLE, []).append((entry.name, picture))
    return drawn


def files_context(entries: list[Entry], img: Path) -> dict[str, Any]:
    """Return the context of model_files.html.j2."""
    machines = [entry.results["speed"]["machine"] for entry in entries if "speed" in entry.results]
    return {
        "matrix": tradeoff_plots.file_table(entries),
        "verdicts": tradeoff_plots.draw_tradeoffs(entries, img),
        "machines": [machine for i, machine in enumerate(machines) if machine not in machines[:i]],
    }


def explanations_context(entries: list[Entry]) -> dict[str, Any]:
    """Return the context of explanation_quality.html.j2."""
    return {"explanations": tables.attribution_summary(entries)}
