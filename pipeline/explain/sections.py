"""The sections of an entry's explain page, and the subject they look at."""

from __future__ import annotations

import math
from dataclasses import asdict
from typing import Any

import convline
import numpy as np
import torch

from pipeline.core.errors import StageError
from pipeline.core.files import fresh
from pipeline.core.paths import OUT
from pipeline.data import dataset
from pipeline.explain import modified_relu
from pipeline.explain.subject import Section, Subject
from pipeline.network import build as network
from pipeline.params import load as params
from pipeline.params.schema import ExplainRecipe

DIGITS = 4  # of every fact: what repeats from run to run


COMMITTED = 3  # digits of a fact in git: what repeats from machine to machine


# Facts that a last bit decides (k-means, t-SNE, fits and ascents of many steps), by section: under other vector units
# they had other digits. "" is all of a section.
DRIFTING = {
    "attribution": ("parity", "methods.LIME"),
    "embedding": ("embedding.trustworthiness", "embedding.knn_map"),
    "filters": ("gabor.random",),
    "inversion": ("",),
    "style": ("",),
    "synthesis": ("",),
}


def sections(recipe: ExplainRecipe) -> list[Any]:
    """Return the modules that have something to say about the recipe, in the order of the page."""
    from pipeline.explain import (
        adversarial,
        attribution,
        embedding,
        filters,
        invariance,
        maximally_activating,
        receptive_field_maps,
        temporal_saliency,
        training_dynamics,
    )

    found = [
        attribution,
        temporal_saliency,
        filters,
        maximally_activating,
        receptive_field_maps,
        invariance,
        training_dynamics,
        embedding,
        adversarial,
    ]
    if recipe.synthesis:
        from pipeline.explain import activation_maximization, feature_inversion, style_transfer

        found += [activation_maximization, feature_inversion, style_transfer]
    return found


def opened(name: str) -> Subject:
    """Return the entry with its trained network and its served file."""
    recipe, source = params.entry(name, ExplainRecipe), dataset.load(name)
    net = network.build(recipe, source)
    net.load_state_dict(torch.load(OUT / name / "train" / "weights.pt", weights_only=True))
    inner = net.eval().requires_grad_(False)
    modified_relu.as_modules(inner, torch.from_numpy(np.array(source.example())))
    if headed := recipe.on_features:
        from pipeline.train import head_files  # scikit-learn: 3 s

        net = head_files.restore(net, recipe, OUT / name / "train")
    file = convline.load(OUT / name / "export" / "model.onnx", device="cpu")
    folder = fresh(OUT / name / "explain")
    return Subject(
        name, recipe, source, net, file, recipe.explain, folder, differentiable=not headed
    )


def repeated(value: Any, drifting: tuple[str, ...], place: str = "") -> Any:
    """Return facts without those at the dotted places that drift, floats to COMMITTED digits."""
    if isinstance(value, dict):
        inner = {key: f"{place}.{key}".lstrip(".") for key in value}
        return {
            key: repeated(part, drifting, inner[key])
            for key, part in value.items()
            if inner[key] not in drifting
        }
    if isinstance(value, list):
        return [repeated(part, drifting, place) for part in value]
    return float(f"{value:.{COMMITTED}g}") if isinstance(value, float) else value


def rounded(value: Any, place: str) -> Any:
    """Return facts as JSON takes them, numbers to DIGITS digits; StageError where one is not finite."""
    if isinstance(value, dict):
        return {str(key): rounded(part, f"{place}.{key}") for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [rounded(part, place) for part in value]
    if isinstance(value, bool | str | int | None):
        return value
    if not math.isfinite(value):
        raise StageError(
            f"explain: {place} is {float(value)}; look at the training curves, or lower train.lr"
        )
    return float(f"{value:.{DIGITS}g}")


def on_page(section: Section) -> dict[str, Any]:
    """Return what report reads of a section: its title, and each picture with its caption."""
    return {
        "title": section.title,
        "shown": [asdict(s.picture) | {"caption": s.caption} for s in section.shown],
    }
