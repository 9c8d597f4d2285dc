"""The step graph in an exported forecaster (`streaming: true`): a forecast for each new sample, at constant cost.

It shares its weights with the graph of whole windows, in one file. Beside that graph's the file takes and answers:

    sample           float32 (N, D), in own units; default 0
    state_0, ...     float32 (N, C, L), the tail of each layer: its newest inputs; default 0, as before the first sample
    step_forecast    float32 (N, S, D'), and step_quantiles (N, S, D', Q): as forecast and quantiles
    next_state_0, ...  the tails for the next sample

The defaults let whoever asks for forecasts of windows alone leave these inputs out; `serve` cuts the file in two.
"""

from __future__ import annotations

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from torch import Tensor, nn

from pipeline.core.errors import StageError
from pipeline.export import graph as export
from pipeline.network.modules import Forecaster

SERIES = {0: torch.export.Dim("M")}  # those that go side by side


class Streamed(nn.Module):
    """Series (N, T, D), a sample (M, D) and tails to what both graphs answer, and the next tails."""

    def __init__(self, net: Forecaster):
        super().__init__()
        self.net = net

    def forward(self, series: Tensor, sample: Tensor, tails: list[Tensor]) -> tuple[Tensor, ...]:
        answer, later = self.net.net.step(self.net.standardise(sample), tails)
        return (*self.net(series), *self.net.read_out(answer), *later)


def to_onnx(net: Forecaster, example: np.ndarray) -> tuple[onnx.ModelProto, int]:
    """Return one checked graph of a forecaster and its step, and the samples after which both answer alike."""
    tails = shapes(net, example.shape[1])
    defaults = {"sample": torch.zeros(1, example.shape[2])}
    defaults |= {f"state_{k}": torch.zeros(1, *shape) for k, shape in enumerate(tails)}
    sample, *state = (value.expand(2, *value.shape[1:]).clone() for value in defaults.values())
    given = torch.from_numpy(np.array(example[:2])), sample, state
    outputs = ["forecast", "quantiles", "step_forecast", "step_quantiles"]
    outputs += [f"next_state_{k}" for k in range(len(tails))]
    axes = export.BATCH, SERIES, [SERIES] * len(tails)
    graph = export.program_of(Streamed(net), given, ["series", *defaults], outputs, axes)
    # an input with an initializer of its name has that as its default (onnx/docs/IR.md, "Graphs")
    graph.graph.initializer.extend(
        numpy_helper.from_array(value.numpy(), name) for name, value in defaults.items()
    )
    export.check_graph(graph)
    return graph, net.net.samples


def shapes(net: Forecaster, context: int) -> list[tuple[int, int]]:
    """Return (C, L) of each tail; StageError with the reason where there is no stream."""
    why = f"{type(net.net).__name__} has no step"
    if hasattr(net.net, "step"):
        try:
            tails = net.net.tails
        except ValueError as error:
            why = str(error)
        else:
            if net.net.samples <= context:
                return tails
            why = f"its answer rests on {net.net.samples} samples, the window holds {context}: a stream would see more"
    raise StageError(
        f"export: streaming: {why}; change net or data.context, or leave `streaming: true` out"
    )
