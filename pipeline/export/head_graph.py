"""Backbone and head as one graph, from uint8 images to class probabilities, so that serving needs
no scikit-learn.

A logistic regression and an MLP become products, sums and a softmax, which every device has kernels
for. Forests and support vector machines need operators of ai.onnx.ml, which only the CPU has:
behind a backbone on a GPU they run on the CPU.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import torch
from torch import Tensor, nn

from pipeline.export.graph import check_graph, export_network
from pipeline.train.head_files import head_to_onnx
from pipeline.train.heads import Head, Headed

TORCH_KINDS = ("linear", "mlp")  # heads that torch's exporter can trace


def export_with_head(net: Headed, example: np.ndarray) -> onnx.ModelProto:
    """Return one checked graph of backbone and head.

    example: uint8 images (N, H, W, C), two or more.
    """
    if net.head.kind in TORCH_KINDS:
        joined = nn.Sequential(net.backbone, TorchHead(net.head))
        return export_network(joined, example)
    backbone = export_network(net.backbone, example, output_names=("features",))
    width = backbone.graph.output[0].type.tensor_type.shape.dim[1].dim_value
    opset = next(o.version for o in backbone.opset_import if o.domain == "")
    graph = join_head(backbone, head_to_onnx(net.head, width, opset))
    check_graph(graph)
    return graph


class TorchHead(nn.Module):
    """A head of TORCH_KINDS in torch's operators: features (N, F) to probabilities (N, K)."""

    def __init__(self, head: Head):
        super().__init__()
        self.linear = head.kind == "linear"
        self.net: Any = LinearHead(head.estimator) if self.linear else head.estimator.net

    def forward(self, features: Tensor) -> Tensor:
        logits = self.net(features) if self.linear else self.net.logits(features[:, None, None])
        probabilities: Tensor = logits.softmax(1)
        return probabilities


class LinearHead(nn.Module):
    """StandardScaler and LogisticRegression, fitted: features (N, F) to logits (N, K)."""

    mean: Tensor  # (F,)
    scale: Tensor  # (F,)
    weight: Tensor  # (F, K)
    bias: Tensor  # (K,)

    def __init__(self, estimator: Any):
        super().__init__()
        scaler, regression = (step for _, step in estimator.steps)
        weight, bias = regression.coef_.T, regression.intercept_
        if len(regression.classes_) == 2:  # one column: log odds of the second class over the first
            weight, bias = np.pad(weight, ((0, 0), (1, 0))), np.pad(bias, (1, 0))
        parts = {"mean": scaler.mean_, "scale": scaler.scale_, "weight": weight, "bias": bias}
        for name, values in parts.items():
            self.register_buffer(name, torch.tensor(np.asarray(values, np.float32)))

    def forward(self, features: Tensor) -> Tensor:
        return (features - self.mean) / self.scale @ self.weight + self.bias


def join_head(backbone: onnx.ModelProto, head: onnx.ModelProto) -> onnx.ModelProto:
    """Return one graph of a backbone, images to features, and a head, features to probabilities."""
    from onnx import compose

    head.ir_version = backbone.ir_version
    default = [o for o in backbone.opset_import if o.domain == ""]
    others = [o for o in head.opset_import if o.domain]
    del head.opset_import[:]
    head.opset_import.extend([*default, *others])  # merge_models needs equal versions
    joined: onnx.ModelProto = compose.merge_models(
        backbone,
        compose.add_prefix(head, "head/", rename_inputs=False, rename_outputs=False),
        [("features", "features")],
    )
    joined.graph.output[0].type.tensor_type.shape.dim[0].dim_param = "N"
    return joined
