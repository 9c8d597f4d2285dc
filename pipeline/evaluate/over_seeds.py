"""Measures of a study's runs over seeds: mean and 95 % interval of each setting."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import stdtrit

from pipeline.params import schema

# study, setting, seed, measure, x (of a curve: epoch or depth, else ""), value
Row = dict[str, Any]
Summary = dict[str, dict[str, tuple[float, float, float]]]  # setting, measure: mean, low, high


def read_rows(path: Path) -> list[Row]:
    """Return the rows of results/studies/<name>.csv with numbers for x and value.

    A table of measures alone may lack the column x.
    """
    with path.open(encoding="utf-8", newline="") as file:
        return [
            row | {"x": float(row["x"]) if row.get("x") else "", "value": float(row["value"])}
            for row in csv.DictReader(file)
        ]


def t_interval(values: list[float], kind: str) -> tuple[float, float, float]:
    """Return mean, low and high of the 95 % t interval over seeds.

    kind: an "error" has the interval of its logarithm, that of a "share" is cut at 0 and 1; a
    "count" and a "difference" have the plain one.
    """
    log = kind == "error"
    x = np.log(np.maximum(values, 1e-300)) if log else np.asarray(values)
    mean = x.mean()
    half = stdtrit(len(x) - 1, 0.975) * x.std(ddof=1) / np.sqrt(len(x)) if len(x) > 1 else 0.0
    ends = np.array([mean, mean - half, mean + half])
    middle, low, high = np.exp(ends) if log else np.clip(ends, 0, 1) if kind == "share" else ends
    return float(middle), float(low), float(high)


def summarize(rows: list[Row]) -> Summary:
    """Return {setting: {measure: (mean, low, high)}} in the order of the rows, without curves."""
    groups: dict[str, dict[str, list[float]]] = {}
    for row in rows:
        if row["x"] == "":
            values = groups.setdefault(row["setting"], {}).setdefault(row["measure"], [])
            values.append(row["value"])
    return {
        setting: {m: t_interval(values, schema.MEASURES[m][1]) for m, values in by_measure.items()}
        for setting, by_measure in groups.items()
    }
