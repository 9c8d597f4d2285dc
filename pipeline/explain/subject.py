"""The subject of stage explain: a trained entry with its network, its served file and its data."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from convline.loading import open_model
from convline.model_file.onnx_file import read_model_file
from torch import nn

from pipeline.core.files import fresh, read_json
from pipeline.core.paths import OUT, RESULTS
from pipeline.data import dataset
from pipeline.explain import pointwise
from pipeline.explain.modified_relu import replace_relus
from pipeline.network.modules import Classifier, Forecaster
from pipeline.params import load as params
from pipeline.params.schema import Explain, ExplainRecipe
from pipeline.train.trained_network import load_network


@dataclass(frozen=True)
class Subject:
    """A trained entry.

    net: in eval mode on the CPU, its weights without gradients; each ReLU of a classifier or
    forecaster is a module of its own. An entry whose head is not a network (a forest, for example)
    has a `Headed`, and no gradient.
    settings: `explain:` of params.yaml. folder: out/<entry>/explain, where pictures are written.
    macs: multiply-adds of one sample.
    """

    name: str
    recipe: ExplainRecipe
    source: dataset.Data
    net: Any
    file: Any
    settings: Explain
    folder: Path
    macs: int
    differentiable: bool = True

    @property
    def network(self) -> nn.Module:
        """The network, or the backbone below a forest or SVM."""
        net: nn.Module = self.net.backbone.net if hasattr(self.net, "backbone") else self.net
        return net

    @property
    def classifier(self) -> Classifier | None:
        """The network if it is a classifier's, else None."""
        return self.network if isinstance(self.network, Classifier) else None

    @property
    def differentiable_classifier(self) -> Classifier | None:
        """The network of a classifier whose output has a gradient; None for every other entry."""
        return self.classifier if self.differentiable else None

    @property
    def labels(self) -> list[str]:
        return list(self.source.about["labels"])

    def samples(self, count: int, split: str = "test") -> tuple[np.ndarray, np.ndarray]:
        """Return images uint8 (N, H, W, C) and classes (N,): the first of each class, and so on."""
        y = np.asarray(self.source.y[split])
        rank = np.zeros(len(y), np.int64)
        for label in np.unique(y):
            rows = np.flatnonzero(y == label)
            rank[rows] = np.arange(len(rows))
        rows = np.lexsort((y, rank))[:count]
        return np.asarray(self.source.x[split][rows]), y[rows]

    def affordable(self, budget_macs: float, least: int, most: int) -> int:
        """Return how many images the budget of multiply-adds pays for, from `least` to `most`."""
        return max(least, min(most, int(budget_macs // max(self.macs, 1))))


def open_subject(name: str) -> Subject:
    """Return the entry with its trained weights and exported file; its folder is emptied."""
    recipe, source = params.entry(name, ExplainRecipe), dataset.load(name)
    example = torch.from_numpy(np.array(source.example()))

    def prepare(net: nn.Module) -> None:
        net.requires_grad_(False)
        if isinstance(net, Classifier | Forecaster):  # attribution methods change their gradients
            replace_relus(net, example)
        pointwise.use_channels_last(net)

    net = load_network(name, recipe, source, prepare)
    path = OUT / name / "export" / "model.onnx"  # more threads would spin while others compute
    file = open_model(read_model_file(path), "cpu", threads=recipe.threads)
    folder = fresh(OUT / name / "explain")
    macs = read_json(RESULTS / name / "train.json", f"train@{name}")["macs"]
    has_gradient = not recipe.on_features
    return Subject(name, recipe, source, net, file, recipe.explain, folder, macs, has_gradient)
