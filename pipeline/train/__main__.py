"""Stage train: train an entry's network; the validation split chooses the epoch and stops it.

Reads out/params/<entry>/train.json, out/<entry>/data and models/<arch>.py. Writes
out/<entry>/train/ (weights, history, gradients, layer table, snapshots), results/<entry>/curves
(for `dvc plots`) and results/<entry>/train.json. Fails when the loss is not finite. An interrupted
training continues from its last checkpoint and ends with the same numbers.

    python -m pipeline.train ENTRY
    torchrun --nproc-per-node 8 -m pipeline.train ENTRY     (or `processes: 8` in params.yaml)
"""

from __future__ import annotations

import torch

from pipeline.core.files import fresh, read_json
from pipeline.core.paths import OUT, RESULTS
from pipeline.core.stage import entry_of_command_line, run
from pipeline.data import dataset
from pipeline.params import load as params
from pipeline.params.schema import Recipe
from pipeline.train import artifacts, device, distributed
from pipeline.train.checkpoint import CHECKPOINTS, checkpoint_path
from pipeline.train.loop import fit


def make(name: str, recipe: Recipe, source: dataset.Data, on: torch.device) -> None:
    """Train an entry and write what the stage writes; of several processes the first one writes."""
    first = not distributed.rank()
    if recipe.on_features:
        from pipeline.train import head_training

        if first:
            with device.explain_errors(f"train {name}", recipe, on):
                head_training.train_entry(name, recipe, source, on)
        return
    checkpoint = checkpoint_path(name, recipe, source, on)
    if first:
        for old in CHECKPOINTS.glob(f"{name}@*.pt"):
            if old != checkpoint:
                old.unlink()
        fresh(OUT / name / "train")
    log = artifacts.curve_writer(RESULTS / name / "curves") if first else (lambda row: None)
    with device.explain_errors(f"train {name}", recipe, on):
        net, state = fit(recipe, source, on=on, label=name, checkpoint=checkpoint, on_epoch=log)
    if first:
        artifacts.save(name, net, state, source)
        checkpoint.unlink(missing_ok=True)


def main() -> None:
    with entry_of_command_line("train") as (name, summarize):
        recipe, source = params.entry(name, Recipe), dataset.load(name)
        on = device.choose(recipe.device)
        if recipe.processes > 1 and not distributed.is_launched() and not recipe.on_features:
            distributed.launch(recipe.processes, "train", name)
        else:
            with distributed.join_group(on) as own:
                make(name, recipe, source, own)
        if not distributed.is_launched():  # else the first process may still be writing
            summarize(describe_training(name, recipe, on))


def describe_training(name: str, recipe: Recipe, on: torch.device) -> str:
    """Return the validation metric of what stage train wrote, its epoch or head, and the device."""
    facts = read_json(RESULTS / name / "train.json", f"train@{name}")
    metric = "accuracy" if "accuracy" in facts["validation"] else "loss"
    result = f"validation {metric} {facts['validation'][metric]:.4g}"
    if recipe.on_features:
        head = read_json(OUT / name / "train" / "head.json", f"train@{name}")["chosen"]
        options = ", ".join(f"{key} {value}" for key, value in head["options"].items())
        result += f" by {head['kind']}" + (f" ({options})" if options else "")
    elif facts["epochs"]:
        result += f" in epoch {facts['best_epoch']} of {facts['epochs']}"
    many = f"{recipe.processes} processes, " if recipe.processes > 1 else ""
    return f"{result}, on {many}{device.describe(on, recipe.device)}"


if __name__ == "__main__":
    run(main)
