"""Files of a fitted head, which other stages read: only stage train fits heads.

A logistic regression is stored as arrays (head.npz), an MLP as a state dict (head.pt), trees and
support vectors as ONNX (head.onnx). Nothing is pickled.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from convline.runtime.session import open_session

from pipeline.core.errors import StageError
from pipeline.core.files import read_json
from pipeline.data import dataset
from pipeline.network import build, modules
from pipeline.network.features import Backbone
from pipeline.params.schema import Training
from pipeline.train.heads import Head, Headed, Mlp, mlp_about, mlp_recipe

OPSET, OPSET_ML = 18, 3  # of head.onnx: ai.onnx, whose operators have not changed since, ai.onnx.ml
ATOL = 1e-4  # of the stored head's probabilities against the fitted head's
# Fitted attributes of StandardScaler (0) and LogisticRegression (1).
LINEAR = {"mean_": 0, "scale_": 0, "coef_": 1, "intercept_": 1, "classes_": 1}


class OnnxHead:
    """Trees or support vectors of head.onnx, with scikit-learn's method."""

    def __init__(self, graph: onnx.ModelProto):
        self.graph = graph
        self.session = open_session(graph.SerializeToString(), "cpu", threads=1)

    def predict_proba(self, x: np.ndarray) -> np.ndarray:
        features = np.ascontiguousarray(x, np.float32)
        return self.session.run(["probabilities"], {"features": features})[0]


def write(head: Head, x: np.ndarray, folder: Path) -> None:
    """Write a fitted head to the folder.

    Raises StageError where the stored head's probabilities for features x (N, F) differ from the
    fitted head's; of a forest 2 % of the rows may, whose features rounding moves over a split.
    """
    if head.kind == "linear":
        steps = [step for _, step in head.estimator.steps]
        arrays = {name: getattr(steps[k], name) for name, k in LINEAR.items()}
        np.savez(folder / "head.npz", **arrays)
    elif head.kind == "mlp":
        torch.save(head.estimator.net.state_dict(), folder / "head.pt")
    else:
        onnx.save(head_to_onnx(head, x.shape[1], OPSET), folder / "head.onnx")
    stored = read(head.kind, head.options, folder).predict_proba(x)
    differing = (np.abs(stored - head.probabilities(x)).max(1) > ATOL).sum()
    limit = len(x) // 50 if head.kind == "forest" else 0
    if differing > limit:
        what = f"the stored {head.kind} differs from the fitted one on {differing} of {len(x)}"
        raise StageError(f"train: {what} training images (limit {limit}); choose another head.kind")


def head_to_onnx(head: Head, width: int, opset: int) -> onnx.ModelProto:
    """Return the head as a graph from features (N, F) to probabilities (N, K).

    A head that was read from head.onnx gives a copy of that graph.
    """
    if isinstance(head.estimator, OnnxHead):
        copy = onnx.ModelProto()
        copy.CopyFrom(head.estimator.graph)
        return copy
    from skl2onnx import convert_sklearn
    from skl2onnx.common.data_types import FloatTensorType

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # scikit-learn's about attributes that the converter reads
        graph = convert_sklearn(
            head.estimator,
            initial_types=[("features", FloatTensorType([None, width]))],
            options={"zipmap": False},
            target_opset={"": opset, "ai.onnx.ml": OPSET_ML},
        )
    for output in [o for o in graph.graph.output if o.name != "probabilities"]:
        graph.graph.output.remove(output)
    return graph


def read(kind: str, options: dict[str, Any], folder: Path) -> Any:
    """Return the estimator that `write` stored in the folder."""
    if kind == "linear":
        return read_linear(folder / "head.npz")
    if kind == "mlp":
        state = torch.load(folder / "head.pt", map_location="cpu", weights_only=True)
        return mlp_of_state(options, state)
    return OnnxHead(onnx.load(folder / "head.onnx"))


def read_linear(file: Path) -> Any:
    """Return a StandardScaler and LogisticRegression with the fitted attributes of the file."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    steps = StandardScaler(), LogisticRegression()
    with np.load(file) as arrays:
        for name, k in LINEAR.items():
            setattr(steps[k], name, arrays[name])
    return make_pipeline(*steps)


def mlp_of_state(options: dict[str, Any], state: dict[str, torch.Tensor]) -> Mlp:
    """Return the fitted MLP whose state dict this is."""
    mlp = Mlp(**options, seed=0)
    mean, scale = (state[name].numpy() for name in ("mean", "scale"))
    last_bias = state[list(state)[-1]]
    about = mlp_about(len(last_bias), mean.size)
    recipe = mlp_recipe(options["dropout"], options["epochs"], 0, 8)
    mlp.net = build.assemble(recipe, dataset.Data({}, {}, mean, scale, about))
    mlp.net.load_state_dict(state)
    mlp.net.eval()
    return mlp


def restore(net: modules.Classifier, recipe: Training, folder: Path) -> Headed:
    """Return the backbone `net` with the head that stage train wrote to the folder."""
    assert recipe.head
    chosen = read_json(folder / "head.json", "train")["chosen"]
    kind, options = chosen["kind"], chosen["options"]
    head = Head(kind, options, read(kind, options, folder))
    return Headed(Backbone(net, recipe.head.layer), head)
