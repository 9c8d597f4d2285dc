"""Four entries trained for real, twice: to the end, and killed with SIGKILL after a checkpoint and
taken up again.

Each training is a fork of this process, which has torch imported and no CUDA: so are the stages
under pipeline.line.fork_server. Both must end with the same weights; the loss stands beside what
the CPU had in results/<entry>/train.json.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.gpu import carried
from benchmarks.gpu.clock import ROOT, Facts, Here, forked
from pipeline.core.files import write_json
from pipeline.data import dataset
from pipeline.params.schema import Recipe
from pipeline.train import device, loop

EPOCHS = 2  # of each on the CPU
KILLED_AFTER = 2  # checkpoints


def run(here: Here) -> Facts:
    """Yield the facts of each entry."""
    for name in carried.REAL:
        if here.late():
            yield name, {"not_measured": "out of time"}
            continue
        recipe, source = (
            carried.load_recipe(here.carried, name, "small"),
            carried.load_data(here.carried, name),
        )
        if not here.full:
            recipe = recipe.updated(train={"epochs": EPOCHS})
        yield name, of_entry(name, recipe, source, here.device)


def of_entry(name: str, recipe: Recipe, source: dataset.Data, on: str) -> dict[str, Any]:
    """Return how both trainings of an entry ended, and whether with the same weights."""
    with tempfile.TemporaryDirectory() as folder:
        whole, cut, again = (Path(folder, f"{part}.json") for part in ("whole", "cut", "again"))
        checkpoint, other = Path(folder, "cut.pt"), Path(folder, "whole.pt")
        begun = time.perf_counter()
        codes = {"whole": forked(lambda: trained(name, recipe, source, on, whole, other))}
        seconds = time.perf_counter() - begun
        codes["killed"] = forked(
            lambda: trained(name, recipe, source, on, cut, checkpoint, kill=True)
        )
        codes["resumed"] = forked(lambda: trained(name, recipe, source, on, again, checkpoint))
        ends = [json.loads(file.read_text()) for file in (whole, again) if file.exists()]
    expected = {"whole": 0, "killed": -signal.SIGKILL, "resumed": 0}
    same = len(ends) == 2 and ends[0] == ends[1]
    facts = {
        "passed": same and codes == expected,
        "equal": same,
        "codes": codes,
        "seconds": round(seconds, 2),
    }
    return facts | (ends[0] if ends else {}) | {"on the CPU": recorded(name)}


def trained(
    name: str,
    recipe: Recipe,
    source: dataset.Data,
    on: str,
    to: Path,
    checkpoint: Path,
    kill: bool = False,
) -> None:
    """Train as stage train does, with a checkpoint after every epoch; write the digest of the
    weights and the loss.

    kill: die at the end of the epoch after the second checkpoint.
    """
    loop.LEAST_S, loop.MOST_SHARE = (
        0.0,
        1e9,
    )  # the line's own writes at most one a second: short trainings had none
    epochs = 0

    def on_epoch(row: dict[str, float]) -> None:
        nonlocal epochs
        epochs += 1
        if kill and epochs > min(KILLED_AFTER, recipe.train.epochs - 1) and checkpoint.exists():
            os.kill(os.getpid(), signal.SIGKILL)

    net, state = loop.fit(
        recipe, source, on=device.choose(on), label=name, checkpoint=checkpoint, on_epoch=on_epoch
    )
    digest = hashlib.sha256()
    for key, tensor in sorted(net.state_dict().items()):
        digest.update(key.encode() + tensor.cpu().numpy().tobytes())
    chosen = {
        key: state.chosen[key]
        for key in ("validation_loss", "validation_accuracy")
        if key in state.chosen
    }
    write_json(to, {"weights": digest.hexdigest(), "epochs": state.epoch, **chosen})


def recorded(name: str) -> dict[str, float] | None:
    """Return the validation split's figures of the entry in results/, which were made on a CPU."""
    file = ROOT / "results" / name / "train.json"
    return json.loads(file.read_text())["validation"] if file.exists() else None
