"""Learning curves: the training and validation values of each epoch, as Vega-Lite charts."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from pipeline.plots.style import Picture
from pipeline.plots.vega import draw_chart

SPLIT_KEYS = {"training": "train", "validation": "validation"}  # of a row's measures
History = list[dict[str, Any]]  # a row for each epoch, with train_loss, validation_loss and so on


def draw_learning_curve(
    history: History, measure: str, best_epoch: int | None, path: Path
) -> Picture:
    """Draw "loss" or "accuracy" over the epochs; a dot marks the epoch whose weights were kept."""
    last = f"{history[-1][f'validation_{measure}']:.3g}"
    alt = f"{measure.capitalize()} by epoch; {last} on the validation split after the last."
    values = curve_points(history, measure, best_epoch)
    size = {"width": 265, "height": 180, "limits": None}
    return draw_chart("curves", path, alt, values=values, title=measure, **size)


def draw_small_loss_curve(
    history: History, best_epoch: int | None, limits: tuple[float, float], path: Path
) -> Picture:
    """Draw the loss alone, small and static, on a scale that several entries share."""
    alt = f"Validation loss ends at {history[-1]['validation_loss']:.3g}."
    values = curve_points(history, "loss", best_epoch)
    size = {"width": 150, "height": 80, "limits": limits}
    return replace(draw_chart("curves", path, alt, values=values, title="loss", **size), spec=None)


def curve_points(history: History, measure: str, best_epoch: int | None) -> list[dict[str, Any]]:
    """Return a point for each epoch and split."""
    return [
        {
            "epoch": row["epoch"],
            "split": split,
            "value": row[f"{SPLIT_KEYS[split]}_{measure}"],
            "kept": split == "validation" and row["epoch"] == best_epoch,
        }
        for row in history
        for split in SPLIT_KEYS
    ]


def loss_limits(histories: Iterable[History]) -> tuple[float, float]:
    """Return the limits of a logarithmic axis that holds every positive loss of all histories."""
    keys = ("train_loss", "validation_loss")
    losses = [row[key] for rows in histories for row in rows for key in keys]
    losses = [loss for loss in losses if loss > 0 and math.isfinite(loss)] or [1.0]
    return min(losses) / 1.3, max(losses) * 1.3
