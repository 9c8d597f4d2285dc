"""Build a recipe's network: an architecture between normalization and output form.

Its graph takes raw input: standardisation, layout, softmax and the way back to units are in
network.modules and nowhere else, and training uses the same buffers.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

import models
from pipeline.core.errors import StageError
from pipeline.data.dataset import Data
from pipeline.network.modules import Classifier, Forecaster
from pipeline.params.schema import Training

# Of weights in one ONNX file: a protobuf message ends at 2 GiB, and the graph needs some of it.
MOST_BYTES = 2**31 - 2**24


def build(recipe: Training, data: Data) -> Classifier | Forecaster:
    """Return the untrained network of a resolved recipe, sized by its data.

    Raises StageError where the recipe's options do not fit each other or the data.
    """
    try:
        net = assemble(recipe, data)
        require_one_file(net, recipe.arch)
        with torch.no_grad():  # one sample, so that a misfit shows here, not in the first step
            net.eval()(torch.from_numpy(np.array(data.example())))
    except (ValueError, RuntimeError) as error:  # raised by models/ and torch for a misfit
        reason = " ".join(str(error).split())
        raise StageError(f"models/{recipe.arch}.py does not fit its recipe: {reason}") from None
    return net.train()


def require_one_file(net: nn.Module, arch: str) -> None:
    """Raise StageError where the weights do not fit one ONNX file, before a long training.

    A model is one file; weights in a second file are not allowed.
    """
    size = sum(tensor.numel() * tensor.element_size() for tensor in net.state_dict().values())
    if size > MOST_BYTES:
        most, got = (f"{count / 1e9:.2f} GB" for count in (MOST_BYTES, size))
        what = f"expected weights of at most {most}, the limit of one ONNX file, got {got}"
        raise StageError(f"models/{arch}.py: {what}; make it narrower, or give it smaller images")


def assemble(recipe: Training, data: Data) -> Classifier | Forecaster:
    """Return the network of a recipe, sized by its data, without a trial run."""
    about = data.about
    mean, scale = torch.from_numpy(np.array(data.mean)), torch.from_numpy(np.array(data.scale))
    if data.task == "classification":
        images = {
            "in_channels": 1 if about["input"]["colour"] == "grey" else 3,
            "size": tuple(about["input"]["size"]),
            "classes": len(about["labels"]),
        }
        return Classifier(models.build(recipe.arch, **images, **recipe.net), mean, scale)
    forecast = about["forecast"]
    horizon, levels = forecast["horizon"], len(forecast["quantiles"])
    series = {
        "series": len(about["columns"]),
        "horizon": horizon,
        "context": about["input"]["context"],
        "targets": data.targets,
        "quantiles": levels if recipe.train.loss == "pinball" else 1,
        "calendar": 2 * len(about["input"].get("calendar", [])),
    }
    keywords = models.takes(recipe.arch)
    options = {key: value for key, value in series.items() if key in keywords}
    net = models.build(recipe.arch, **options, **recipe.net)
    return Forecaster(net, mean, scale, torch.zeros(horizon, data.targets, levels))


def multiply_adds(net: nn.Module, x: Tensor) -> int:
    """Return one sample's multiply-adds in convolutions and matrix products, as torch counts."""
    from torch.utils.flop_counter import FlopCounterMode

    counter = FlopCounterMode(display=False)
    with counter, torch.no_grad():
        net.eval()(x)
    return int(counter.get_total_flops() // 2)
