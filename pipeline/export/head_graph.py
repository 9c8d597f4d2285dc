"""Backbone and head as one graph, from uint8 images to class probabilities: no scikit-learn where it is served.

A logistic regression and an MLP become products, sums and a softmax, which every device has kernels for. Forests and
support vector machines need the operators of ai.onnx.ml, which only the CPU has: behind a backbone on a GPU they run
there.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import torch
from torch import Tensor, nn

from pipeline.export import graph as export
from pipeline.train.head_files import head_to_onnx
from pipeline.train.heads import Head, Headed

NETWORKS = ("linear", "mlp")  # heads that are products, sums and a softmax


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


class Linear(nn.Module):
    """A fitted pipeline of StandardScaler and LogisticRegression: features (N, F) to logits (N, K)."""

    def __init__(self, estimator: Any):
        super().__init__()
        scaler, regression = (step for _, step in estimator.steps)
        weight, bias = regression.coef_.T, regression.intercept_
        if (
            len(regression.classes_) == 2
        ):  # one column: the second class's log odds, against 0 for the first
            weight, bias = np.pad(weight, ((0, 0), (1, 0))), np.pad(bias, (1, 0))
        parts = {"mean": scaler.mean_, "scale": scaler.scale_, "weight": weight, "bias": bias}
        for name, values in parts.items():
            self.register_buffer(name, torch.tensor(np.asarray(values, np.float32)))

    def forward(self, features: Tensor) -> Tensor:
        return (features - self.mean) / self.scale @ self.weight + self.bias


class OnFeatures(nn.Module):
    """A head of NETWORKS in torch's own operators, which the exporter can follow: features (N, F) to probabilities."""

    def __init__(self, head: Head):
        super().__init__()
        self.linear = head.kind == "linear"
        self.net = Linear(head.estimator) if self.linear else head.estimator.net

    def forward(self, features: Tensor) -> Tensor:
        logits = self.net(features) if self.linear else self.net.logits(features[:, None, None])
        return logits.softmax(1)


def to_graph(net: Headed, example: np.ndarray) -> onnx.ModelProto:
    """Return one checked graph from uint8 images to probabilities: backbone and head."""
    if net.head.kind in NETWORKS:
        return export.to_onnx(
            nn.Sequential(net.backbone, OnFeatures(net.head)), example, "classification"
        )
    backbone = export.to_onnx(net.backbone, example, "features")
    width = backbone.graph.output[0].type.tensor_type.shape.dim[1].dim_value
    opset = next(o.version for o in backbone.opset_import if o.domain == "")
    graph = join(backbone, head_to_onnx(net.head, width, opset))
    export.check_graph(graph)
    return graph
