"""What stage train leaves: weights, history, layer table and facts of an entry, and its curves while it goes on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch

from models.summary import layer_table
from pipeline.core.errors import StageError
from pipeline.core.files import write_json
from pipeline.core.paths import OUT, RESULTS
from pipeline.data import dataset
from pipeline.network import build, modules
from pipeline.train.checkpoint import State, copy_of


def save(
    name: str, net: modules.Classifier | modules.Forecaster, state: State, source: dataset.Data
) -> None:
    """Write the entry's weights, history and facts."""
    folder = OUT / name / "train"
    torch.save(copy_of(net), folder / "weights.pt")
    for epoch, weights in state.snapshots.items():
        (folder / "snapshots").mkdir(exist_ok=True)
        torch.save(weights, folder / "snapshots" / f"epoch-{epoch}.pt")
    write_json(folder / "history.json", state.history)
    write_json(folder / "gradients.json", state.gradients)
    sample = torch.from_numpy(np.array(source.example())).to(net.mean.device)
    inner = sample.permute(0, 3, 1, 2).float() if source.task == "classification" else sample
    write_json(folder / "layers.json", layer_table(net.net, tuple(inner.shape[1:])))
    facts = {
        "parameters": sum(
            p.numel() for name, p in net.named_parameters() if ".aux" not in name
        ),  # of what ships
        "macs": build.multiply_adds(net, sample),
        "epochs": state.history[-1]["epoch"],
        "best_epoch": state.chosen["epoch"],  # of the weights that ship
    }
    chosen = state.chosen
    for split in ("train", "validation"):
        facts[split] = {
            key: chosen[f"{split}_{key}"]
            for key in ("loss", "accuracy")
            if f"{split}_{key}" in chosen
        }
    write_json(RESULTS / name / "train.json", facts)


@contextmanager
def curves(folder: Path) -> Iterator[Callable[[dict[str, float]], None]]:
    """Yield a function that adds an epoch's row to DVCLive's curves, which `dvc plots` shows while training goes on."""
    from dvclive import Live  # 2 s to import, not needed by studies
    from scmrepo.exceptions import SCMError

    try:
        live = Live(str(folder), dvcyaml=None, report=None, save_dvc_exp=False)
    except SCMError as error:
        raise StageError(
            f"train: DVCLive asks git for the revision: {error}; make a first commit"
        ) from None

    def log(row: dict[str, float]) -> None:
        live.step = int(row["epoch"])
        for key in sorted(set(row) - {"epoch"}):
            live.log_metric(key.replace("_", "/"), row[key], plot=True)
        live.next_step()

    with live:
        yield log
    Path(
        live.metrics_file
    ).unlink()  # the last epoch's values; results/<entry>/train.json has the chosen one's
