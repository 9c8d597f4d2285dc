"""What a module of this package is given, a Subject, and what it gives back, a Section of the entry's page."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from convline.images.classifier import Classifier as ServedClassifier
from convline.timeseries.forecaster import Forecaster as ServedForecaster

from pipeline.core.errors import StageError
from pipeline.data.dataset import Data
from pipeline.network.modules import Classifier, Forecaster
from pipeline.params.schema import Explain, ExplainRecipe
from pipeline.plots.style import Picture


@dataclass(frozen=True)
class Subject:
    """A trained entry: its network, its served file, and its data.

    net: in eval mode on the CPU, every ReLU a module of its own, no gradient kept for its weights; of an entry whose
    head is a forest or the like: `pipeline.train.heads.Headed`, `differentiable` False.
    settings: `explain:` of params.yaml. folder: out/<entry>/explain, where pictures go.
    """

    name: str
    recipe: ExplainRecipe
    source: Data
    net: Classifier | Forecaster | Any
    file: ServedClassifier | ServedForecaster
    settings: Explain
    folder: Path
    differentiable: bool = True

    @property
    def labels(self) -> list[str]:
        return list(self.source.about["labels"])

    def samples(self, count: int, split: str = "test") -> tuple[np.ndarray, np.ndarray]:
        """Return images uint8 (N, H, W, C) and classes (N,), the first of each class in turn: the same every time."""
        y = np.asarray(self.source.y[split])
        rank = np.zeros(len(y), np.int64)
        for label in np.unique(y):
            own = np.flatnonzero(y == label)
            rank[own] = np.arange(len(own))
        rows = np.lexsort((y, rank))[:count]
        return np.asarray(self.source.x[split][rows]), y[rows]


@dataclass
class Shown:
    """A picture and what it shows: the caption is a sentence about this network, with its numbers."""

    picture: Picture
    caption: str


@dataclass
class Section:
    """A part of the entry's page. `facts` must repeat on one machine, and what goes to results/ on any: `explain`."""

    title: str
    shown: list[Shown] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)


def finite(values: np.ndarray, what: str) -> np.ndarray:
    """Return the values; StageError where one is not finite: a picture of NaN would look like one of nothing."""
    if not np.isfinite(values).all():
        raise StageError(
            f"explain: {what} is not finite; look at the training curves, or lower train.lr"
        )
    return values
