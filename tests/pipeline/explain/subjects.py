"""Small subjects of stage explain: networks with their data and settings."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import nn

import models
from pipeline.data import dataset
from pipeline.explain.subject import Subject
from pipeline.network.modules import Classifier
from pipeline.params.schema import Explain

SETTINGS = Explain(images=12, searched=40, points=60)
CIFAR = {
    "family": "cifar",
    "depth": 8,
    "shortcut": "A",
    "batch_norm": True,
    "stride_in": "first",
    "zero_init": False,
}
LENET = {"full_c3": False, "subsampling": "trainable", "output": "rbf"}
GOOGLENET = {"module": "reduced", "aux": False, "dropout": 0.0, "init": "he"}
DENSENET = {"depth": 121, "dropout": 0.0}


def digits(side: int) -> tuple[np.ndarray, np.ndarray]:
    """240 handwritten digits, uint8 (N, side, side, 1), and their classes."""
    x, y = load_digits(return_X_y=True)
    x = np.clip(x[:240].reshape(-1, 8, 8, 1) * 16, 0, 255).astype(np.uint8)
    return x.repeat(side // 8, 1).repeat(side // 8, 2), y[:240].astype(np.int64)


def classifier(net: nn.Module, channels: int = 1) -> Classifier:
    """The network with standardisation (x - 100) / 50 around it, no gradient kept for its
    weights.
    """
    made = Classifier(net, torch.full((channels, 1, 1), 100.0), torch.full((channels, 1, 1), 0.02))
    return made.eval().requires_grad_(False)


def built(arch: str, side: int, seed: int = 0, **options: Any) -> Classifier:
    torch.manual_seed(seed)
    return classifier(models.build(arch, in_channels=1, size=(side, side), classes=10, **options))


class Chain(nn.Module):
    """Layers in a row and a dense head: the shape that every network of models/ has."""

    def __init__(self, layers: Sequence[nn.Module], units: int, classes: int = 2):
        super().__init__()
        self.features, self.head = nn.Sequential(*layers, nn.Flatten()), nn.Linear(units, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.features(x))


def subject(folder: Path, net: Any, source: dataset.Data, **settings: Any) -> Subject:
    (folder / "explain").mkdir()
    changed = SETTINGS.updated(**settings)
    return Subject("tiny", None, source, net, None, changed, folder / "explain", 1)  # type: ignore[arg-type]
