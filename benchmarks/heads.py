"""Every kind of head on one backbone: scikit-learn beside onnxruntime, over the whole test split.

Three comparisons: the head's graph on the same features (float32, from torch), the backbone's graph
against torch, and the joined graph from uint8 images on. Rows where a probability moves by more
than 1e-4 are counted: with a forest a feature that rounding carries over a split's edge moves its
votes.

    python benchmarks/heads.py head-digits      # needs out/source-digits: `make` makes it
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from pipeline.params.schema import Recipe

sys.path.insert(0, str(Path(__file__).parents[1]))  # runs from a bare checkout, uninstalled

import click
import numpy as np
import onnxruntime
import torch

from pipeline.core.errors import ParamsError, StageError, hint
from pipeline.data import dataset, prepare
from pipeline.export import graph as export
from pipeline.export import head_graph
from pipeline.network import features
from pipeline.params import load as params
from pipeline.train import head_files, head_training, heads

CLOSE = 1e-4
HEADING = (
    "| head | chosen | test accuracy | head: labels, rows apart, worst | joined: labels, rows apart, worst |\n"
    "| --- | --- | ---: | ---: | ---: |"
)


def answers(graph: Any, inputs: np.ndarray) -> np.ndarray:
    """Return what onnxruntime answers on the CPU, in batches of 32."""
    session = onnxruntime.InferenceSession(
        graph.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    name = session.get_inputs()[0].name
    return np.concatenate(
        [session.run(None, {name: inputs[i : i + 32]})[0] for i in range(0, len(inputs), 32)]
    )


def apart(got: np.ndarray, expected: np.ndarray) -> str:
    """Return how many labels differ, how many rows are more than CLOSE apart, and the worst
    difference.
    """
    gap = np.abs(got - expected).max(1)
    return f"{(got.argmax(1) != expected.argmax(1)).sum()}, {(gap > CLOSE).sum()}, {gap.max():.1e}"


def row(kind: str, recipe: Recipe, source: dataset.Data) -> str:
    """Return a head's line of the table."""
    recipe = recipe.updated(head={"kind": kind})
    folder = head_training.features_folder(recipe, source, torch.device("cpu"))
    headed, _ = head_training.fit_recipe(
        recipe, source, on=torch.device("cpu"), label=kind, folder=folder
    )
    images = np.asarray(source.x["test"])
    x = features.compute(headed.backbone, images, "test", torch.device("cpu"), folder / "test.npy")
    expected = headed.head.probabilities(x)
    if kind in head_graph.TORCH_KINDS:
        alone = export.export_network(head_graph.TorchHead(headed.head), x)
    else:
        alone = head_files.head_to_onnx(headed.head, x.shape[1], 18)
    if kind == next(iter(heads.GRIDS)):  # they all share the backbone
        served = answers(
            export.export_network(headed.backbone, images, output_names=("features",)), images
        )
        gap = np.abs(served - x).max() / np.abs(x).max()
        click.echo(
            f"backbone: torch against onnxruntime, {x.shape[1]} features, worst {gap:.1e} of the largest\n"
        )
        click.echo(HEADING)
    whole = head_graph.export_with_head(headed, images)
    options = ", ".join(f"{key} {value}" for key, value in headed.head.options.items())
    accuracy = (expected.argmax(1) == source.y["test"]).mean()
    return (
        f"| {kind} | {options} | {accuracy:.3f} | {apart(answers(alone, np.array(x)), expected)} "
        f"| {apart(answers(whole, images), expected)} |"
    )


@click.command()
@click.argument("name", default="head-digits")
def main(name: str) -> None:
    """Print a table of every kind of head for the recipe NAME of params.yaml, one that has a
    head on features.
    """
    try:
        models = params.load().models
        fitting = [key for key, recipe in models.items() if recipe.on_features]
        if name not in fitting:
            raise StageError(f"no recipe {name!r} with a head on features; {hint(name, fitting)}")
        source = prepare.make(models[name].data)[0]
        click.echo(
            f"{name}: {len(source.x['test'])} test images, {', '.join(source.about['labels'])}"
        )
        for kind in heads.GRIDS:
            click.echo(row(kind, models[name], source))
    except (ParamsError, StageError) as error:
        raise click.ClickException(str(error)) from error


if __name__ == "__main__":
    main()
