"""Data of the compare page, compare-data.js: what templates/compare.js needs of every entry, of
every pair, and of the test images on which entries of one data set disagree.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from convline.colours import PALETTE

from pipeline.plots.vega import CONFIG
from pipeline.report.entry_tables import entry_table, metric_column, rank
from pipeline.report.result_files import Entry
from pipeline.report.tasks import TASKS

DATA_FILE = "compare-data.js"


def write_comparison(entries: list[Entry], site: Path) -> dict[str, Any]:
    """Write compare-data.js and the pictures in img/ below `site`; return the page's context."""
    data = comparison_data(entries, site / "img")
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    (site / DATA_FILE).write_text(f"const comparison = {text};\n", encoding="utf-8")
    sets = dict.fromkeys(entry.recipe.data.set for entry in entries)
    return {
        "data_file": DATA_FILE,
        "sets": {
            name: [entry for entry in entries if entry.recipe.data.set == name] for name in sets
        },
    }


def comparison_data(entries: list[Entry], img: Path) -> dict[str, Any]:
    """Return entries by name, the groups of entries that can be compared, and the chart style."""
    groups = paired_groups(entries)
    table = entry_table(entries, timings=True)
    titles = [column.title for column in table.columns[1:]]
    known = {}
    for entry, row in zip(entries, table.rows, strict=True):
        cells = dict(zip(titles, row[1:], strict=True))
        known[entry.name] = {
            "set": entry.recipe.data.set,
            "task": entry.task,
            "samples": TASKS[entry.task].SAMPLES,
            "group": next((k for k, group in enumerate(groups) if entry in group), None),
            "pending": entry.command("check"),
            "better": -rank(entry) if entry.metric else None,
            "cells": {title: (c.text, c.value, c.state, c.note) for title, c in cells.items()},
            "history": [
                [row["epoch"], row["train_loss"], row["validation_loss"]]
                for row in (entry.history or [] if entry.has_epochs else [])
            ],
        }
    return {
        "entries": known,
        "groups": [group_data(group, k, img) for k, group in enumerate(groups)],
        "metrics": [metric_column(key).title for task in TASKS.values() for key in task.METRICS[0]],
        "config": CONFIG,
        "palette": PALETTE,
    }


def paired_groups(entries: list[Entry]) -> list[list[Entry]]:
    """Return the groups of entries whose test results are paired; unchecked entries are in none.

    They are of one data set and task, and have the same test samples in one order.
    """
    groups: dict[tuple[Any, ...], list[Entry]] = {}
    for entry in entries:
        if entry.predictions is not None and entry.metric:
            samples = TASKS[entry.task].test_samples(entry)
            groups.setdefault((entry.recipe.data.set, entry.task, *samples), []).append(entry)
    return [*groups.values()]


def group_data(group: list[Entry], number: int, img: Path) -> dict[str, Any]:
    """Return the names of a group's entries and the comparison of each pair of them."""
    names = {"entries": [entry.name for entry in group]}
    return names | TASKS[group[0].task].compare(group, img / f"compare.{number}")
