"""Heads on the features of a trained network: chosen by cross-validation on the training split.

A support vector machine gets its probabilities from Platt's sigmoid, fitted on the out-of-fold
scores of the training images.
"""

from __future__ import annotations

import itertools
import warnings
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from convline.errors import describe_count
from torch import Tensor, nn

from pipeline.core.errors import StageError
from pipeline.core.stage import progress
from pipeline.data import dataset
from pipeline.network.features import Backbone
from pipeline.params import schema as params
from pipeline.params.schema import ResolvedTrain, Training
from pipeline.train import loop

# The candidates of cross-validation, the simplest kind first. gamma is in units of 1 / F.
GRIDS: dict[str, dict[str, list[Any]]] = {
    "linear": {"C": [0.001, 0.01, 0.1, 1.0, 10.0]},
    "mlp": {"dropout": [0.5, 0.25], "epochs": [30]},
    "forest": {"max_features": ["sqrt"], "min_samples_leaf": [1, 3]},
    "svm-linear": {"C": [0.001, 0.01, 0.1, 1.0]},
    "svm-rbf": {"C": [1.0, 10.0, 100.0], "gamma": [0.1, 0.3, 1.0]},
}
TREES = 300
MLP = (400, 400, 200)  # hidden layers of the lecture notes' exercise


@dataclass
class Head:
    """A head fitted on features: its kind and options, its estimator, and all candidates.

    A row of the table has a candidate's kind, options, mean accuracy and standard deviation.
    """

    kind: str
    options: dict[str, Any]
    estimator: Any
    table: list[dict[str, Any]] = field(default_factory=list)

    def probabilities(self, features: np.ndarray) -> np.ndarray:
        """Return probabilities (N, K) float32 for features (N, F) float32."""
        return self.estimator.predict_proba(np.asarray(features, np.float32)).astype(np.float32)


class Headed(nn.Module):
    """uint8 images (N, H, W, C) to probabilities (N, K): a backbone and a fitted head."""

    task = "classification"

    def __init__(self, backbone: Backbone, head: Head):
        super().__init__()
        self.backbone, self.head = backbone, head

    @property
    def net(self) -> nn.Module:
        return self.backbone.net.net

    @property
    def mean(self) -> Tensor:
        return self.backbone.net.mean

    @property
    def flips(self) -> float:
        """The largest difference of probabilities where rounding moves a feature over a split.

        Three trees of a forest may then vote differently; other heads have no splits.
        """
        return 3 / TREES if self.head.kind == "forest" else 0.0

    def forward(self, images: Tensor) -> Tensor:
        features = self.backbone(images)
        probabilities = self.head.probabilities(features.detach().cpu().numpy())
        return torch.from_numpy(probabilities).to(features.device)

    def logits(self, images: Tensor) -> Tensor:
        """Return log probabilities (N, K) for uint8 images (N, C, H, W), as a Classifier does."""
        return self.forward(images.permute(0, 2, 3, 1)).clamp_min(1e-12).log()


class Mlp:
    """The lecture notes' fcNN on features: models/fcnn.py with the methods of scikit-learn.

    It is trained by the line's own loop.
    """

    net: Any

    def __init__(self, dropout: float, epochs: int, seed: int):
        self.dropout, self.epochs, self.seed = dropout, epochs, seed

    def fit(self, x: np.ndarray, y: np.ndarray) -> Mlp:
        images = np.asarray(x, np.float32)[:, None, :, None]  # (N, 1, F, 1): images of one row
        std = x.std(0)
        scale = np.where(std > 1e-6, 1 / (std + 1e-6), 0)
        source = dataset.Data(
            dict.fromkeys(dataset.SPLITS, images),
            dict.fromkeys(dataset.SPLITS, y),
            x.mean(0).reshape(1, 1, -1).astype(np.float32),
            scale.reshape(1, 1, -1).astype(np.float32),
            mlp_about(int(y.max()) + 1, x.shape[1]),
        )
        recipe = mlp_recipe(self.dropout, self.epochs, self.seed, len(x))
        self.net, _ = loop.fit(recipe, source, on=torch.device("cpu"), label="mlp")
        return self

    @torch.no_grad()
    def predict_proba(self, x: np.ndarray) -> np.ndarray:
        images = torch.from_numpy(np.array(x, np.float32))[:, None, None]
        return self.net.logits(images).softmax(1).numpy()

    def score(self, x: np.ndarray, y: np.ndarray) -> float:
        return float((self.predict_proba(x).argmax(1) == y).mean())


def mlp_about(classes: int, width: int) -> dict[str, Any]:
    """Return the facts of features (N, width) as a dataset of images with one row."""
    return {
        "task": "classification",
        "labels": [str(k) for k in range(classes)],
        "hash": "features",
        "input": {"size": [1, width], "colour": "grey"},
    }


