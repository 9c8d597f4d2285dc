"""Saliency in the exported file against torch's autograd: every architecture, at the least input
that it takes.

A row is one published network of models/ with random weights and 8 random images: the worst
difference of the file under onnxruntime at batch 1 and 5, as a share of the largest gradient of the
image; how many of the 8 maps are beyond 1e-4 of autograd in float32, and in float64 (a ReLU at 0
within rounding, or a tie in a max pool, may be settled either way: such a map agrees with one of
the two); and what the gradient costs.

    python benchmarks/saliency.py                            # the first network of each architecture: minutes
    python benchmarks/saliency.py resnet "DenseNet-161"      # all of an architecture, or one by its name
"""

from __future__ import annotations

import copy
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))  # runs from a bare checkout, uninstalled

import click
import numpy as np
import torch
from convline.model_file.prune import keep_outputs
from convline.runtime.session import open_session
from torch import nn

import models
from models import summary
from pipeline.export import graph as export
from pipeline.export import saliency_graph
from pipeline.network.modules import Classifier

IMAGES, BATCHES, SIDE_BY_SIDE = 8, (1, 5), 32
HEADING = (
    "| architecture | network | input | worst, batch 1 | batch 5 | beyond 1e-4 of float32, of float64 | nodes | MB | "
    "ms for 32: plain, served, with saliency |\n| --- | --- | --- | ---: | ---: | ---: | ---: | ---: | ---: |"
)


def network(arch: str, options: dict[str, Any], x: np.ndarray) -> Classifier:
    """Return the network with random weights; batch norms have the statistics of x, else deep
    ones would overflow.
    """
    torch.manual_seed(0)
    mean = torch.full((x.shape[3], 1, 1), 127.5)
    net = Classifier(models.build(arch, **options), mean, torch.full_like(mean, 1 / 64))
    norms = [layer for layer in net.modules() if isinstance(layer, nn.BatchNorm2d)]
    for layer in norms:
        layer.momentum = 1.0
        layer.train()
    with torch.no_grad():
        net.eval() if not norms else net(torch.from_numpy(x))
    return net.eval()


def milliseconds(model: bytes, outputs: list[str], images: np.ndarray, runs: int = 5) -> float:
    session, times = open_session(model, "cpu"), []
    for _ in range(runs + 1):
        started = time.perf_counter()
        session.run(outputs, {"images": images})
        times.append(time.perf_counter() - started)
    return 1e3 * min(times[1:])


def row(arch: str, name: str, reference: dict[str, Any]) -> str:
    """Return a network's line of the table."""
    side = summary.least_input(arch, reference)
    shape = (IMAGES, side, side, reference["input"][0])
    x = np.random.default_rng(7).integers(0, 256, shape, np.uint8)
    net = network(arch, reference["options"] | {"size": (side, side)}, x)
    expected = saliency_graph.autograd_saliency(net, x)
    plain = export.export_network(net, x).SerializeToString()
    graph = saliency_graph.export_with_saliency(net, x)
    whole = graph.SerializeToString()
    session, worst = open_session(whole, "cpu"), []
    for batch in BATCHES:
        parts = [
            session.run(["saliency"], {"images": x[i : i + batch]})[0]
            for i in range(0, IMAGES, batch)
        ]
        found = saliency_graph.relative_difference(np.concatenate(parts), expected)
        worst.append(f"{found.max():.1e}")
    exact = saliency_graph.relative_difference(
        np.concatenate(parts), saliency_graph.autograd_saliency(copy.deepcopy(net).double(), x)
    )
    beyond = ", ".join(str((gaps > saliency_graph.CLOSE).sum()) for gaps in (found, exact))
    many = np.resize(x, (SIDE_BY_SIDE, *shape[1:]))
    served = keep_outputs(whole, ["probabilities"])
    asked = ((plain, "probabilities"), (served, "probabilities"), (whole, "saliency"))
    times = ", ".join(f"{milliseconds(model, [output], many):.0f}" for model, output in asked)
    facts = [f"{side} x {side}", *worst, beyond, len(graph.graph.node), f"{len(whole) / 1e6:.1f}"]
    return " | ".join(map(str, ["|", arch, name, *facts, times, "|"])).replace("| |", "|")


@click.command()
@click.argument("names", nargs=-1)
def main(names: tuple[str, ...]) -> None:
    """Print the table of NAMES: architectures of models/, or published networks as `python -m
    models` names them.
    """
    click.echo(HEADING)
    known: set[str] = set()
    for arch in models.names():
        for place, (name, reference) in enumerate(models.references(arch).items()):
            known |= {arch, name}
            if "size" in reference["options"] and (
                ({arch, name} & {*names}) if names else place == 0
            ):
                click.echo(row(arch, name, reference))
    if unknown := sorted({*names} - known):
        raise click.UsageError(
            f"expected architectures or networks of `python -m models`, got {unknown}"
        )


if __name__ == "__main__":
    main()
