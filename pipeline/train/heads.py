"""Heads on the features of a trained network: tuned by cross-validation on the training split, and their ONNX form.

R02-R05 of FEATURES.md. A support vector machine gets its probabilities from Platt's sigmoid, fitted on the
out-of-fold scores of the same training images.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import shutil
import sys
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from pipeline.core import digest as code
from pipeline.core import paths
from pipeline.core.errors import StageError
from pipeline.core.files import fresh, write_json
from pipeline.core.paths import OUT
from pipeline.core.stage import progress
from pipeline.data import dataset
from pipeline.network import build as network
from pipeline.network import pretrained
from pipeline.network.features import FOLDER, Backbone, compute
from pipeline.params import schema as params
from pipeline.params.schema import Recipe, ResolvedTrain, Training
from pipeline.train import artifacts, device, loop
from pipeline.train.checkpoint import State

GRIDS: dict[str, dict[str, list[Any]]] = {  # what cross-validation chooses from
    "linear": {"C": [0.001, 0.01, 0.1, 1.0, 10.0]},
    "mlp": {"dropout": [0.5, 0.25], "epochs": [30]},
    "forest": {"max_features": ["sqrt"], "min_samples_leaf": [1, 3]},
    "svm-linear": {"C": [0.001, 0.01, 0.1, 1.0]},
    "svm-rbf": {"C": [1.0, 10.0, 100.0], "gamma": [0.1, 0.3, 1.0]},  # gamma: in units of 1 / F
}
TREES = 300
MLP = (400, 400, 200)  # the notes' exercise: FEATURES.md R02


@dataclass
class Head:
    """A head fitted on features: what it is, how it was chosen, and its estimator."""

    kind: str
    options: dict[str, Any]
    estimator: Any
    table: list[dict[str, Any]] = field(
        default_factory=list
    )  # of every candidate: kind, options, mean accuracy, std

    def probabilities(self, features: np.ndarray) -> np.ndarray:
        """Return float32 (N, K) for features float32 (N, F)."""
        return self.estimator.predict_proba(np.asarray(features, np.float32)).astype(np.float32)


class Headed(nn.Module):
    """uint8 images (N, H, W, C) to probabilities (N, K): a backbone and a fitted head; not to be trained further."""

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
        """By how much probabilities may differ where rounding moves a feature over a split: three trees' votes."""
        return 3 / TREES if self.head.kind == "forest" else 0.0

    def forward(self, images: Tensor) -> Tensor:
        features = self.backbone(images)
        return torch.from_numpy(self.head.probabilities(features.detach().cpu().numpy())).to(
            features.device
        )

    def logits(self, images: Tensor) -> Tensor:
        """Return log probabilities (N, K) for uint8 images (N, C, H, W), as the loop's measures take them."""
        return self.forward(images.permute(0, 2, 3, 1)).clamp_min(1e-12).log()


class Mlp:
    """The notes' fcNN on features, with scikit-learn's two methods: models/fcnn.py through the line's own loop."""

    def __init__(self, dropout: float, epochs: int, seed: int):
        self.dropout, self.epochs, self.seed = dropout, epochs, seed

    def fit(self, x: np.ndarray, y: np.ndarray) -> Mlp:
        labels = [str(k) for k in range(int(y.max()) + 1)]
        rows = np.asarray(x, np.float32)[:, None, :, None]  # (N, 1, F, 1): an image of one row
        mean, std = x.mean(0), x.std(0)
        scale = np.where(std > 1e-6, 1 / (std + 1e-6), 0)
        about = {"task": "classification", "labels": labels, "hash": "features"}
        about["input"] = {"size": [1, x.shape[1]], "colour": "grey"}
        shaped = (part.reshape(1, 1, -1).astype(np.float32) for part in (mean, scale))
        splits = dataset.SPLITS
        source = dataset.Data(dict.fromkeys(splits, rows), dict.fromkeys(splits, y), *shaped, about)
        recipe = mlp_recipe(self.dropout, self.epochs, self.seed, len(x))
        self.net, _ = loop.fit(recipe, source, on=torch.device("cpu"), label="mlp")
        return self

    @torch.no_grad()
    def predict_proba(self, x: np.ndarray) -> np.ndarray:
        return (
            self.net.logits(torch.from_numpy(np.array(x, np.float32))[:, None, None])
            .softmax(1)
            .numpy()
        )

    def score(self, x: np.ndarray, y: np.ndarray) -> float:
        return float((self.predict_proba(x).argmax(1) == y).mean())


