"""Load the network that stage train has left for an entry, and its head on features if any."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from pipeline.core.paths import OUT
from pipeline.data import dataset
from pipeline.network import build
from pipeline.params.schema import Training

# torch.nn.init's functions, and the methods of a tensor that they call
DRAWS = {"normal_", "uniform_", "trunc_normal_"} | {
    f"{rule}_{kind}_" for rule in ("kaiming", "xavier") for kind in ("normal", "uniform")
}


class WithoutDraws(TorchFunctionMode):
    """Leave new weights unset where they would be drawn at random: a third of loading VGG-16."""

    def __torch_function__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if getattr(function, "__name__", "") in DRAWS:
            return next(iter((*args, *kwargs.values())))
        return function(*args, **kwargs)


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
    try:
        with WithoutDraws():
            net: Any = build.assemble(recipe, source)
    except build.MISTAKES as error:
        raise build.explained(error, recipe.arch, building=True) from None
    net.load_state_dict(torch.load(folder / "weights.pt", weights_only=True))  # sets all of them
    change(net.eval())
    if recipe.on_features:
        from pipeline.train import head_files  # imports scikit-learn: 3 s

        return head_files.restore(net, recipe, folder)
    return net
