"""From a PyTorch network to a checked ONNX graph with a dynamic batch axis."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import torch
from onnx import numpy_helper

from pipeline.core.errors import StageError
from pipeline.network import modules

BATCH_AXIS = {0: torch.export.Dim("N")}


def export_network(
    net: torch.nn.Module,
    example: np.ndarray,
    input_names: tuple[str, ...] = ("images",),
    output_names: tuple[str, ...] = ("probabilities",),
    translations: dict[Any, Callable[..., Any]] | None = None,
) -> onnx.ModelProto:
    """Return the checked graph of a network.

    example: inputs as `Data.served` holds them, two or more. translations: see `trace_network`.
    """
    inputs = modules.graph_inputs(net, torch.from_numpy(np.array(example[:2])))
    names, axes = list(input_names[: len(inputs)]), (BATCH_AXIS,) * len(inputs)
    graph = trace_network(net, inputs, names, list(output_names), axes, translations)
    check_graph(graph)
    return graph


def trace_network(
    net: torch.nn.Module,
    inputs: tuple[Any, ...],
    input_names: list[str],
    output_names: list[str],
    dynamic_shapes: tuple[Any, ...],
    translations: dict[Any, Callable[..., Any]] | None = None,
) -> onnx.ModelProto:
    """Return the graph that torch's exporter makes of a network, unchecked.

    inputs: an example of two rows, since with one the exporter takes the batch size for a constant.
    translations: of operators of our own to functions of onnxscript.
    """
    trainable = [weights for weights in net.parameters() if weights.requires_grad]
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecations within the exporter; the graph is checked
        for weights in trainable:  # else the exporter prepares the backward pass too
            weights.requires_grad_(False)
        try:
            program = torch.onnx.export(
                net,
                inputs,
                dynamo=True,
                verbose=False,
                input_names=input_names,
                output_names=output_names,
                dynamic_shapes=dynamic_shapes,
                custom_translation_table=translations,
            )
        except torch.onnx.OnnxExporterError as error:
            reason = " ".join(str(error.__cause__ or error).split())[:300]
            what = f"{type(net).__name__} ({reason})"
            raise StageError(
                f"export: the exporter cannot trace {what}; change the network's code"
            ) from error
        finally:
            for weights in trainable:
                weights.requires_grad_(True)
    assert program is not None  # None only with dynamo=False
    return remove_source_notes(program.model_proto)


def remove_source_notes(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return the model without the exporter's notes, which hold source paths of this machine."""
    for graph in (model.graph, *model.functions):
        graph.ClearField("metadata_props")
        for kind in ("node", "value_info", "input", "output", "initializer"):
            for part in getattr(graph, kind, ()):
                if not isinstance(part, str):  # a function's inputs and outputs are names
                    part.ClearField("metadata_props")
    return model


def add_input_defaults(graph: onnx.ModelProto, defaults: dict[str, torch.Tensor]) -> None:
    """Give inputs a default: an initializer of the same name (ONNX IR specification, Graphs)."""
    graph.graph.initializer.extend(
        numpy_helper.from_array(value.numpy(), name) for name, value in defaults.items()
    )


def check_graph(graph: onnx.ModelProto) -> None:
    """Raise StageError where the ONNX checker fails or a first axis is not dynamic.

    An input with a default need not have a batch axis.
    """
    try:
        onnx.checker.check_model(graph, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        reason = " ".join(str(error).split())[:300]
        raise StageError(
            f"export: the ONNX checker refuses the graph ({reason}); change the network's code"
        ) from error
    defaults = {tensor.name for tensor in graph.graph.initializer}
    inputs = [value for value in graph.graph.input if value.name not in defaults]
    for value in [*inputs, *graph.graph.output]:
        batch = value.type.tensor_type.shape.dim[0]
        if not batch.dim_param:
            cure = "take the batch from x.shape[0] in forward, not from a constant"
            raise StageError(
                f"export: the batch axis of {value.name!r} is frozen at {batch.dim_value}; {cure}"
            )


@torch.no_grad()
def torch_outputs(net: torch.nn.Module, x: np.ndarray, batch: int = 256) -> list[np.ndarray]:
    """Return the network's outputs for x (N, ...) on the CPU in fp32.

    Raises StageError where one is not finite.
    """
    parts = []
    for rows in np.array_split(x, max(1, -(-len(x) // batch))):
        outputs = net(torch.from_numpy(np.array(rows)))
        parts.append(outputs if isinstance(outputs, tuple) else (outputs,))
    columns = [torch.cat(column).numpy() for column in zip(*parts, strict=True)]
    if bad := sum(
        int((~np.isfinite(column)).any(axis=tuple(range(1, column.ndim))).sum())
        for column in columns
    ):
        what = f"torch's outputs for {bad} of {len(x)} inputs are not finite"
        raise StageError(f"export: {what}; retrain with a lower lr")
    return columns


def difference(first: list[np.ndarray], second: list[np.ndarray]) -> float:
    """Return the largest absolute difference of the outputs for the same inputs."""
    pairs = zip(first, second, strict=True)
    return max(float(np.abs(a.astype(np.float64) - b).max(initial=0)) for a, b in pairs)


def require_repeatable(
    net: torch.nn.Module,
    x: np.ndarray,
    atol: float,
    gap_of: Callable[[list[np.ndarray], list[np.ndarray]], float] = difference,
    cause: str | None = None,
) -> None:
    """Raise StageError where an output changes from run to run or with the other rows of its batch.

    Stage check would refuse the file as well, but could not tell why. x: inputs as served;
    gap_of: the difference of outputs for the same inputs; cause: what in the data makes
    float32 round much, and its cure, if there is any.
    """
    first, second = torch_outputs(net, x), torch_outputs(net, x)
    rows = [torch_outputs(net, row[None]) for row in x]
    single = [np.concatenate(column) for column in zip(*rows, strict=True)]
    noise = "is there noise or dropout that stays on? nn.Dropout ends with training"
    batch = "are there batch statistics? nn.BatchNorm keeps running ones for evaluation"
    for other, when, why in (
        (second, "from one run to the next", noise),
        (single, "with its batch", batch),
    ):
        if (gap := gap_of(first, other)) > atol:
            what = f"in evaluation the network's output for an input changes by {gap:.1e} {when}"
            why = f"it may be that {cause}" if cause else why
            raise StageError(f"export: {what} (limit {atol:.1e}); {why}")
