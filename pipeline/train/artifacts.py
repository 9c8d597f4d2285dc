"""Write what stage train leaves: weights, history, layer table, facts, and curves by epoch."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from models.summary import layer_table, shipped
from pipeline.core.files import RESULT_DIGITS, fresh, write_json, write_result
from pipeline.core.paths import OUT
from pipeline.data import dataset
from pipeline.network import build, modules
from pipeline.train.checkpoint import State, copy_weights


def save(name: str, net: Any, state: State, source: dataset.Data) -> None:
    """Write the entry's weights, history and facts."""
    folder = OUT / name / "train"
    torch.save(copy_weights(net), folder / "weights.pt")
    for epoch, weights in state.snapshots.items():
        (folder / "snapshots").mkdir(exist_ok=True)
        torch.save(weights, folder / "snapshots" / f"epoch-{epoch}.pt")
    write_json(folder / "history.json", state.history)
    write_json(folder / "gradients.json", state.gradients)
    sample = torch.from_numpy(np.array(source.example())).to(net.mean.device)
    image = isinstance(net, modules.ImageNetwork)
    inner = modules.channels_first(sample).float() if image else sample
    write_json(folder / "layers.json", layer_table(net.net, tuple(inner.shape[1:])))
    facts: dict[str, Any] = {
        "parameters": shipped(net.net),
        "macs": build.multiply_adds(net, sample),
        "epochs": state.history[-1]["epoch"],
        "best_epoch": state.chosen["epoch"],  # of the weights that are shipped
    }
    chosen = state.chosen
    for split in ("train", "validation"):
        facts[split] = {
            key: chosen[f"{split}_{key}"]
            for key in ("loss", "accuracy")
            if f"{split}_{key}" in chosen
        }
    if state.members:
        facts["members"] = state.members
    write_result(name, "train", facts)


def curve_writer(folder: Path) -> Callable[[dict[str, float]], None]:
    """Return a function that appends a history row to the TSV files that `dvc plots` reads.

    One file for each metric, of columns step (the epoch) and the metric: `validation_loss` goes to
    validation/loss.tsv. They grow while training goes on. Numbers have RESULT_DIGITS digits.
    """
    fresh(folder)

    def append(row: dict[str, float]) -> None:
        for key in sorted(set(row) - {"epoch"}):
            file = folder.joinpath(*key.split("_")).with_suffix(".tsv")
            file.parent.mkdir(parents=True, exist_ok=True)
            head = "" if file.exists() else f"step\t{file.stem}\n"
            with file.open("a", encoding="utf-8") as lines:
                lines.write(f"{head}{row['epoch']}\t{row[key]:.{RESULT_DIGITS}g}\n")

    return append
