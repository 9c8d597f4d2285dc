"""How fast every architecture trains at its paper's input, on synthetic images: eager, then
compiled.

Three ways: `whole`, an epoch's steps as stage train takes them (its own function: deterministic, rows drawn from uint8
on the device, augmented there); `memory`, its step on one batch of floats, so that the difference is what input costs;
`plain`, the loop that a user would write. They take turns, a window of steps each. Compiled is `whole` alone.
"""

from __future__ import annotations

import itertools
import statistics
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import nn

import models
from benchmarks.gpu.clock import Facts, Here, attempt
from models import summary
from pipeline.network import build as network
from pipeline.network import modules
from pipeline.params import schema
from pipeline.train import augment, device, loop, losses, optim
from pipeline.train.batches import Batches
from pipeline.train.checkpoint import State

PICKED = {
    "resnet": "ResNet-50",
    "vgg": "VGG D",
    "highway": "highway conv 32",
    "zoo": "mobilenet_v2",
}
FIRST = (
    "resnet",
    "causal",
    "vgg",
    "densenet",
    "zoo",
    "lenet5",
)  # of those that are compiled: time runs out
CPU = ("lenet5", "causal")  # alone on the CPU
LARGE, SMALL, SERIES = 64, 256, 512  # rows of a batch: of photos, of small images, of series
ROUNDS, HELD = 3, 4  # windows of each way; batches that lie on the device
SECONDS = 0.2  # of a window
AUGMENT = schema.Augment(flip="horizontal", shift=0.06)


def eager(here: Here) -> Facts:
    """Yield the facts of each architecture."""
    on = device.choose(here.device)
    for arch in models.names() if here.full else CPU:
        found = partial(measure, arch, on, SECONDS, not here.full)
        yield arch, {"not_measured": "out of time"} if here.late() else attempt(found)


def compiled(here: Here) -> Facts:
    """Yield the rate of each architecture under torch.compile, and the seconds that compiling
    took.
    """
    on = device.choose(here.device)
    for arch in dict.fromkeys((*FIRST, *models.names())) if here.full else CPU[:1]:
        found = partial(measure_compiled, arch, on, SECONDS, not here.full)
        yield arch, {"not_measured": "out of time"} if here.late() else attempt(found)


def published(arch: str, reduced: bool) -> tuple[str, dict[str, Any], tuple[int, ...]]:
    """Return the name, the options and one sample's shape; reduced: at the least input from 32
    pixels on.
    """
    references = models.references(arch)
    name = PICKED.get(arch, next(iter(references)))
    options, shape = dict(references[name]["options"]), tuple(references[name]["input"])
    if reduced and "size" in options:
        side = max(32, summary.least_input(arch, references[name]))
        options["size"], shape = (side, side), (shape[0], side, side)
    return name, options, shape


def batch_of(shape: tuple[int, ...], reduced: bool) -> int:
    if reduced:
        return 8
    return SERIES if len(shape) == 2 else LARGE if shape[1] > 64 else SMALL


def built(arch: str, options: dict[str, Any], shape: tuple[int, ...], on: torch.device) -> Any:
    """Return the network with the line's arithmetic around it, on the device."""
    torch.manual_seed(0)
    with on:  # weights are drawn where they are used
        net = models.build(arch, **options)
    if len(shape) == 2:
        columns = torch.ones(shape[1])
        offsets = torch.zeros(options["horizon"], shape[1], 3)
        return device.place(modules.Forecaster(net, 0 * columns, columns, offsets), on)
    ones = torch.ones(shape[0], 1, 1)
    return device.place(modules.Classifier(net, 127 * ones, ones / 64), on)


def data_of(
    shape: tuple[int, ...], options: dict[str, Any], count: int, on: torch.device
) -> Batches:
    """Return noise on the device: uint8 images and labels, or series and what follows them."""
    torch.manual_seed(0)
    with on:
        if len(shape) == 2:
            return Batches(
                torch.randn(count, *shape), torch.randn(count, options["horizon"], shape[1])
            )
        images = torch.randint(0, 256, (count, *shape), dtype=torch.uint8)
        return Batches(images, torch.randint(0, options["classes"], (count,)))


def recipe_of(arch: str, batch: int) -> schema.Training:
    """Return what the loop reads of a recipe, deterministic as the line trains."""
    train = schema.ResolvedTrain(epochs=1, batch=batch, optimizer="sgd", lr=1e-4, weight_decay=1e-4)
    return schema.Training(arch=arch, train=train)


def whole_of(recipe: schema.Training, net: Any, held: Batches) -> Callable[[], int]:
    """Return stage train's steps over what is held, as a function that returns how many rows
    they took.
    """
    optimizer, epochs = optim.make_optimizer(recipe.train, net.parameters()), itertools.count()
    image = held.y.dtype == torch.int64
    change = augment.build(AUGMENT if image else None, held.x)
    minimise = partial(loop.loss_and_outputs, recipe, net)
    net.train()

    def whole() -> int:
        state = State(epoch=next(epochs))
        return loop.take_steps(recipe, net, optimizer, held, change, state, minimise).rows

    return whole


