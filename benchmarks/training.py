"""How fast every architecture trains at its paper's input, on synthetic images: part of benchmarks/gpu.py.

Four ways: `whole`, a step as stage train takes it (rows drawn from uint8 on the device, augmented there); `memory`, the
same step on one batch of floats, so that the difference is what input costs; `plain`, the loop that a user would write;
`compiled`, `whole` with the network under torch.compile. The first three take turns, a window of steps each.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

import models
from models import summary
from pipeline import augment, device, loss, network, schema, train

PICKED = {"resnet": "ResNet-50", "vgg": "VGG D", "highway": "highway conv 32", "zoo": "mobilenet_v2"}
LARGE, SMALL, SERIES = 64, 256, 512  # rows of a batch: of photos, of small images, of series
ROUNDS, HELD = 3, 4  # windows of each way; batches that lie on the device
AUGMENT = {"flip": "horizontal", "shift": 0.06}


def published(arch: str, reduced: bool) -> tuple[str, dict[str, Any], tuple[int, ...]]:
    """Return the name, the options and one sample's shape; reduced: at the least input from 32 pixels on."""
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
    net = models.build(arch, **options)
    if len(shape) == 2:
        columns = torch.ones(shape[1])
        offsets = torch.zeros(options["horizon"], shape[1], 3)
        return device.place(network.Forecaster(net, 0 * columns, columns, offsets), on)
    ones = torch.ones(shape[0], 1, 1)
    return device.place(network.Classifier(net, 127 * ones, ones / 64), on)


def data_of(shape: tuple[int, ...], options: dict[str, Any], count: int, on: torch.device) -> train.Batches:
    """Return noise on the device: uint8 images and labels, or series and what follows them."""
    torch.manual_seed(0)
    if len(shape) == 2:
        return train.Batches(torch.randn(count, *shape).to(on), torch.randn(count, options["horizon"], shape[1]).to(on))
    images = torch.randint(0, 256, (count, *shape), dtype=torch.uint8)
    return train.Batches(images.to(on), torch.randint(0, options["classes"], (count,)).to(on))


def drawn(count: int, batch: int) -> Iterator[Tensor]:
    while True:
        yield from torch.randperm(count).split(batch)


def steps_of(net: Any, held: train.Batches, batch: int) -> dict[str, Callable[[], Any]]:
    """Return a step of each way; none waits for the device."""
    settings = {"epochs": 1, "batch": batch, "optimizer": "sgd", "lr": 1e-4, "weight_decay": 1e-4}
    recipe = {"train": schema.check_section("train", settings, schema.TRAIN)}
    optimizer, rows = loss.make_optimizer(recipe["train"], net), drawn(len(held.x), batch)
    image, on = held.y.dtype == torch.int64, held.x.device
    spec = schema.check_section("augment", AUGMENT, schema.AUGMENT) if image else None
    change = augment.build(spec, held.x)
    x, y = held.x[:batch].float(), held.y[:batch]
    criterion = nn.CrossEntropyLoss() if image else nn.MSELoss()

    def whole() -> Any:
        chosen = next(rows).to(on)
        return train.step(recipe, net, optimizer, change(held.x[chosen]), held.y[chosen])

    def plain() -> Any:
        optimizer.zero_grad()
        with loss.autocast("auto", on):
            output = net.net((x - 127) / 64 if image else x)
            cost = sum(criterion(one, y) for one in (output if isinstance(output, tuple) else (output,)))
        cost.backward()
        optimizer.step()

    return {"whole": whole, "memory": lambda: train.step(recipe, net, optimizer, x, y), "plain": plain}


def rates(steps: dict[str, Callable[[], Any]], batch: int, seconds: float, on: torch.device) -> dict[str, float]:
    """Return samples/s of each way, the median of windows that take turns; the device is waited for at their ends."""
    wait = torch.cuda.synchronize if on.type == "cuda" else (lambda: None)
    found: dict[str, list[float]] = {name: [] for name in steps}
    for step in (*steps.values(), *steps.values()):  # kernels are chosen, and compiled
        step()
    wait()
    for _ in range(ROUNDS):
        for name, step in steps.items():
            start, count = time.perf_counter(), 0
            while count < 2 or time.perf_counter() - start < seconds:
                step()
                count += 1
                if not count % 8:  # launches run ahead of the device by so many at most
                    wait()
            wait()
            found[name].append(count * batch / (time.perf_counter() - start))
    return {name: statistics.median(values) for name, values in found.items()}


