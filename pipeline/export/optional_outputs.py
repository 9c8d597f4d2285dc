"""Outputs that a recipe may add to the fp32 graph: a streaming step, or saliency maps."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import torch

from pipeline.network.modules import Classifier, Forecaster
from pipeline.params.schema import ExportRecipe


def add_optional_outputs(
    graph: onnx.ModelProto, net: torch.nn.Module, recipe: ExportRecipe, x: dict[str, np.ndarray]
) -> tuple[onnx.ModelProto, dict[str, Any], dict[str, Any]]:
    """Return the graph with the outputs of `streaming: true` or `saliency: true`.

    Beside it the fields that these add to the model document and to export.json. x: inputs by kind,
    "test" to trace with, "random" to check saliency on.
    """
    if recipe.streaming:
        from pipeline.export import streaming_graph

        assert isinstance(net, Forecaster)
        with_step, samples = streaming_graph.export_with_step(net, x["test"])
        return with_step, {"stream": {"samples": samples}}, {}
    if recipe.saliency:
        from pipeline.export import saliency_graph  # its tracing tools take a second to import

        assert isinstance(net, Classifier)
        with_maps = saliency_graph.export_with_saliency(net, x["test"])
        differences = saliency_graph.check_saliency(with_maps, net, x["random"])
        return with_maps, {"explain": {"saliency": True}}, {"saliency": differences}
    return graph, {}, {}
