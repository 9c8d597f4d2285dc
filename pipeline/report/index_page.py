"""The index page: a table of the entries, their model files and the studies."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pipeline.plots import style
from pipeline.plots.learning_curves import draw_small_loss_curve, loss_limits
from pipeline.plots.style import Picture
from pipeline.report import published_comparison, tables, tradeoff_plots
from pipeline.report.result_files import Entry, Study

TASK_TITLES = {"classification": "Classification", "forecasting": "Forecasting", None: "Pending"}


def index_context(entries: list[Entry], studies: list[Study], img: Path) -> dict[str, Any]:
    """Return the context of index.html.j2."""
    groups: list[dict[str, Any]] = []
    for task, title in TASK_TITLES.items():
        if members := [entry for entry in entries if entry.task == task]:
            table = tables.entry_table(members, timings=True)
            groups.append({"title": title, "table": table, "curves": small_curves(members, img)})
    pending = {entry.name: entry for entry in entries if entry.pending_stages}
    machines = [entry.results["speed"]["machine"] for entry in entries if "speed" in entry.results]
    return {
        "groups": groups,
        "entries": len(entries),
        "worse": {entry.name: entry.worse_than for entry in entries if entry.worse_than},
        "matrix": tradeoff_plots.file_table(entries),
        "verdicts": tradeoff_plots.draw_tradeoffs(entries, img),
        "landscape": published_comparison.draw_comparison(entries, img),
        "depths": published_comparison.ilsvrc_rows(),
        "explanations": tables.attribution_summary_rows(entries),
        "pending": pending,
        "studies": [study_context(study, img) for study in studies],
        "machines": [machine for i, machine in enumerate(machines) if machine not in machines[:i]],
    }


def small_curves(entries: list[Entry], img: Path) -> list[tuple[str, Picture]]:
    """Return (entry name, loss curve) of each trained entry, all on one scale."""
    histories = {e.name: e.history for e in entries if e.has_epochs and e.history}
    limits = loss_limits(histories.values())
    best = {entry.name: entry.best_epoch for entry in entries}
    return [
        (name, draw_small_loss_curve(history, best[name], limits, img / f"{name}.loss.png"))
        for name, history in histories.items()
    ]


def study_context(study: Study, img: Path) -> dict[str, Any]:
    """Return one study and its plot."""
    alt = f"Result of the study {study.name}; the table beside it holds the same numbers."
    path, source = img / f"study.{study.name}.png", study.picture
    return {"study": study, "picture": style.copy_picture(source, path, alt) if source else None}