def product(on: torch.device) -> tuple[Callable[[], Any], int]:
    """Return a large matrix product in the precision that training has there, and its operations."""
    half, side = loss.autocast("auto", on)._enabled, 8192 if on.type == "cuda" else 1024
    a = torch.randn(side, side, device=on, dtype=torch.bfloat16 if half else torch.float32)
    return lambda: a @ a, 2 * side**3


def measure(arch: str, on: torch.device, seconds: float, *, reduced: bool, compiled: bool) -> dict[str, Any]:
    """Return the facts of one architecture: samples/s of each way, input's share, share of peak, memory.

    The peak is a matrix product that takes turns with the steps: on a shared machine both are slowed alike.
    """
    name, options, shape = published(arch, reduced)
    batch = batch_of(shape, reduced)
    if on.type == "cuda":
        torch.cuda.reset_peak_memory_stats(on)
    net, held = built(arch, options, shape, on), data_of(shape, options, HELD * batch, on)
    net.train()
    steps, (multiply, operations) = steps_of(net, held, batch), product(on)
    found = rates(steps | {"product": multiply}, batch, seconds, on)
    peak = found.pop("product") / batch * operations
    if compiled:
        net.net.compile()
        found["compiled"] = rates({"compiled": steps["whole"]}, batch, seconds, on)["compiled"]
    sample = held.x[:1].float() if len(shape) == 2 else held.x[:1].permute(0, 2, 3, 1)
    macs = network.multiply_adds(built(arch, options, shape, on), sample)
    return {
        "name": name,
        "input": list(shape),
        "batch": batch,
        "per_second": found,
        "input_share": 1 - found["whole"] / found["memory"],
        "of_plain": found["whole"] / found["plain"],
        "macs": macs,
        "peak_operations_per_second": peak,
        "share_of_peak": 6 * macs * found["whole"] / peak,  # a step is three passes, each multiply-add two operations
        "peak_bytes": torch.cuda.max_memory_allocated(on) if on.type == "cuda" else None,
    }


def measure_all(on: torch.device, seconds: float, until: float, *, reduced: bool, compiled: bool) -> dict[str, Any]:
    """Return the facts of every architecture; those not begun `until` (time.monotonic) are named as not measured."""
    facts: dict[str, Any] = {}
    for arch in models.names():
        if time.monotonic() > until:
            facts[arch] = {"not_measured": "out of time"}
            continue
        facts[arch] = measure(arch, on, seconds, reduced=reduced, compiled=compiled)
    return {"reduced": reduced, "nets": facts}


def table(result: dict[str, Any]) -> str:
    """Return one line for each architecture."""
    lines = [f"{'training':<24} {'input':<14} {'batch':>5} {'samples/s':>11} {'plain':>11} {'compiled':>11} "
             f"{'input':>7} {'T op/s peak':>12} {'of it':>6} {'MB':>7}"]  # fmt: skip
    for arch, fact in result["nets"].items():
        if "not_measured" in fact:
            lines.append(f"{arch:<24} {fact['not_measured']}")
            continue
        speed, shape = fact["per_second"], "x".join(map(str, fact["input"]))
        compiled = f"{speed['compiled']:,.0f}" if "compiled" in speed else "-"
        memory = f"{fact['peak_bytes'] / 1e6:,.0f}" if fact["peak_bytes"] else "-"
        lines.append(
            f"{fact['name']:<24} {shape:<14} {fact['batch']:>5} {speed['whole']:>11,.0f} {speed['plain']:>11,.0f} "
            f"{compiled:>11} {fact['input_share']:>7.1%} {fact['peak_operations_per_second'] / 1e12:>12.3f} "
            f"{fact['share_of_peak']:>6.0%} {memory:>7}"
        )
    return "\n".join(lines)
