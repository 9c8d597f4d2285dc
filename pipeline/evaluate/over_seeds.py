"""Measures of a study's runs over seeds: mean and 95 % interval of each setting."""

from __future__ import annotations

import csv
import itertools
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


def crossed_values(rows: list[Row], factors: dict[str, list[str]], measure: str) -> np.ndarray:
    """Return a measure as (levels of the first factor, levels of the second, seeds)."""
    cells = [", ".join(levels) for levels in itertools.product(*factors.values())]
    runs = {
        (row["setting"], row["seed"]): row["value"] for row in rows if row["measure"] == measure
    }
    seeds = dict.fromkeys(seed for _, seed in runs)
    values = [[runs[cell, seed] for seed in seeds] for cell in cells]
    return np.array(values).reshape(*(len(levels) for levels in factors.values()), len(seeds))


def variance_shares(values: np.ndarray) -> tuple[float, float, float, float]:
    """Return the shares of the variance of values (A, B, S): of factor A, of factor B, of both
    together, of the seeds.

    The sums of squares of the two-way analysis of variance (R. A. Fisher 1925, chapter VIII), over
    their total: the shares add up to 1. Both together: by how much what B does depends on A.
    """
    cells = values.mean(2, keepdims=True)
    a, b = cells.mean(1, keepdims=True), cells.mean(0, keepdims=True)
    mean = values.mean()
    parts = (a - mean, b - mean, cells - a - b + mean, values - cells)
    squares = np.array([(part**2).mean() for part in parts])
    own, other, both, seeds = squares / squares.sum()
    return float(own), float(other), float(both), float(seeds)


def mean_gains(values: np.ndarray) -> list[tuple[float, float, float]]:
    """Return how much the last level of A has more than the first, and that of B, of values
    (A, B, S).

    Mean over the other factor, low and high of the 95 % interval over seeds.
    """
    gains = values[-1].mean(0) - values[0].mean(0), values[:, -1].mean(0) - values[:, 0].mean(0)
    return [t_interval(list(gain), "difference") for gain in gains]
