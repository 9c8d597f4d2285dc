"""Train an entry whose head is fitted on the features of a trained network."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import torch

from pipeline.core import digest as code
from pipeline.core import paths
from pipeline.core.files import fresh, write_json
from pipeline.core.paths import OUT, RESULTS
from pipeline.data import dataset
from pipeline.network import build as network
from pipeline.network import pretrained
from pipeline.network.features import FOLDER, Backbone, compute
from pipeline.network.modules import Classifier
from pipeline.params.schema import Recipe
from pipeline.train import artifacts, device
from pipeline.train.checkpoint import State
from pipeline.train.heads import Head, Headed, fit_head


def train_entry(name: str, recipe: Recipe, source: dataset.Data, on: torch.device) -> None:
    """Fit the entry's head and write what stage train writes."""
    folder, features = fresh(OUT / name / "train"), features_folder(recipe, source, on)
    net, state = fit_recipe(recipe, source, on=on, label=name, folder=features)
    artifacts.curve_writer(RESULTS / name / "curves")(state.history[0])
    artifacts.save(name, net.backbone.net, state, source)
    save(net.head, features, folder)


def fit_recipe(
    recipe: Recipe,
    source: dataset.Data,
    *,
    on: torch.device,
    label: str,
    base: pretrained.Base | None = None,
    folder: Path | None = None,
) -> tuple[Headed, State]:
    """Return the recipe's backbone with its head fitted, and a state whose history has one row.

    folder: where the features are kept and found again; without it they stay in memory.
    """
    assert recipe.head
    device.make_repeatable(recipe)
    torch.manual_seed(recipe.train.seed)
    net = network.build(recipe, source)
    assert isinstance(net, Classifier)
    labels = source.about["labels"]
    pretrained.load_start_weights(net, recipe, labels, base)
    backbone = Backbone(net, recipe.head.layer)
    x, y = {}, {}
    for split in ("train", "validation"):
        file = folder and folder / f"{split}.npy"
        x[split] = compute(backbone, source.x[split], f"{label} {split}", on, file)
        y[split] = np.asarray(source.y[split])
    head = fit_head(recipe.head, x["train"], y["train"], labels, recipe.train.seed, label)
    row: dict[str, float] = {"epoch": 0, "lr": 0.0}
    for split in x:
        p = head.probabilities(x[split])
        of_truth = p[np.arange(len(p)), y[split]]
        row[f"{split}_loss"] = float(-np.log(np.maximum(of_truth, 1e-12)).mean())
        row[f"{split}_accuracy"] = float((p.argmax(1) == y[split]).mean())
    return Headed(backbone, head), State(history=[row], gradients=[{}])


def features_folder(recipe: Recipe, source: dataset.Data, on: torch.device) -> Path:
    """Return the folder of the features, which depends on backbone, data, code and device.

    Recipes that differ in their head share it.
    """
    assert recipe.head
    needs, file = recipe.needs, recipe.weights and recipe.weights.file
    weights = OUT / needs / "train" / "weights.pt" if needs else file and paths.weights_path(file)
    files = [
        *code.stage_files("train"),
        Path("pipeline/network/features.py"),
        *code.architecture_files(recipe.arch),
    ]
    return FOLDER / code.hash_values(
        recipe.arch,
        recipe.net,
        recipe.data.model_dump(mode="json"),
        recipe.head.layer,
        source.about["hash"],
        code.hash_files(weights) if isinstance(weights, Path) else file,
        code.hash_files(*files),
        torch.__version__,
        on.type,
    )


def save(head: Head, features: Path, folder: Path) -> None:
    """Write the head, its candidates, and copies of the features, since DVC locks its outputs."""
    from pipeline.train import head_files  # skl2onnx: seconds, which a study does not need

    head_files.write(head, np.load(features / "train.npy", mmap_mode="r"), folder)
    chosen = {"kind": head.kind, "options": head.options}
    write_json(folder / "head.json", {"chosen": chosen, "candidates": head.table})
    (folder / "features").mkdir()
    for file in features.glob("*.npy"):
        shutil.copyfile(file, folder / "features" / file.name)


def retrieval_features(net: Headed, source: dataset.Data, folder: Path) -> dict[str, np.ndarray]:
    """Return the features (N, F) of training and test split, on which check measures retrieval."""
    test = compute(net.backbone, source.served("test"), "test", torch.device("cpu"))
    return {"train": np.load(folder / "features" / "train.npy"), "test": test}