def others_of(recipe: schema.Training, net: Any, held: Batches) -> dict[str, Callable[[], int]]:
    """Return a step on one batch of floats, and a step of a plain loop."""
    optimizer, batch = optim.make_optimizer(recipe.train, net.parameters()), recipe.train.batch
    image, on = held.y.dtype == torch.int64, held.x.device
    x, y = held.x[:batch].float(), held.y[:batch]
    criterion = nn.CrossEntropyLoss() if image else nn.MSELoss()

    def memory() -> int:
        loop.optimizer_step(recipe, net, optimizer, x, y)
        return batch

    def plain() -> int:
        optimizer.zero_grad()
        with losses.autocast("auto", on):
            output = net.net((x - 127) / 64 if image else x)
            cost = sum(
                criterion(one, y) for one in (output if isinstance(output, tuple) else (output,))
            )
        cost.backward()
        optimizer.step()
        return batch

    return {"memory": memory, "plain": plain}


def rates(ways: dict[str, Callable[[], int]], seconds: float, on: torch.device) -> dict[str, float]:
    """Return samples/s of each way, the median of windows that take turns; the device is waited
    for at their ends.
    """
    wait = torch.cuda.synchronize if on.type == "cuda" else (lambda: None)
    found: dict[str, list[float]] = {name: [] for name in ways}
    for way in (*ways.values(), *ways.values()):  # kernels are chosen, and compiled
        way()
    wait()
    for _ in range(ROUNDS):
        for name, way in ways.items():
            start, rows, calls = time.perf_counter(), 0, 0
            while calls < 2 or time.perf_counter() - start < seconds:
                rows, calls = rows + way(), calls + 1
                if not calls % 8:  # launches run ahead of the device by so many at most
                    wait()
            wait()
            found[name].append(rows / (time.perf_counter() - start))
    return {name: statistics.median(values) for name, values in found.items()}


def product(on: torch.device) -> tuple[Callable[[], int], int]:
    """Return a large matrix product in the precision that training has there, and its
    operations.
    """
    half, side = losses.autocast("auto", on)._enabled, 8192 if on.type == "cuda" else 1024
    a = torch.randn(side, side, device=on, dtype=torch.bfloat16 if half else torch.float32)

    def multiply() -> int:
        torch.mm(a, a)
        return 1

    return multiply, 2 * side**3


def prepared(
    arch: str, on: torch.device, reduced: bool
) -> tuple[schema.Training, Any, Batches, dict[str, Any]]:
    """Return the recipe, the network and the data of an architecture, and what its row says of
    them.
    """
    name, options, shape = published(arch, reduced)
    batch = batch_of(shape, reduced)
    recipe = recipe_of(arch, batch)
    device.make_repeatable(recipe)
    device.fill_new_tensors(False)  # as in all steps of a training but the first
    if on.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(on)
    net, held = built(arch, options, shape, on), data_of(shape, options, HELD * batch, on)
    sample = held.x[:1].float() if len(shape) == 2 else held.x[:1].permute(0, 2, 3, 1)
    macs = network.multiply_adds(net, sample)
    return recipe, net, held, {"name": name, "input": list(shape), "batch": batch, "macs": macs}


def measure(arch: str, on: torch.device, seconds: float, reduced: bool) -> dict[str, Any]:
    """Return the facts of one architecture: samples/s of each way, input's share, share of peak,
    memory.

    The peak is a matrix product that takes turns with the steps: on a shared machine both are
    slowed alike.
    """
    recipe, net, held, facts = prepared(arch, on, reduced)
    multiply, operations = product(on)
    ways = {
        "whole": whole_of(recipe, net, held),
        **others_of(recipe, net, held),
        "product": multiply,
    }
    found = rates(ways, seconds, on)
    peak = found.pop("product") * operations
    return facts | {
        "per_second": found,
        "input_share": 1 - found["whole"] / found["memory"],
        "of_plain": found["whole"] / found["plain"],
        "peak_operations_per_second": peak,
        "share_of_peak": 6
        * facts["macs"]
        * found["whole"]
        / peak,  # three passes, a multiply-add is two operations
        "peak_bytes": torch.cuda.max_memory_allocated(on) if on.type == "cuda" else None,
    }


def measure_compiled(arch: str, on: torch.device, seconds: float, reduced: bool) -> dict[str, Any]:
    """Return the seconds of the first steps, compiling among them, and samples/s after them."""
    recipe, net, held, facts = prepared(arch, on, reduced)
    net.net.compile()
    whole, start = whole_of(recipe, net, held), time.perf_counter()
    whole()
    if on.type == "cuda":
        torch.cuda.synchronize(on)
    return facts | {
        "first_s": time.perf_counter() - start,
        "per_second": rates({"whole": whole}, seconds, on)["whole"],
    }
