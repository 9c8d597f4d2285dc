"""Backbone and head as one graph, from uint8 images to class probabilities: no scikit-learn where it is served."""

from __future__ import annotations

import warnings

import numpy as np
import onnx
from torch import Tensor, nn

from pipeline import export
from pipeline.heads import Head, Headed

OPSET_ML = 3  # of ONNX's operators for trees and support vectors


def to_onnx(head: Head, width: int, opset: int) -> onnx.ModelProto:
    """Return the head as a graph from features (N, F) to probabilities (N, K)."""
    from skl2onnx import convert_sklearn
    from skl2onnx.common.data_types import FloatTensorType

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # scikit-learn's about attributes that the converter reads
        made = convert_sklearn(
            head.estimator,
            initial_types=[("features", FloatTensorType([None, width]))],
            options={"zipmap": False},
            target_opset={"": opset, "ai.onnx.ml": OPSET_ML},
        )
    for output in [o for o in made.graph.output if o.name != "probabilities"]:
        made.graph.output.remove(output)
    return made


def join(backbone: onnx.ModelProto, head: onnx.ModelProto) -> onnx.ModelProto:
    """Return one graph from images to probabilities."""
    from onnx import compose

    head.ir_version = backbone.ir_version
    ours = [o for o in backbone.opset_import if o.domain == ""]
    theirs = [o for o in head.opset_import if o.domain]
    del head.opset_import[:]
    head.opset_import.extend([*ours, *theirs])  # merging wants one version of each
    joined = compose.merge_models(
        backbone,
        compose.add_prefix(head, "head/", rename_inputs=False, rename_outputs=False),
        [("features", "features")],
    )
    joined.graph.output[0].type.tensor_type.shape.dim[0].dim_param = "N"
    return joined


class Traced(nn.Module):
    """The same as `Headed` for an MLP, in torch's own operators: what the exporter can follow."""

    def __init__(self, headed: Headed):
        super().__init__()
        self.backbone, self.mlp = headed.backbone, headed.head.estimator.net

    def forward(self, images: Tensor) -> Tensor:
        return self.mlp.logits(self.backbone(images)[:, None, None]).softmax(1)


def to_graph(net: Headed, example: np.ndarray) -> onnx.ModelProto:
    """Return one checked graph from uint8 images to probabilities: backbone and head."""
    if net.head.kind == "mlp":
        return export.to_onnx(Traced(net), example, "classification")
    backbone = export.to_onnx(net.backbone, example, "features")
    width = backbone.graph.output[0].type.tensor_type.shape.dim[1].dim_value
    opset = next(o.version for o in backbone.opset_import if o.domain == "")
    graph = join(backbone, to_onnx(net.head, width, opset))
    export.check_graph(graph)
    return graph
