"""Three steps of every recipe at its full size, deterministic, twice from the same weights: equal
bit by bit or not.

The steps are stage train's own epoch over three batches of noise that lie on the device: loss,
backward, optimizer, augmentation, the look at the validation split, the copy of the weights. Memory
is the most that tensors took.
"""

from __future__ import annotations

import json
import time
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.gpu import carried
from benchmarks.gpu.clock import Facts, Here, attempt
from pipeline.data import dataset
from pipeline.network import build as network
from pipeline.params.schema import ImageData, Recipe
from pipeline.train import augment, averaging, device, loop, mixing
from pipeline.train.batches import Batches
from pipeline.train.checkpoint import State

STEPS = 3
CPU = ("lenet5-digits", "dilated-waves", "resnet20-digits")  # at their small size
CLASSES = {"imagenet": 1000}  # of data sets that are not here; ten otherwise
COLUMNS = {"csv": 7}  # of the series of a source; one otherwise
WORDS, LONGEST = 20, 8  # of captions


def run(here: Here) -> Facts:
    """Yield the facts of each recipe; those that compute the same as one before are left out."""
    on, seen = device.choose(here.device), set()
    for name, recipe in carried.load_recipes(
        here.carried, "full" if here.full else "small"
    ).items():
        key = json.dumps(
            recipe.model_dump(mode="json", include={"arch", "net", "data", "train", "head"}),
            sort_keys=True,
        )
        if key in seen or not (here.full or name in CPU):
            continue
        seen.add(key)
        yield name, {"not_measured": "out of time"} if here.late() else of_recipe(name, recipe, on)


def of_recipe(name: str, recipe: Recipe, on: torch.device) -> dict[str, Any]:
    """Return whether two runs of the steps end with the same weights, their time and memory; or
    why they broke.
    """
    begun = time.perf_counter()
    if on.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(on)
    facts = attempt(lambda: twice(name, recipe, on))
    peak = torch.cuda.max_memory_allocated(on) if on.type == "cuda" else None
    return facts | {"peak_bytes": peak, "seconds": round(time.perf_counter() - begun, 2)}


def twice(name: str, recipe: Recipe, on: torch.device) -> dict[str, Any]:
    device.make_repeatable(recipe)
    torch.manual_seed(recipe.train.seed)
    with on:  # weights are drawn where they are used
        net = network.assemble(recipe, like(recipe))
    net = device.place(net, on)
    initial = {key: tensor.clone() for key, tensor in net.state_dict().items()}
    batch = recipe.train.batch
    fitting, validation = noise(recipe, STEPS * batch, on), noise(recipe, min(batch, 64), on)
    change = augment.build(recipe.train.augment, fitting.x)
    mix = mixing.build(recipe.train, len(like(recipe).about.get("labels", [])))
    ends, rows = [], []
    for _ in range(2):
        net.load_state_dict(initial)
        for parameter in net.parameters():
            parameter.requires_grad_(True)
        optimizer, state = loop.optimizer_of(recipe, net), State()
        average = averaging.copy_network(net, recipe.train)
        minimise = partial(loop.loss_and_outputs, recipe, net)
        given = (fitting, validation, change, state, name, minimise)
        row = loop.one_epoch(recipe, net, optimizer, *given, mix=mix, average=average)
        rows.append(row)
        ends.append({key: tensor.clone() for key, tensor in net.state_dict().items()})
    same = all(torch.equal(ends[0][key], ends[1][key]) for key in ends[0])
    moved = any(not torch.equal(ends[0][key], initial[key]) for key in ends[0])
    equal = same and rows[0] == rows[1]
    return {
        "passed": equal and moved,
        "equal": equal,
        "moved": moved,
        "batch": batch,
        "loss": rows[0]["train_loss"],
    }


def like(recipe: Recipe) -> dataset.Data:
    """Return what the network is sized by: the facts of the recipe's data, without the data."""
    block = recipe.data
    if isinstance(block, ImageData):
        spec = block.spec
        classes = CLASSES.get(block.set, len(getattr(spec, "classes", None) or range(10)))
        rule = block.image_rule
        about = {
            "task": block.task,
            "labels": [str(k) for k in range(classes)],
            "words": [str(k) for k in range(WORDS)],
            "longest": LONGEST,
            "input": rule.to_dict(),
        }
        mean = np.full((rule.channels, 1, 1), 127, np.float32)
        return dataset.Data({}, {}, mean, np.full_like(mean, 1 / 64), about)
    columns = [str(k) for k in range(COLUMNS.get(block.spec.source, 1))]
    given = {"context": block.context, "columns": columns}
    given |= {"calendar": block.calendar} if block.calendar else {}
    forecast = {"horizon": block.horizon, "quantiles": block.quantiles}
    forecast |= {"columns": block.targets} if block.targets else {}
    mean = np.zeros(len(columns), np.float32)
    about = {"task": "forecasting", "columns": columns, "season": 1}
    about |= {"input": given, "forecast": forecast}
    return dataset.Data({}, {}, mean, np.ones_like(mean), about)


def random_targets(about: dict[str, Any], count: int, on: torch.device) -> Tensor:
    """Return targets of random content for `count` images, in the form of `Data.y`."""
    (height, width), classes = about["input"]["size"], len(about["labels"])
    if about["task"] == "captioning":
        return torch.randint(0, WORDS, (count, 1, LONGEST), device=on)
    if about["task"] == "segmentation":
        return torch.randint(0, classes, (count, height, width), dtype=torch.uint8, device=on)
    labels = torch.randint(0, classes, (count,), device=on)
    if about["task"] == "classification":
        return labels
    box = torch.tensor([width / 4, height / 4, width / 2, height / 2], device=on)
    return torch.cat([box.expand(count, 4), labels[:, None].float()], 1)[:, None]


def noise(recipe: Recipe, count: int, on: torch.device) -> Batches:
    """Return noise on the device: uint8 images and targets, or standardised series and what
    follows them.
    """
    source = like(recipe)
    if isinstance(recipe.data, ImageData):
        height, width = recipe.data.size
        x = torch.randint(
            0, 256, (count, len(source.mean), height, width), dtype=torch.uint8, device=on
        )
        return Batches(x, random_targets(source.about, count, on))
    given, horizon = source.about["input"], recipe.data.horizon
    known = 2 * len(given.get("calendar", ()))
    steps = given["context"] + (horizon if known else 0)
    x = torch.randn(count, steps, len(given["columns"]) + known, device=on)
    return Batches(x, torch.randn(count, horizon, source.targets, device=on))
