"""Build a recipe's network: an architecture between normalization and output form.

Its graph takes raw input: standardisation, layout, softmax and the way back to units are in
network.modules and nowhere else, and training uses the same buffers.
"""

from __future__ import annotations

import traceback
from pathlib import Path
from typing import Any

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


# What a mistake in an architecture's file raises.
MISTAKES: tuple[type[Exception], ...] = (
    *(ArithmeticError, AssertionError, AttributeError, ImportError, LookupError),
    *(NameError, RuntimeError, TypeError, ValueError),
)


def build(recipe: Training, data: Data) -> Classifier | Forecaster:
    """Return the untrained network of a resolved recipe, sized by its data.

    Raises StageError where the recipe's options do not fit each other or the data, and where the
    architecture's own code fails or its output has another shape: one sample goes through it, so
    that this shows here and not in the first step.
    """
    try:
        net = assemble(recipe, data)
        require_one_file(net, recipe.arch)
        require_output(net.eval(), recipe, data)
    except MISTAKES as error:
        raise explained(error, recipe.arch, building=True) from None
    return net.train()


def explained(error: Exception, arch: str, building: bool = False) -> Exception:
    """Return an error of an architecture's code as one sentence with its line; others as they are.

    A ValueError of models/ is such a sentence already. In building, torch's errors of shapes count,
    too, wherever they are raised.
    """
    file, reason = f"models/{arch}.py", " ".join(str(error).split())
    frames = traceback.extract_tb(error.__traceback__)
    lines = [frame.lineno for frame in frames if Path(frame.filename).match(file)]
    misfit = isinstance(error, ValueError | RuntimeError)
    if not lines and not (building and misfit):
        return error
    where = f"{file} line {lines[-1]}" if lines and not reason.startswith(f"{arch}:") else file
    if misfit:
        return StageError(f"{where} does not fit its recipe: {reason}")
    what = f"{type(error).__name__}: {reason}" if reason else type(error).__name__
    return StageError(f"{where}: {what}; correct the line")


def require_output(net: Classifier | Forecaster, recipe: Training, data: Data) -> None:
    """Raise StageError where the architecture's output for one sample has not the data's shape."""
    x = torch.from_numpy(np.array(data.example()))
    with torch.no_grad():
        if isinstance(net, Classifier):
            x = x.permute(0, 3, 1, 2).contiguous()
            output: Any = net.logits(x)
            expected: tuple[int, ...] = (len(data.about["labels"]),)
            what = "logits (N, K)"
        else:
            x = net.standardise(*net.split_input(x))
            output = net.net(x)
            horizon, targets, levels = net.offsets.shape
            expected = (horizon * (levels if recipe.train.loss == "pinball" else 1), targets)
            what = "forecasts (N, S, D)"
    if isinstance(output, Tensor) and output.shape == (1, *expected):
        return
    got = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
    needed = f"expected {what} of shape {(1, *expected)} for one input {tuple(x.shape)}"
    raise StageError(f"models/{recipe.arch}.py: {needed}, got {got}; change what forward returns")


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
    about, keywords = data.about, models.takes(recipe.arch)
    mean, scale = torch.from_numpy(np.array(data.mean)), torch.from_numpy(np.array(data.scale))
    if data.task == "classification":
        images = {
            "in_channels": 1 if about["input"]["colour"] == "grey" else 3,
            "size": tuple(about["input"]["size"]),
            "classes": len(about["labels"]),
        }
        images = {key: value for key, value in images.items() if key in keywords}
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
