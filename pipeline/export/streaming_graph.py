"""A step graph beside a forecaster's graph (`streaming: true`): a forecast per sample at constant
cost.

Both graphs are in one file and share its weights. Inputs and outputs besides those of the window:

    sample             float32 (N, D), in the units of the series; default 0
    state_0, ...       float32 (N, C, L), the newest inputs of each layer; default 0
    step_forecast      float32 (N, S, D'), as forecast
    step_quantiles     float32 (N, S, D', Q), as quantiles
    next_state_0, ...  the states for the next sample

The defaults let a caller forecast windows without these inputs; `convline` cuts the file in two.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, cast

import numpy as np
import onnx
import torch
from torch import Tensor, nn

from pipeline.core.errors import StageError
from pipeline.export.graph import BATCH_AXIS, add_input_defaults, check_graph, trace_network
from pipeline.network.modules import Forecaster

SERIES_AXIS = {0: torch.export.Dim("M")}  # series whose samples come together


class SteppingNet(Protocol):
    """An architecture that can stream."""

    samples: int  # after which a step forecasts what a window does
    tails: list[tuple[int, int]]  # (C, L) of each state; raises ValueError if options forbid it

    def step(self, x: Tensor, tails: Sequence[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """Return forecasts after one more sample (N, D), and the next states."""


class WithStep(nn.Module):
    """Series (N, T, D), a sample (M, D) and states to the outputs of both graphs."""

    def __init__(self, net: Forecaster):
        super().__init__()
        self.net = net

    def forward(self, series: Tensor, sample: Tensor, states: list[Tensor]) -> tuple[Tensor, ...]:
        stepping = cast("SteppingNet", self.net.net)
        output, next_states = stepping.step(self.net.standardise(sample), states)
        return (*self.net(series), *self.net.read_out(output, None), *next_states)


def export_with_step(net: Forecaster, example: np.ndarray) -> tuple[onnx.ModelProto, int]:
    """Return one checked graph of a forecaster and its step.

    Beside it the number of samples after which the step forecasts what a window does. example:
    windows (N, T, D), two or more. Raises StageError where the network cannot stream.
    """
    stepping = require_stepping(net, context=example.shape[1])
    defaults = {"sample": torch.zeros(1, example.shape[2])}
    defaults |= {f"state_{k}": torch.zeros(1, *size) for k, size in enumerate(stepping.tails)}
    sample, *states = (value.expand(2, *value.shape[1:]).clone() for value in defaults.values())
    inputs = torch.from_numpy(np.array(example[:2])), sample, states
    outputs = ["forecast", "quantiles", "step_forecast", "step_quantiles"]
    outputs += [f"next_state_{k}" for k in range(len(states))]
    axes = BATCH_AXIS, SERIES_AXIS, [SERIES_AXIS] * len(states)
    graph = trace_network(WithStep(net), inputs, ["series", *defaults], outputs, axes)
    add_input_defaults(graph, defaults)
    check_graph(graph)
    return graph, stepping.samples


def require_stepping(net: Forecaster, context: int) -> SteppingNet:
    """Return a forecaster's architecture; StageError with the reason where it cannot stream."""
    stepping, reason = cast("SteppingNet", net.net), ""
    if not hasattr(stepping, "step"):
        reason = f"{type(net.net).__name__} has no step"
    else:
        try:
            _ = stepping.tails
        except ValueError as error:
            reason = str(error)
        else:
            if (needed := stepping.samples) > context:
                reason = f"its forecast depends on {needed} samples, the window holds {context}"
    if reason:
        cure = "change net or data.context, or leave `streaming: true` out"
        raise StageError(f"export: streaming: {reason}; {cure}")
    return stepping
