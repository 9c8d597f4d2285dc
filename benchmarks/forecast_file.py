"""A recipe of params.yaml for series, trained and exported to the file that a benchmark scores."""

from __future__ import annotations

import json
import math
import time
from pathlib import Path
from typing import Any

import click
import torch
from convline.model_file.onnx_file import seal

from pipeline.core.files import write_json
from pipeline.data import dataset
from pipeline.export import graph as export
from pipeline.export import metadata
from pipeline.export.tasks import forecasting
from pipeline.params import load as params
from pipeline.params.recipe import overlay, resolve
from pipeline.params.schema import Layer, Recipe
from pipeline.study import runs as study
from pipeline.train import loop


def recipe_of(name: str, layer: Layer, every: params.Params) -> Recipe:
    """Return the resolved recipe models.<name> with the values of `layer` in place of its own.

    What `full` says is left out.
    """
    raw = {key: value for key, value in every.raw["models"][name].items() if key != "full"}
    whole = resolve(f"params.yaml models.{name}", overlay(raw, layer), every.sets)
    return params.in_environment(every, whole)


def train_file(
    name: str, recipe: Recipe, source: dataset.Data, folder: Path, label: str
) -> tuple[Path, dict[str, Any]]:
    """Return the model file of a recipe and what it cost: `seconds`, `parameters` of the file,
    `epochs`, and `members`, of an ensemble that picks them.

    A file in `folder` of the same recipe, data and code is taken as it is.
    """
    device = torch.device("cpu")
    stem = folder / study.run_key(recipe, source, device)
    path, facts = stem.with_suffix(".onnx"), stem.with_suffix(".json")
    if not facts.exists():
        started = time.perf_counter()
        net, state = loop.fit(recipe, source, on=device, label=label)
        cost: dict[str, Any] = {
            "seconds": time.perf_counter() - started,
            "epochs": len(state.history),
        }
        x = source.served("test")
        proto = forecasting.export(net, x)
        weights = sum(math.prod(tensor.dims) for tensor in proto.graph.initializer)
        cost |= {"parameters": weights, "members": state.members}
        outputs = export.torch_outputs(net, x[:8])
        metrics = {"validation": state.chosen, "parameters": weights}
        limit = forecasting.parity_limit(outputs, 1e-4)
        document = metadata.model_document(
            name, recipe, source.about, metrics, x[:8], outputs, limit
        )
        folder.mkdir(parents=True, exist_ok=True)
        path.write_bytes(seal(proto.SerializeToString(), document))
        write_json(facts, cost)
        click.echo(f"{label}: {cost['seconds']:.0f} s", err=True)
    found: dict[str, Any] = json.loads(facts.read_text())
    return path, found