def mlp_recipe(dropout: float, epochs: int, seed: int, rows: int) -> Training:
    batch = int(min(128, max(2, rows // 4)))  # the notes' 128, where there are so many
    return Training(
        arch="fcnn",
        net={"hidden": list(MLP), "dropout": dropout},
        train=ResolvedTrain(
            epochs=epochs, batch=batch, lr=0.001, schedule="cosine", choose="last", seed=seed
        ),
        # as they are in this process
        threads=torch.get_num_threads(),
        deterministic=torch.are_deterministic_algorithms_enabled(),
    )


def build_estimator(
    kind: str, options: dict[str, Any], seed: int, width: int, probabilities: bool = True
) -> Any:
    """Return an unfitted estimator; a machine that only cross-validation looks at needs no probabilities."""
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
    shape = (
        {"kernel": "linear"}
        if kind == "svm-linear"
        else {"kernel": "rbf", "gamma": options["gamma"] / width}
    )
    machine = SVC(C=options["C"], random_state=seed, **shape)
    # one machine and one sigmoid a class (DESIGN.md): the ensemble's ONNX form differed by 7e-5
    return make_pipeline(
        StandardScaler(),
        CalibratedClassifierCV(machine, ensemble=False) if probabilities else machine,
    )


def fit_recipe(
    recipe: Recipe,
    source: dataset.Data,
    *,
    on: torch.device,
    label: str,
    base: pretrained.Base | None = None,
    folder: Path | None = None,
) -> tuple[Headed, State]:
    """Return the recipe's backbone with its head fitted, and a state of one row: the counterpart of `train.fit`.

    folder: where the features are kept, and found again under the same backbone and data; None keeps them in memory.
    """
    device.make_repeatable(recipe)
    torch.manual_seed(recipe.train.seed)
    net = network.build(recipe, source)
    pretrained.load_start_weights(net, recipe, source.about["labels"], base)
    backbone = Backbone(net, recipe.head.layer)
    x = {
        split: compute(
            backbone, source.x[split], f"{label} {split}", on, folder and folder / f"{split}.npy"
        )
        for split in ("train", "validation")
    }
    y, labels = {split: np.asarray(source.y[split]) for split in x}, source.about["labels"]
    head = fit_head(recipe.head, x["train"], y["train"], labels, recipe.train.seed, label)
    row: dict[str, float] = {"epoch": 0, "lr": 0.0}
    for split in x:
        p = head.probabilities(x[split])
        row[f"{split}_loss"] = float(
            -np.log(np.maximum(p[np.arange(len(p)), y[split]], 1e-12)).mean()
        )
        row[f"{split}_accuracy"] = float((p.argmax(1) == y[split]).mean())
    return Headed(backbone, head), State(history=[row], gradients=[{}])


def retrieval_features(net: Headed, source: dataset.Data, folder: Path) -> dict[str, np.ndarray]:
    """Return the features of training and test split: what `check` measures retrieval on."""
    test = compute(net.backbone, source.served("test"), "test", torch.device("cpu"))
    return {"train": np.load(folder / "features" / "train.npy"), "test": test}


def save(head: Head, features: Path, folder: Path) -> None:
    """Write the head, how it was chosen, and the features beside it."""
    from pipeline.train import head_files as saved  # skl2onnx: seconds, which a study does without

    saved.write(head, np.load(features / "train.npy", mmap_mode="r"), folder)
    write_json(
        folder / "head.json",
        {"chosen": {"kind": head.kind, "options": head.options}, "candidates": head.table},
    )
    (folder / "features").mkdir()
    for file in features.glob("*.npy"):
        shutil.copyfile(
            file, folder / "features" / file.name
        )  # a copy: DVC makes its outputs read-only


def features_folder(recipe: Recipe, source: dataset.Data, on: torch.device) -> Path:
    """Return where features of these data lie: one place for each backbone, code and device, whatever the head."""
    needs, file = recipe.needs, recipe.weights and recipe.weights.file
    weights = OUT / needs / "train" / "weights.pt" if needs else file and paths.weights_path(file)
    parts = [
        recipe.arch,
        recipe.net,
        recipe.data.model_dump(mode="json"),
        recipe.head.layer,
        source.about["hash"],
    ]
    files = [
        *code.stage_files("train"),
        Path("pipeline/network/features.py"),
        *code.architecture_files(recipe.arch),
    ]
    parts += [
        code.hash_files(weights) if weights else file,
        code.hash_files(*files),
        torch.__version__,
        on.type,
    ]
    return FOLDER / hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


def fit_head(
    spec: params.Head, x: np.ndarray, y: np.ndarray, labels: list[str], seed: int, place: str
) -> Head:
    """Return the head of a recipe's `head:` block, tuned and fitted on features (N, F) and labels (N,)."""
    counts = np.bincount(y, minlength=len(labels))
    if len(labels) < 2:
        raise StageError(
            f"{place}: a head needs two classes or more, got {labels}; choose other data"
        )
    if counts.min() == 0:
        raise StageError(
            f"{place}: class {labels[int(counts.argmin())]!r} has no training image; give it some"
        )
    if counts.min() < spec.folds:
        few = f"class {labels[int(counts.argmin())]!r} has {counts.min()} training image(s)"
        raise StageError(
            f"{place}: {few}, fewer than head.folds ({spec.folds}); lower folds or give it more"
        )
    kinds = list(GRIDS) if spec.kind == "best" else [spec.kind]
    grid = [
        (kind, dict(zip(GRIDS[kind], values, strict=True)))
        for kind in kinds
        for values in itertools.product(*GRIDS[kind].values())
    ]
    bar = progress(len(grid), place, "head")
    table = []
    for kind, options in grid:
        mean, std = cross_validate(kind, options, x, y, spec.folds, seed)
        table.append({"kind": kind, "options": options, "accuracy": mean, "std": std})
        bar.update()
    bar.close()
    best = max(
        table, key=lambda row: row["accuracy"]
    )  # the first of equals: the simplest stands first
    return Head(
        best["kind"],
        best["options"],
        fit_estimator(best["kind"], best["options"], x, y, seed),
        table,
    )


def cross_validate(
    kind: str, options: dict[str, Any], x: np.ndarray, y: np.ndarray, folds: int, seed: int
) -> tuple[float, float]:
    """Return mean and standard deviation, over stratified folds, of the accuracy on the fold left out."""
    from sklearn.model_selection import StratifiedKFold

    scores = []
    for rows, held in StratifiedKFold(folds, shuffle=True, random_state=seed).split(x, y):
        made = quiet_fit(
            build_estimator(kind, options, seed, x.shape[1], probabilities=False), x[rows], y[rows]
        )
        scores.append(made.score(x[held], y[held]))
    return float(np.mean(scores)), float(np.std(scores, ddof=1))


def fit_estimator(
    kind: str, options: dict[str, Any], x: np.ndarray, y: np.ndarray, seed: int
) -> Any:
    """Return the estimator of known options, fitted on all rows."""
    return quiet_fit(build_estimator(kind, options, seed, x.shape[1]), x, y)


def quiet_fit(made: Any, x: np.ndarray, y: np.ndarray) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # convergence: the cross-validated accuracy judges it
        return made.fit(np.asarray(x, np.float32), y)


def train_entry(name: str, recipe: Recipe, source: dataset.Data, on: torch.device) -> None:
    """Do what stage train does, for a head on features."""
    folder, kept = fresh(OUT / name / "train"), features_folder(recipe, source, on)
    net, state = fit_recipe(recipe, source, on=on, label=name, folder=kept)
    artifacts.curve_writer(OUT / name / "curves")(state.history[0])
    artifacts.save(name, net.backbone.net, state, source)
    save(net.head, kept, folder)
    print(f"   {net.head.kind} {net.head.options}", file=sys.stderr)
