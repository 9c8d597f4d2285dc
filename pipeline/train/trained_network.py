"""Load the network that stage train has left for an entry, and its head on features if any."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from pipeline.core.paths import OUT
from pipeline.data import dataset
from pipeline.network import build
from pipeline.params.schema import Training


def load_network(
    name: str,
    recipe: Training,
    source: dataset.Data,
    change: Callable[[torch.nn.Module], object] = lambda net: None,
) -> Any:
    """Return the trained network in evaluation mode; of a head on features, backbone and head.

    change: called with the network before a head is put on it; may change its modules in place.
    """
    folder = OUT / name / "train"
    net: Any = build.build(recipe, source)
    net.load_state_dict(torch.load(folder / "weights.pt", weights_only=True))
    change(net.eval())
    if recipe.on_features:
        from pipeline.train import head_files  # imports scikit-learn: 3 s

        return head_files.restore(net, recipe, folder)
    return net
