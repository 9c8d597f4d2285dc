"""Build a recipe's network: an architecture between normalization and output form.

Its graph takes raw input: standardisation, layout, softmax and the way back to units are in
network.modules and nowhere else, and training uses the same buffers.
"""

from __future__ import annotations

import traceback
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pipeline.core.errors import StageError
from pipeline.data.dataset import Data
from pipeline.network.tasks import TASKS
from pipeline.params.schema import Training

# Of weights in one ONNX file: a protobuf message ends at 2 GiB, and the graph needs some of it.
MOST_BYTES = 2**31 - 2**24


# What a mistake in an architecture's file raises.
MISTAKES: tuple[type[Exception], ...] = (
    *(ArithmeticError, AssertionError, AttributeError, ImportError, LookupError),
    *(NameError, RuntimeError, TypeError, ValueError),
)


def build(recipe: Training, data: Data) -> Any:
    """Return the untrained network of a resolved recipe, sized by its data.

    Raises StageError where the recipe's options do not fit each other or the data, and where the
    architecture's own code fails or its output has another shape: one sample goes through it, so
    that this shows here and not in the first step.
    """
    try:
        net = assemble(recipe, data)
        require_one_file(net, recipe.arch)
        with torch.no_grad():
            TASKS[data.task].require_output(net.eval(), recipe, data)
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


def require_one_file(net: nn.Module, arch: str) -> None:
    """Raise StageError where the weights do not fit one ONNX file, before a long training.

    A model is one file; weights in a second file are not allowed.
    """
    size = sum(tensor.numel() * tensor.element_size() for tensor in net.state_dict().values())
    if size > MOST_BYTES:
        most, got = (f"{count / 1e9:.2f} GB" for count in (MOST_BYTES, size))
        what = f"expected weights of at most {most}, the limit of one ONNX file, got {got}"
        raise StageError(f"models/{arch}.py: {what}; make it narrower, or give it smaller images")


def assemble(recipe: Training, data: Data) -> Any:
    """Return the network of a recipe, sized by its data, without a trial run."""
    return TASKS[data.task].assemble(recipe, data)


def multiply_adds(net: nn.Module, x: Tensor) -> int:
    """Return one sample's multiply-adds in convolutions and matrix products, as torch counts."""
    from torch.utils.flop_counter import FlopCounterMode

    counter = FlopCounterMode(display=False)
    with counter, torch.no_grad():
        net.eval()(x)
    return int(counter.get_total_flops() // 2)
