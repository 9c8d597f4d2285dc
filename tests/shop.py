"""A shop's daily figures as a user's CSV, a recipe that forecasts them, and the network of it
before any training.
"""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.data import dataset, prepare
from pipeline.params.schema import Recipe

DAYS, CONTEXT, HORIZON = 150, 14, 3
NET = {"channels": 6, "kernel_size": 2, "blocks": 0, "patch": 1, "stride": 1, "dropout": 0.1}
NET |= {"independent": True, "normalise": "instance", "linear": True}
MEMBERS = NET | {
    "look_backs": [5, CONTEXT],
    "normalise": ["instance", "last", "none"],
}  # of an ensemble
RECIPE = {
    "arch": "tcn",
    "data": {"set": "shop", "context": CONTEXT, "horizon": HORIZON, "quantiles": [0.1, 0.5, 0.9]},
    "net": NET,
    "train": {"epochs": 2, "batch": 32, "lr": 0.01},
}
CALENDAR = {"targets": ["sales"], "calendar": ["weekday", "yearday"]}


def write(path: Path) -> Path:
    """Daily visits, sales and rain from 25 January 2024, a leap year; sales have a weekly
    rhythm.
    """
    rng = np.random.default_rng(0)
    days = np.datetime64("2024-01-25") + np.arange(DAYS)
    rain = rng.random(DAYS)
    sales = 100 + 30 * np.sin(2 * np.pi * np.arange(DAYS) / 7) - 20 * rain + rng.normal(size=DAYS)
    with path.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["day", "visits", "sales", "rain"])
        rows.writerows(zip(days, 3 * sales + rng.normal(size=DAYS), sales, rain, strict=True))
    return path


def untrained(recipe: Recipe) -> tuple[Any, dataset.Data]:
    """Return the network in eval mode, its offsets drawn, and its data."""
    import torch  # conftest imports this file, most tests need no torch

    from pipeline.network import build as network

    source, _ = prepare.make(recipe.data)
    torch.manual_seed(3)
    net = network.build(recipe, source)
    torch.nn.init.normal_(net.offsets, std=0.1)
    return net.eval(), source


def document(
    recipe: Recipe, source: dataset.Data, x: np.ndarray, y: list[np.ndarray]
) -> dict[str, Any]:
    """Return what the stage exports beside the graph, for a network whose answers to x are y."""
    from pipeline.export import metadata
    from pipeline.export.tasks import forecasting

    facts: dict[str, Any] = {"validation": {}, "parameters": 0}
    return metadata.model_document(
        "shop", recipe, source.about, facts, x, y, forecasting.parity_limit(y, 1e-4)
    )
