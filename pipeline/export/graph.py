"""From a PyTorch network to a checked ONNX graph."""

from __future__ import annotations

import logging
import warnings
from typing import Any

import numpy as np
import onnx
import torch

from pipeline.core.errors import StageError
from pipeline.data import dataset
from pipeline.network import modules

BATCH = {0: torch.export.Dim("N")}


NAMES = {
    "features": ("images", ["features"]),  # of a backbone alone
    "classification": ("images", ["probabilities"]),
    "forecasting": ("series", ["forecast", "quantiles"]),
}


def random_inputs(source: dataset.Data, seed: int, count: int) -> np.ndarray:
    """Return fresh input of the served kind: uint8 noise (N, H, W, C), or float32 noise at the series' own scale."""
    rng, real = np.random.default_rng(seed), source.served("test")
    if source.task == "classification":
        return rng.integers(0, 256, (count, *real.shape[1:]), np.uint8)
    columns = len(source.mean)
    noise = source.mean + rng.standard_normal((count, real.shape[1], columns)) / source.scale
    calendar = real[
        np.arange(count) % len(real), :, columns:
    ]  # of real days: none where there is no calendar
    return np.concatenate([noise.astype(np.float32), calendar], 2)


@torch.no_grad()
def answers(net: torch.nn.Module, x: np.ndarray, batch: int = 256) -> list[np.ndarray]:
    """Return torch's outputs for x, on the CPU in fp32; an answer that is not finite is an error."""
    parts = []
    for rows in np.array_split(x, max(1, -(-len(x) // batch))):
        outputs = net(torch.from_numpy(np.array(rows)))
        parts.append(outputs if isinstance(outputs, tuple) else (outputs,))
    columns = [torch.cat(column).numpy() for column in zip(*parts, strict=True)]
    if bad := sum(
        int((~np.isfinite(column)).any(axis=tuple(range(1, column.ndim))).sum())
        for column in columns
    ):
        raise StageError(
            f"export: torch's answers to {bad} of {len(x)} inputs are not finite; retrain with a lower lr"
        )
    return columns


def require_repeatable(net: torch.nn.Module, x: np.ndarray, atol: float) -> None:
    """Raise StageError where an answer changes from run to run, or with the other rows of its batch.

    The parity check would refuse the file as well, but could not say why. x: inputs as the graph takes them.
    """
    together, again = answers(net, x), answers(net, x)
    alone = [
        np.concatenate(parts) for parts in zip(*(answers(net, row[None]) for row in x), strict=True)
    ]
    for other, what, why in (
        (
            again,
            "from one run to the next",
            "is there noise or dropout that stays on? nn.Dropout ends with training",
        ),
        (
            alone,
            "with its batch",
            "are there batch statistics? nn.BatchNorm keeps running ones for evaluation",
        ),
    ):
        gap = max(float(np.abs(a - b).max()) for a, b in zip(together, other, strict=True))
        if gap > atol:
            say = f"in evaluation the network's answer to an input changes by {gap:.1e} {what} (limit {atol:.1e})"
            raise StageError(f"export: {say}; {why}")


def to_onnx(net: torch.nn.Module, example: np.ndarray, task: str) -> onnx.ModelProto:
    """Return the checked graph with a dynamic first axis."""
    name, outputs = NAMES[task]
    given = modules.graph_inputs(net, torch.from_numpy(np.array(example[:2])))
    model = program_of(net, given, [name, "calendar"][: len(given)], outputs, (BATCH,) * len(given))
    check_graph(model)
    return model


def program_of(
    net: torch.nn.Module,
    given: tuple[Any, ...],
    inputs: list[str],
    outputs: list[str],
    shapes: tuple[Any, ...],
) -> onnx.ModelProto:
    """Return what the exporter makes of the network, with the dynamic axes that `shapes` names.

    Its example has two rows: with one, the exporter would take the batch for a constant.
    """
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore"
        )  # the exporter's own deprecations; what matters is checked afterwards
        try:
            program = torch.onnx.export(
                net,
                given,
                dynamo=True,
                verbose=False,
                input_names=inputs,
                output_names=outputs,
                dynamic_shapes=shapes,
            )
        except torch.onnx.OnnxExporterError as error:
            reason = " ".join(str(error.__cause__ or error).split())[:300]
            what = f"{type(net).__name__} ({reason})"
            raise StageError(
                f"export: the exporter cannot trace {what}; change the network's code"
            ) from error
    assert program is not None  # None only with dynamo=False
    return without_traces(program.model_proto)


def without_traces(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return the model without the exporter's notes: they hold paths, and differ from folder to folder."""
    for graph in (model.graph, *model.functions):
        graph.ClearField("metadata_props")
        for kind in ("node", "value_info", "input", "output", "initializer"):
            for part in getattr(graph, kind, ()):
                if not isinstance(part, str):  # a function's inputs and outputs are names
                    part.ClearField("metadata_props")
    return model


def check_graph(graph: onnx.ModelProto) -> None:
    """Raise StageError where the ONNX checker complains or the first axis of an input or output is not dynamic.

    An input with a default is no batch.
    """
    try:
        onnx.checker.check_model(graph, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        reason = " ".join(str(error).split())[:300]
        raise StageError(
            f"export: the ONNX checker refuses the graph ({reason}); change the network's code"
        ) from error
    defaults = {tensor.name for tensor in graph.graph.initializer}
    for value in [*(i for i in graph.graph.input if i.name not in defaults), *graph.graph.output]:
        batch = value.type.tensor_type.shape.dim[0]
        if not batch.dim_param:
            cure = "take the batch from x.shape[0] in forward, not from a constant"
            raise StageError(
                f"export: the batch axis of {value.name!r} is frozen at {batch.dim_value}; {cure}"
            )
