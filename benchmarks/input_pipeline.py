"""What the data pipeline adds to a training step: each step as training takes it, beside one on a
batch in memory.

With: rows drawn from the split that lies on the device as uint8, augmented as the recipe says, and
the step. Without: the same step, network and optimizer on one batch of floats. Both standardise, as
the network does that itself. Steps with and without take turns, so that a slow second of the
machine slows both. A recipe whose images are not here gets images of noise, and the table says so.

    python benchmarks/input_pipeline.py
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from pipeline.params.schema import ImageData, Recipe

sys.path.insert(0, str(Path(__file__).parents[1]))  # runs from a bare checkout, uninstalled

import click
import numpy as np
import torch
from convline.runtime import host
from torch import Tensor

from pipeline.core.errors import ParamsError, StageError, hint
from pipeline.core.stage import progress
from pipeline.data import dataset
from pipeline.data import prepare as data
from pipeline.network import build as network
from pipeline.params import load as params
from pipeline.train import augment, device, loop, optim
from pipeline.train.batches import Batches

RECIPES = ("lenet5-digits", "resnet20-digits", "alexnet-digits", "resnet20-cifar10")
ROUNDS, WARM_UP, LEAST_PAIRS, IMAGES = 7, 3, 3, 1000
HEADING = f"{'recipe':<18} {'augmentation':<16} {'batch':>5} {'step ms':>9} {'with ms':>9} {'overhead %':>10}  spread"


def data_of(recipe: Recipe) -> tuple[dataset.Data, bool]:
    """Return the recipe's data, or noise of its shape where they are not on this machine, and
    whether it is that.
    """
    try:
        return data.make(recipe.data)[0], False
    except StageError:
        rng, block = np.random.default_rng(0), recipe.data
        shape = (IMAGES, *block.size, 1 if block.colour == "grey" else 3)
        x = {split: rng.integers(0, 256, shape, np.uint8) for split in dataset.SPLITS}
        y = {split: rng.integers(0, 10, IMAGES) for split in dataset.SPLITS}
        about = {
            "task": "classification",
            "labels": list("0123456789"),
            "input": block.image_rule.to_dict(),
        }
        return dataset.Data(
            x, y, *data.image_statistics(x["train"], block.standardise), about
        ), True


def drawn(images: Batches, batch: int) -> Iterator[Tensor]:
    """Yield the row numbers of whole batches, epoch after epoch, as `train.one_epoch` draws
    them.
    """
    while True:
        yield from (
            torch.randperm(len(images.x)).to(images.x.device).split(batch)[: len(images.x) // batch]
        )


def steps_of(
    recipe: Recipe, source: dataset.Data, on: torch.device
) -> tuple[Callable[[], Any], ...]:
    """Return a step without and one with the pipeline; both end when the device has finished
    (they read the loss).
    """
    settings = recipe.train
    torch.manual_seed(settings.seed)
    net = device.place(network.build(recipe, source), on)
    optimizer = optim.make_optimizer(settings, net.parameters())
    images = loop.load_batches(source, "train", net, on)
    change, rows = augment.build(settings.augment, images.x), drawn(images, settings.batch)
    first = next(rows)
    x, y = images.x[first].float(), images.y[first]

    def with_pipeline() -> float:
        chosen = next(rows)
        changed, classes = change(images.x[chosen], images.y[chosen])
        return float(loop.optimizer_step(recipe, net, optimizer, changed, classes)[0])

    return lambda: float(loop.optimizer_step(recipe, net, optimizer, x, y)[0]), with_pipeline


def compare(
    steps: tuple[Callable[[], Any], ...], seconds: float, label: str
) -> list[tuple[float, ...]]:
    """Return each round's median seconds of both steps, which alternate, the first of a pair by
    turns.
    """
    for step in steps * WARM_UP:
        step()
    rounds, bar = [], progress(ROUNDS, label, "round")
    for _ in range(ROUNDS):
        times: tuple[list[float], ...] = ([], [])
        end = time.perf_counter() + seconds / ROUNDS
        while time.perf_counter() < end or len(times[1]) < LEAST_PAIRS:
            for kind in (0, 1) if len(times[0]) % 2 else (1, 0):
                start = time.perf_counter()
                steps[kind]()
                times[kind].append(time.perf_counter() - start)
        rounds.append(tuple(map(statistics.median, times)))
        bar.update()
    bar.close()
    return rounds


def row(name: str, recipe: Recipe, on: torch.device, seconds: float) -> str:
    """Return a recipe's line of the table: medians over rounds, and the least and the largest
    round's overhead.
    """
    source, made_up = data_of(recipe)
    rounds = compare(steps_of(recipe, source, on), seconds, name)
    bare, whole = (1e3 * statistics.median(column) for column in zip(*rounds, strict=True))
    over = sorted(100 * (b / a - 1) for a, b in rounds)
    asked = dict(recipe.train.augment or {}).items()
    what = ", ".join(key for key, value in asked if value not in (0, "none", (1.0, 1.0))) or "none"
    line = f"{name:<18} {what:<16} {recipe.train.batch:>5} {bare:>9.2f} {whole:>9.2f}"
    line += f" {statistics.median(over):>10.1f}  {over[0]:.1f} to {over[-1]:.1f}"
    return line + ("  (images of noise)" if made_up else "")


@click.command()
@click.argument("recipes", nargs=-1)
@click.option(
    "--seconds",
    type=float,
    default=20.0,
    show_default=True,
    help="Measure each recipe for so long.",
)
def main(recipes: tuple[str, ...], seconds: float) -> None:
    """Print what the data pipeline adds to a training step of RECIPES (of params.yaml; four by
    default).
    """
    try:
        every = params.load()
        on = device.choose(every.device)
        models = {
            name: params.in_environment(every, recipe) for name, recipe in every.models.items()
        }
        device.make_repeatable(next(iter(models.values())))
        device.fill_new_tensors(False)  # as in all steps of a training but the first
        where = f"{host.processor()}; {device.describe(on)}, CPU threads {every.threads}; torch {torch.__version__}"
        click.echo(f"{where}\n{HEADING}")
        images = {
            name: recipe for name, recipe in models.items() if isinstance(recipe.data, ImageData)
        }
        for name in recipes or RECIPES:
            if name not in images:
                raise StageError(
                    f"params.yaml has no image recipe {name!r}; {hint(name, list(images))}"
                )
            click.echo(row(name, images[name], on, seconds))
    except (ParamsError, StageError) as error:
        raise click.ClickException(str(error)) from error


if __name__ == "__main__":
    main()