def mlp_recipe(dropout: float, epochs: int, seed: int, rows: int) -> Training:
    """Return the recipe of the MLP, with this process's threads and determinism.

    The batch is the lecture notes' 128 where there are enough rows.
    """
    batch = int(min(128, max(2, rows // 4)))
    return Training(
        arch="fcnn",
        net={"hidden": list(MLP), "dropout": dropout},
        train=ResolvedTrain(
            epochs=epochs, batch=batch, lr=0.001, schedule="cosine", choose="last", seed=seed
        ),
        threads=torch.get_num_threads(),
        deterministic=torch.are_deterministic_algorithms_enabled(),
    )


def build_estimator(
    kind: str, options: dict[str, Any], seed: int, width: int, probabilities: bool = True
) -> Any:
    """Return an unfitted estimator for features (N, width).

    probabilities: without them a support vector machine is faster; cross-validation needs none.
    """
    if kind == "mlp":
        return Mlp(**options, seed=seed)
    from sklearn.calibration import CalibratedClassifierCV
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from sklearn.svm import SVC

    if kind == "forest":
        return RandomForestClassifier(TREES, random_state=seed, n_jobs=1, **options)
    if kind == "linear":
        return make_pipeline(StandardScaler(), LogisticRegression(max_iter=3000, **options))
    kernel: dict[str, Any] = {"kernel": "linear"}
    if kind == "svm-rbf":
        kernel = {"kernel": "rbf", "gamma": options["gamma"] / width}
    machine = SVC(C=options["C"], random_state=seed, **kernel)
    if probabilities:
        # One machine, one sigmoid a class: the ONNX form of an ensemble of them differed by 7e-5.
        machine = CalibratedClassifierCV(machine, ensemble=False)
    return make_pipeline(StandardScaler(), machine)


def fit_head(
    spec: params.Head, x: np.ndarray, y: np.ndarray, labels: list[str], seed: int, place: str
) -> Head:
    """Return the head of a recipe's `head:` block, chosen and fitted on features (N, F).

    y: the class of each row. Raises StageError where a class has too few rows to cross-validate.
    """
    counts = np.bincount(y, minlength=len(labels))
    rarest, least = labels[int(counts.argmin())] if labels else "", int(counts.min(initial=len(y)))
    if len(labels) < 2:
        needed = f"a head needs two classes or more, got {labels}"
        raise StageError(f"{place}: {needed}; choose other data")
    if least == 0:
        raise StageError(f"{place}: class {rarest!r} has no training image; give it some")
    if least < spec.folds:
        few = f"class {rarest!r} has {describe_count(least, 'training image')}"
        what = f"{few}, fewer than head.folds ({spec.folds})"
        raise StageError(f"{place}: {what}; lower folds or give it more")
    kinds = list(GRIDS) if spec.kind == "best" else [spec.kind]
    grid = [
        (kind, dict(zip(GRIDS[kind], values, strict=True)))
        for kind in kinds
        for values in itertools.product(*GRIDS[kind].values())
    ]
    bar = progress(len(grid), place, "head")
    table: list[dict[str, Any]] = []
    for kind, options in grid:
        mean, std = cross_validate(kind, options, x, y, spec.folds, seed)
        table.append({"kind": kind, "options": options, "accuracy": mean, "std": std})
        bar.update()
    bar.close()
    best = max(table, key=lambda row: float(row["accuracy"]))  # of equal ones the first, simplest
    kind, options = best["kind"], best["options"]
    return Head(kind, options, fit_estimator(kind, options, x, y, seed), table)


def cross_validate(
    kind: str, options: dict[str, Any], x: np.ndarray, y: np.ndarray, folds: int, seed: int
) -> tuple[float, float]:
    """Return mean and standard deviation of the accuracy on the held-out fold, stratified."""
    from sklearn.model_selection import StratifiedKFold

    scores = []
    for rows, held_out in StratifiedKFold(folds, shuffle=True, random_state=seed).split(x, y):
        estimator = build_estimator(kind, options, seed, x.shape[1], probabilities=False)
        fitted = quiet_fit(estimator, x[rows], y[rows])
        scores.append(fitted.score(x[held_out], y[held_out]))
    return float(np.mean(scores)), float(np.std(scores, ddof=1))


def fit_estimator(
    kind: str, options: dict[str, Any], x: np.ndarray, y: np.ndarray, seed: int
) -> Any:
    """Return an estimator of known options, fitted on all rows."""
    return quiet_fit(build_estimator(kind, options, seed, x.shape[1]), x, y)


def quiet_fit(estimator: Any, x: np.ndarray, y: np.ndarray) -> Any:
    """Fit without warnings about convergence, which the cross-validated accuracy judges."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return estimator.fit(np.asarray(x, np.float32), y)
