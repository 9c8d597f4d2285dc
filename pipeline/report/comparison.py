"""What the compare page knows of every entry: its row of the table, its curve, and which test images it got right."""

from __future__ import annotations

from typing import Any

import numpy as np

from pipeline.plots.vega import CONFIG, PALETTE
from pipeline.report.results import Entry
from pipeline.report.tables import entry_table


def facts(entries: list[Entry]) -> dict[str, Any]:
    """Return {"entries": {name: facts}} and how charts look, for templates/compare.js."""
    table = entry_table(entries, timings=True)
    titles = [column.title for column in table.columns[1:]]
    cells = [[(cell.text, cell.value, cell.state) for cell in row[1:]] for row in table.rows]
    known = {
        entry.name: {
            "cells": dict(zip(titles, row, strict=True)),
            "set": entry.recipe["data"]["set"],
        }
        | answered(entry)
        for entry, row in zip(entries, cells, strict=True)
    }
    return {"entries": known, "config": CONFIG, "palette": PALETTE}


def answered(entry: Entry) -> dict[str, Any]:
    """Return the losses by epoch and, of a classifier, its right answers as bits in hexadecimal."""
    rows = (entry.history or []) if entry.trained else []
    made: dict[str, Any] = {
        "history": [[row["epoch"], row["train_loss"], row["validation_loss"]] for row in rows]
    }
    if entry.task == "classification" and entry.answers is not None:
        right = entry.answers["probabilities"].argmax(1) == entry.answers["y"]
        made |= {"n": len(right), "right": np.packbits(right).tobytes().hex()}
    return made
