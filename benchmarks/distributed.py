"""What a second process adds to training on CPUs: epochs of stage train's loop in one process, and
in two over gloo.

The global batch is the recipe's, one thread a process. `one`: a process by itself. `two`: each
process takes half of every batch, gradients are averaged. `apart`: two processes at once that know
nothing of each other, at half the batch: what the machine bears without exchange. Ways take turns;
an epoch has its look at the validation split. CPU time is what a process computes while it waits
for no other, so that jobs beside it weigh less on that ratio.

    python benchmarks/distributed.py            # about six minutes on two quiet cores
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # runs from a bare checkout, uninstalled

import click
import numpy as np
import torch
from convline.runtime import host

from pipeline.check import machine
from pipeline.data import prepare
from pipeline.params import load as params
from pipeline.train import distributed, loop

EPOCHS = {
    "lenet5-digits": 9,
    "resnet20-digits": 3,
    "alexnet-digits": 2,
}  # the first, a warm-up, is not counted
LAUNCHER = (
    "-m",
    "torch.distributed.run",
    "--standalone",
    "--local-addr=localhost",
    "--nproc-per-node=2",
)
WAYS = {
    "one": (1, (), 1),
    "two": (1, LAUNCHER, 1),
    "apart": (2, (), 2),
}  # commands at once, launcher, batch's divisor
HEADING = """\
| samples/s of a process | one | two | apart | efficiency: two / one | in CPU time | two / apart | efficiency by round |
| --- | ---: | ---: | ---: | ---: | ---: | ---: | --- |"""
Rates = dict[
    str, tuple[float, float]
]  # of a network: a process's samples a second, and a second of its CPU time


def worker(divisor: int) -> Rates:
    """Return what this process, alone or one of a group, takes of each network."""
    recipes, found = params.load().models, {}
    with distributed.join_group(torch.device("cpu")) as on:
        for name, epochs in EPOCHS.items():
            recipe, ends = recipes[name], []
            batch = recipe.train.batch // divisor
            recipe = recipe.updated(train={"epochs": epochs, "batch": batch})
            source = prepare.make(recipe.data)[0]
            note = lambda row, to=ends: to.append((time.perf_counter(), time.process_time()))  # noqa: E731
            loop.fit(recipe, source, on=on, label=name, on_epoch=note)
            own = len(source.x["train"]) / distributed.size()
            found[name] = tuple(own / np.median(np.diff(ends, axis=0), axis=0))
    return found


def measure(way: str) -> Rates:
    """Return the mean over the processes of a way."""
    count, launcher, divisor = WAYS[way]
    words = [sys.executable, *launcher, __file__, "--worker", str(divisor)]
    quiet = {**os.environ, "OMP_NUM_THREADS": "1"}
    started = [
        subprocess.Popen(words, stdout=subprocess.PIPE, text=True, env=quiet) for _ in range(count)
    ]
    lines = [line for process in started for line in process.communicate()[0].splitlines()]
    if any(process.returncode for process in started):
        raise click.ClickException(f"{' '.join(words)}: failed, as said above")
    said = [json.loads(line) for line in lines]
    return {name: tuple(np.mean([one[name] for one in said], axis=0)) for name in EPOCHS}


@click.command()
@click.option("--rounds", type=click.IntRange(1), default=3, show_default=True)
@click.option("--worker", "divisor", type=int, hidden=True)
def main(rounds: int, divisor: int | None) -> None:
    """Print the samples/s of each process in the three ways and the ratios of rounds, medians."""
    if divisor:
        return print(json.dumps(worker(divisor)))
    found = [{way: measure(way) for way in WAYS} for _ in range(rounds)]
    click.echo(
        f"{host.processor()}, {machine.describe_machine()['cores']} cores; torch {torch.__version__}\n\n{HEADING}"
    )
    for name in EPOCHS:
        one, two, apart = (
            np.array([turn[way][name] for turn in found]) for way in WAYS
        )  # (rounds, clock or CPU)
        rates = " | ".join(f"{np.median(way[:, 0]):,.1f}" for way in (one, two, apart))
        shares = " | ".join(f"{np.median(r):.2f}" for r in (*(two / one).T, (two / apart)[:, 0]))
        efficiency = two[:, 0] / one[:, 0]
        click.echo(
            f"| {name} | {rates} | {shares} | {efficiency.min():.2f} to {efficiency.max():.2f} |"
        )


if __name__ == "__main__":
    main()
