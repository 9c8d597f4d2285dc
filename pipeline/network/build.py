"""What is trained and exported: an architecture with the arithmetic around it, so that a served graph takes raw input.

Standardisation, layout, softmax and un-standardisation live here and nowhere else; training uses the same buffers.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import models
from pipeline.core.errors import StageError
from pipeline.data.dataset import Data
from pipeline.network.modules import Classifier, Forecaster
from pipeline.params.schema import Training

MOST_BYTES = (
    2**31 - 2**24
)  # of weights in one ONNX file: a protobuf message ends at 2 GiB, the graph takes some of it


def build(recipe: Training, data: Data) -> Classifier | Forecaster:
    """Return the untrained network of a resolved recipe, sized by its data; a recipe that does not fit is an error."""
    try:
        net = assemble(recipe, data)
        require_one_file(net, recipe.arch)
        with (
            torch.no_grad()
        ):  # one sample: what does not fit shows here, not as a traceback in the first step
            net.eval()(torch.from_numpy(np.array(data.example())))
    except (
        ValueError,
        RuntimeError,
    ) as error:  # what models/ and torch raise for options and shapes that do not fit
        reason = " ".join(str(error).split())
        raise StageError(f"models/{recipe.arch}.py does not fit its recipe: {reason}") from None
    return net.train()


def require_one_file(net: nn.Module, arch: str) -> None:
    """Raise StageError where the weights are more than one ONNX file holds: protobuf ends a message at 2 GiB.

    Known before training, which would be lost: a model is one file, and weights beside it are refused.
    """
    size = sum(tensor.numel() * tensor.element_size() for tensor in net.state_dict().values())
    if size > MOST_BYTES:
        most, got = (f"{count / 1e9:.2f} GB" for count in (MOST_BYTES, size))
        what = f"expected weights of at most {most}, which is what one ONNX file holds, got {got}"
        raise StageError(f"models/{arch}.py: {what}; make it narrower, or give it smaller images")


def assemble(recipe: Training, data: Data) -> Classifier | Forecaster:
    about = data.about
    mean, scale = torch.from_numpy(np.array(data.mean)), torch.from_numpy(np.array(data.scale))
    if data.task == "classification":
        channels = 1 if about["input"]["colour"] == "grey" else 3
        shape: dict[str, Any] = {
            "in_channels": channels,
            "size": tuple(about["input"]["size"]),
            "classes": len(about["labels"]),
        }
        return Classifier(models.build(recipe.arch, **shape, **recipe.net), mean, scale)
    forecast, context = about["forecast"], about["input"]["context"]
    horizon, levels = forecast["horizon"], len(forecast["quantiles"])
    given = {
        "series": len(about["columns"]),
        "horizon": horizon,
        "context": context,
        "targets": data.targets,
    }
    given |= {"quantiles": levels if recipe.train.loss == "pinball" else 1}
    given |= {"calendar": 2 * len(about["input"].get("calendar", []))}
    takes = models.takes(recipe.arch)
    net = models.build(recipe.arch, **{k: v for k, v in given.items() if k in takes}, **recipe.net)
    return Forecaster(net, mean, scale, torch.zeros(horizon, data.targets, levels))


def multiply_adds(net: nn.Module, x: Tensor) -> int:
    """Return the multiply-adds of one sample, as torch counts them for convolutions and matrix products."""
    from torch.utils.flop_counter import FlopCounterMode

    counter = FlopCounterMode(display=False)
    with counter, torch.no_grad():
        net.eval()(x)
    return int(counter.get_total_flops() // 2)
