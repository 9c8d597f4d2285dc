"""Forecasting: the next rows of a series."""

from __future__ import annotations

import numpy as np
import torch

import models
from pipeline.data.dataset import Data
from pipeline.network.modules import Forecaster
from pipeline.network.output_shape import require_shape, statistics
from pipeline.params.schema import Training


def assemble(recipe: Training, data: Data) -> Forecaster:
    """Return the network of a recipe: series (N, T, D) to forecasts and quantiles."""
    about, keywords = data.about, models.takes(recipe.arch)
    forecast = about["forecast"]
    horizon, levels = forecast["horizon"], len(forecast["quantiles"])
    series = {
        "series": len(about["columns"]),
        "horizon": horizon,
        "context": about["input"]["context"],
        "targets": data.targets,
        "quantiles": levels if recipe.train.loss == "pinball" else 1,
        "season": about["season"],
        "calendar": 2 * len(about["input"].get("calendar", [])),
    }
    options = {key: value for key, value in series.items() if key in keywords}
    net = models.build(recipe.arch, **options, **recipe.net)
    offsets = torch.zeros(horizon, data.targets, levels)
    usual = torch.ones(data.targets) if "intervals" in about else None
    return Forecaster(net, *statistics(data), offsets, usual)


def require_output(net: Forecaster, recipe: Training, data: Data) -> None:
    """Raise StageError where the architecture returns no forecasts (N, S or S * Q, D)."""
    x = net.standardise(*net.split_input(torch.from_numpy(np.array(data.example()))))
    horizon, targets, levels = net.offsets.shape
    expected = (horizon * (levels if recipe.train.loss == "pinball" else 1), targets)
    require_shape(net.net(x), expected, "forecasts (N, S, D)", x, recipe.arch)
