"""What is trained and exported: an architecture with the arithmetic around it, so that a served graph takes raw input.

Standardisation, layout, softmax and un-standardisation live here and nowhere else; training uses the same buffers.
"""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import models
from pipeline import disk
from pipeline.data import Data
from pipeline.stage import StageError


class Classifier(nn.Module):
    """uint8 images (N, H, W, C) to probabilities (N, K)."""

    mean: Tensor
    scale: Tensor

    def __init__(self, net: nn.Module, mean: Tensor, scale: Tensor):
        super().__init__()
        self.net = net
        self.register_buffer("mean", mean)  # (C, H, W) or (C, 1, 1)
        self.register_buffer("scale", scale)

    def logits(self, images: Tensor) -> Tensor:
        """Return logits (N, K) for uint8 or float images in grey levels (N, C, H, W).

        In training, a network with auxiliary heads answers a tuple of them, its own first.
        """
        return self.net((images.float() - self.mean) * self.scale)

    def forward(self, images: Tensor) -> Tensor:
        return self.logits(images.permute(0, 3, 1, 2)).softmax(1)


class Forecaster(nn.Module):
    """Series in their own units (N, T, D) to forecasts (N, S, D) and their quantiles (N, S, D, Q)."""

    mean: Tensor
    scale: Tensor
    offsets: Tensor

    def __init__(self, net: nn.Module, mean: Tensor, scale: Tensor, offsets: Tensor):
        super().__init__()
        self.net = net
        self.register_buffer("mean", mean)  # (D,)
        self.register_buffer("scale", scale)
        self.register_buffer("offsets", offsets)  # (S, D, Q): quantiles of the validation residuals, in own units

    def standardise(self, series: Tensor) -> Tensor:
        return (series - self.mean) * self.scale

    def forward(self, series: Tensor) -> tuple[Tensor, Tensor]:
        forecast = self.net(self.standardise(series)) / self.scale + self.mean
        return forecast, forecast.unsqueeze(-1) + self.offsets


def build(recipe: dict[str, Any], data: Data) -> Classifier | Forecaster:
    """Return the untrained network of a resolved recipe, sized by its data; a recipe that does not fit is an error."""
    try:
        net = assemble(recipe, data)
        with torch.no_grad():  # one sample: what does not fit shows here, not as a traceback in the first step
            net.eval()(torch.from_numpy(np.array(data.example())))
    except (ValueError, RuntimeError) as error:  # what models/ and torch raise for options and shapes that do not fit
        reason = " ".join(str(error).split())
        raise StageError(f"models/{recipe['arch']}.py does not fit its recipe: {reason}") from None
    return net.train()


def start(net: Classifier | Forecaster, recipe: dict[str, Any]) -> None:
    """Load the published weights that the recipe names, if any, into the network; they must fit it exactly."""
    if not (weights := recipe.get("weights")):
        return
    path, cure = disk.weights_path(weights["file"]), "give the file that torch.save wrote of a state dict"
    try:
        state = None if path is None else torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, EOFError, RuntimeError, KeyError) as error:
        raise StageError(f"weights: {path} cannot be read ({type(error).__name__}); {cure}") from None
    if path and not (isinstance(state, dict) and all(isinstance(v, Tensor) for v in state.values())):
        raise StageError(f"weights: {path}: expected names and tensors, got {type(state).__name__}; {cure}")
    try:
        net.net.load_state_dict(models.published(recipe["arch"], state, recipe["net"]))
    except OSError as error:
        reason = f"torchvision's are not below TORCH_HOME, and their download failed ({error})"
        raise StageError(f"weights: {reason}; put the file there, or name one") from None
    except (ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:300]
        cure = "name the weights of this network, with its own options and number of classes"
        raise StageError(
            f"weights: {weights['file']} does not fit models/{recipe['arch']}.py: {reason}; {cure}"
        ) from None


def assemble(recipe: dict[str, Any], data: Data) -> Classifier | Forecaster:
    about = data.about
    mean, scale = torch.from_numpy(np.array(data.mean)), torch.from_numpy(np.array(data.scale))
    if data.task == "classification":
        channels = 1 if about["input"]["colour"] == "grey" else 3
        shape: dict[str, Any] = {
            "in_channels": channels,
            "size": tuple(about["input"]["size"]),
            "classes": len(about["labels"]),
        }
        return Classifier(models.build(recipe["arch"], **shape, **recipe["net"]), mean, scale)
    forecast, columns = about["forecast"], len(about["columns"])
    net = models.build(recipe["arch"], series=columns, horizon=forecast["horizon"], **recipe["net"])
    offsets = torch.zeros(forecast["horizon"], columns, len(forecast["quantiles"]))
    return Forecaster(net, mean, scale, offsets)


def multiply_adds(net: nn.Module, x: Tensor) -> int:
    """Return the multiply-adds of one sample, as torch counts them for convolutions and matrix products."""
    from torch.utils.flop_counter import FlopCounterMode

    counter = FlopCounterMode(display=False)
    with counter, torch.no_grad():
        net.eval()(x)
    return int(counter.get_total_flops() // 2)
