"""A fitted head as stage train leaves it: no other stage fits it again, on another machine it would be another one.

A logistic regression as arrays (head.npz), an MLP as a state dict (head.pt), trees and support vectors as ONNX
(head.onnx); nothing is pickled.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from convline.runtime.session import open_session

from pipeline.core.errors import StageError
from pipeline.core.files import read_json
from pipeline.data import dataset
from pipeline.export import head_graph
from pipeline.network import build, modules
from pipeline.network.features import Backbone
from pipeline.train.heads import Head, Headed, Mlp, mlp_recipe

OPSET = 18  # of head.onnx; its operators have not changed since
ATOL = 1e-4  # of probabilities: the saved head's from the fitted one's
LINEAR = {
    "mean_": 0,
    "scale_": 0,
    "coef_": 1,
    "intercept_": 1,
    "classes_": 1,
}  # fitted attributes, by step


class Saved:
    """Trees or support vectors, as head.onnx has them, with scikit-learn's method."""

    def __init__(self, graph: onnx.ModelProto):
        self.graph = graph
        self.session = open_session(graph.SerializeToString(), "cpu", threads=1)

    def predict_proba(self, x: np.ndarray) -> np.ndarray:
        return self.session.run(
            ["probabilities"], {"features": np.ascontiguousarray(x, np.float32)}
        )[0]


def write(head: Head, x: np.ndarray, folder: Path) -> None:
    """Write a fitted head; StageError where it does not answer features x (N, F) as the fitted one does."""
    if head.kind == "linear":
        steps = [step for _, step in head.estimator.steps]
        np.savez(
            folder / "head.npz", **{name: getattr(steps[at], name) for name, at in LINEAR.items()}
        )
    elif head.kind == "mlp":
        torch.save(head.estimator.net.state_dict(), folder / "head.pt")
    else:
        onnx.save(head_graph.to_onnx(head, x.shape[1], OPSET), folder / "head.onnx")
    apart = (
        np.abs(read(head.kind, head.options, folder).predict_proba(x) - head.probabilities(x)).max(
            1
        )
        > ATOL
    )
    limit = (
        len(x) // 50 if head.kind == "forest" else 0
    )  # where rounding moves a feature over a split
    if apart.sum() > limit:
        what = f"the saved {head.kind} answers {apart.sum()} of {len(x)} training images otherwise than the fitted one"
        raise StageError(f"train: {what} (limit {limit}); choose another head.kind")


def read(kind: str, options: dict[str, Any], folder: Path) -> Any:
    """Return the estimator that `write` left in the folder."""
    if kind == "linear":
        return linear(folder / "head.npz")
    if kind == "mlp":
        return mlp(options, torch.load(folder / "head.pt", map_location="cpu", weights_only=True))
    return Saved(onnx.load(folder / "head.onnx"))


def linear(file: Path) -> Any:
    """Return scikit-learn's pipeline with the fitted attributes of the file."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    steps = StandardScaler(), LogisticRegression()
    with np.load(file) as arrays:
        for name, at in LINEAR.items():
            setattr(steps[at], name, arrays[name])
    return make_pipeline(*steps)


def mlp(options: dict[str, Any], state: dict[str, torch.Tensor]) -> Mlp:
    """Return the network of models/fcnn.py with these weights."""
    made = Mlp(**options, seed=0)
    labels = [str(k) for k in range(len(state[list(state)[-1]]))]  # the last bias
    mean, scale = (state[name].numpy() for name in ("mean", "scale"))
    about = {"task": "classification", "labels": labels}
    about["input"] = {"size": [1, mean.size], "colour": "grey"}
    recipe = mlp_recipe(options["dropout"], options["epochs"], 0, 8)
    made.net = build.assemble(recipe, dataset.Data({}, {}, mean, scale, about))
    made.net.load_state_dict(state)
    made.net.eval()
    return made


def restore(net: modules.Classifier, recipe: dict[str, Any], folder: Path) -> Headed:
    """Return what stage train wrote to the folder: the backbone with the head that was chosen and fitted there."""
    chosen = read_json(folder / "head.json", "train")["chosen"]
    made = read(chosen["kind"], chosen["options"], folder)
    return Headed(
        Backbone(net, recipe["head"]["layer"]), Head(chosen["kind"], chosen["options"], made)
    )
