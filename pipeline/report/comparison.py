"""Data of the compare page: table row, learning curve, and correct test images of every entry."""

from __future__ import annotations

from typing import Any

import numpy as np

from pipeline.plots.vega import CONFIG, PALETTE
from pipeline.report.result_files import Entry
from pipeline.report.tables import entry_table


def comparison_data(entries: list[Entry]) -> dict[str, Any]:
    """Return the data that templates/compare.js reads: entries by name, chart style."""
    table = entry_table(entries, timings=True)
    titles = [column.title for column in table.columns[1:]]
    known = {}
    for entry, row in zip(entries, table.rows, strict=True):
        cells = [(cell.text, cell.value, cell.state) for cell in row[1:]]
        facts = {"cells": dict(zip(titles, cells, strict=True)), "set": entry.recipe.data.set}
        known[entry.name] = facts | history_and_correctness(entry)
    return {"entries": known, "config": CONFIG, "palette": PALETTE}


def history_and_correctness(entry: Entry) -> dict[str, Any]:
    """Return losses by epoch and, for a classifier, which test images are correct, as hex bits."""
    rows = (entry.history or []) if entry.has_epochs else []
    made: dict[str, Any] = {
        "history": [[row["epoch"], row["train_loss"], row["validation_loss"]] for row in rows]
    }
    if entry.task == "classification" and entry.predictions is not None:
        right = entry.predictions["probabilities"].argmax(1) == entry.predictions["y"]
        made |= {"n": len(right), "right": np.packbits(right).tobytes().hex()}
    return made
