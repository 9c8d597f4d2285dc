"""The network that stage train left, its head on features with it: load it and export it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch

from pipeline.data import dataset
from pipeline.export.graph import export_network
from pipeline.network import build
from pipeline.network.modules import Classifier
from pipeline.params.schema import Recipe


def load_network(recipe: Recipe, source: dataset.Data, folder: Path) -> torch.nn.Module:
    """Return the trained network in evaluation mode; of a head on features, backbone and head.

    folder: out/<entry>/train.
    """
    net = build.build(recipe, source)
    net.load_state_dict(torch.load(folder / "weights.pt", weights_only=True))
    net.eval()
    if recipe.on_features and isinstance(net, Classifier):
        from pipeline.train import head_files  # scikit-learn: 3 s

        return head_files.restore(net, recipe, folder)
    return net


def export_graph(
    net: torch.nn.Module, recipe: Recipe, example: np.ndarray, task: str
) -> onnx.ModelProto:
    """Return the checked graph of what `load_network` returned.

    example: inputs as served, two or more.
    """
    if recipe.on_features:
        from pipeline.export.head_graph import export_with_head
        from pipeline.train.heads import Headed

        assert isinstance(net, Headed)
        return export_with_head(net, example)
    return export_network(net, example, task)


def write_features(net: Any, source: dataset.Data, trained: Path, folder: Path) -> None:
    """Write features.npz: backbone features of the training and test images, for stage check.

    net: backbone and head; trained: out/<entry>/train, which has the features of training images.
    """
    from pipeline.train import head_training

    vectors: dict[str, Any] = {**head_training.retrieval_features(net, source, trained)}
    np.savez(folder / "features.npz", **vectors)
