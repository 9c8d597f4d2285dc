"""ETTh1 as the field measures it, beside its published rows: runs are trained, exported, scored as the file answers.

Rows to 8,640 train, to 11,520 validate, to 14,400 test; values standardised by the training rows; every test window
kept; mean squared and absolute error of standardised values. A run is a recipe of params.yaml at one horizon and seed,
of the oil temperature alone or of all seven columns; what is chosen is chosen on the validation rows.

    python benchmarks/etth1.py     # all of it: hours on one core; goes on where it stopped
    python benchmarks/etth1.py --horizon 96 --seed 1 nlinear-etth1
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))  # runs from a bare checkout, uninstalled

import click
import numpy as np
import torch

from pipeline import data, export, machine, params, study, train
from pipeline.recipe import overlay, resolve
from pipeline.schema import ParamsError, hint
from pipeline.speed import predict
from pipeline.stage import OUT, RESULTS, StageError, write_json
from serve import contract
from serve.errors import ServeError
from serve.model import load

HORIZONS = (96, 192, 336, 720)
TASKS = {"univariate": "etth1-ot", "multivariate": "etth1"}
RECIPES = {  # title and tasks
    "tcn-etth1-ot": ("ours", ["univariate"]),
    "tcn-etth1": ("ours", ["multivariate"]),
    "nlinear-etth1": ("NLinear here", [*TASKS]),
    "dlinear-etth1": ("DLinear here", [*TASKS]),
}
# MSE/MAE at HORIZONS. LTSF: Zeng et al. 2023, the repository's LTSF-Benchmark.md. PatchTST: Nie et al. 2023, table 3.
PUBLISHED = {
    "univariate": {
        "NLinear": (".053/.177", ".069/.204", ".081/.226", ".080/.226"),
        "DLinear": (".056/.180", ".071/.204", ".098/.244", ".189/.359"),
    },
    "multivariate": {
        "PatchTST/64": (".370/.400", ".413/.429", ".422/.440", ".447/.468"),
        "NLinear": (".374/.394", ".408/.415", ".429/.427", ".440/.453"),
        "DLinear": (".375/.399", ".405/.416", ".439/.443", ".472/.490"),
    },
}
Run = dict[str, Any]


def recipe_of(name: str, task: str, horizon: int, seed: int, every: params.Params) -> dict[str, Any]:
    """Return the resolved recipe of one run, whatever params.yaml says its horizon, data and seed are."""
    raw = {key: value for key, value in every.raw["models"][name].items() if key != "full"}
    raw = overlay(raw, {"data": {"set": TASKS[task], "horizon": horizon}, "train": {"seed": seed}})
    recipe = resolve(f"params.yaml models.{name}", raw, every.sets)
    return recipe | params.circumstances(every, recipe) | {"size": "small"}


def run(name: str, recipe: dict[str, Any], label: str, made: bool) -> Run | None:
    """Return a run's scores; its file stays under out/etth1, and one of the same recipe, data and code is read.

    made: None where there is none to read.
    """
    source = data.make(recipe["data"])[0]
    device = torch.device("cpu")
    stem = OUT / "etth1" / study.key_of(recipe, study.NOTHING, source, device)
    if stem.with_suffix(".json").exists():
        return json.loads(stem.with_suffix(".json").read_text())
    if made:
        return None
    started = time.perf_counter()
    net, state = train.fit(recipe, source, on=device, label=label)
    seconds = time.perf_counter() - started
    x = source.served("test")
    says = export.answers(net, x[:8])
    metrics = {"validation": state.chosen, "parameters": sum(p.numel() for p in net.parameters())}
    about = export.document(name, recipe, source.about, metrics, x[:8], says, export.limit(says, 1e-4))
    graph = export.to_onnx(net, x, source.task).SerializeToString()
    stem.parent.mkdir(parents=True, exist_ok=True)
    stem.with_suffix(".onnx").write_bytes(contract.seal(graph, about))
    found = score(stem.with_suffix(".onnx"), source) | {"seconds": seconds, "parameters": metrics["parameters"]}
    found |= {"validation": state.chosen["validation_loss"], "epochs": len(state.history), "epoch": state.chosen_epoch}
    write_json(stem.with_suffix(".json"), found)
    return found


def score(path: Path, source: data.Data) -> Run:
    """Return the errors of a model file over every test window, of standardised values."""
    got = predict(load(path, "cpu"), source.served("test"), 256)[0].astype(np.float64)
    target = source.windows("test", source.about["stride"])[1]
    error = (got - target) * source.scale
    return {"mse": float((error**2).mean()), "mae": float(np.abs(error).mean()), "windows": len(target)}


def cell(runs: list[Run]) -> str:
    """Return MSE and MAE, each the mean over seeds, and the 95 % t interval of the first."""
    mse, mae = ([run[kind] for run in runs] for kind in ("mse", "mae"))
    mean, low, high = study.interval(mse, "count")
    apart = f" [{low:.3f}, {high:.3f}]" if len(runs) > 1 else ""
    return f"{mean:.3f}{apart}/{np.mean(mae):.3f}".replace("0.", ".")


def tables(found: dict[tuple[str, str, int], list[Run]], contexts: dict[str, int]) -> str:
    """Return both tables, rows by horizon; a cell without runs is empty."""
    lines = []
    for task, published in PUBLISHED.items():
        names = [name for name in RECIPES if any((name, task, s) in found for s in HORIZONS)]
        ours = [f"{RECIPES[name][0]} (look-back {contexts[name]})" for name in names]
        titles = ["horizon", *(f"{title}, published" for title in published), *ours]
        lines += [f"\n{task}, MSE/MAE\n", f"| {' | '.join(titles)} |", "| ---: " * len(titles) + "|"]
        for k, horizon in enumerate(HORIZONS):
            cells = [cells[k] for cells in published.values()]
            cells += [cell(found[name, task, horizon]) if (name, task, horizon) in found else "" for name in names]
            lines.append(f"| {horizon} | {' | '.join(cells)} |")
        lines.append("\n| run | parameters | epochs | seconds, one core | seeds |\n| --- | ---: | ---: | ---: | ---: |")
        for (name, of, horizon), runs in found.items():
            if of == task:
                facts = [f"{np.mean([run[key] for run in runs]):,.0f}" for key in ("parameters", "epochs", "seconds")]
                lines.append(f"| {RECIPES[name][0]}, {horizon} | {' | '.join(facts)} | {len(runs)} |")
    return "\n".join(lines)


@click.command()
@click.argument("names", nargs=-1)
@click.option("--task", "tasks", multiple=True, type=click.Choice(list(TASKS)), default=list(TASKS))
@click.option("--horizon", "horizons", multiple=True, type=int, default=HORIZONS)
@click.option("--seed", "seeds", multiple=True, type=int, default=(1, 2, 3))
@click.option("--made", is_flag=True, help="Take the runs made before, and make none.")
def main(
    names: tuple[str, ...], tasks: tuple[str, ...], horizons: tuple[int, ...], seeds: tuple[int, ...], made: bool
) -> None:
    """Run the recipes NAMES, all if none is named, and write their table to results/etth1.md."""
    try:
        every = params.load()
        if unknown := [name for name in names if name not in RECIPES]:
            raise click.UsageError(f"no recipe {unknown[0]!r} here; {hint(unknown[0], list(RECIPES))}")
        found: dict[tuple[str, str, int], list[Run]] = {}
        for seed in seeds:
            for task in tasks:
                for horizon in horizons:
                    for name in (name for name in names or RECIPES if task in RECIPES[name][1]):
                        label = f"{name} {task} {horizon} seed {seed}"
                        if one := run(name, recipe_of(name, task, horizon, seed, every), label, made):
                            found.setdefault((name, task, horizon), []).append(one)
                            click.echo(f"{label}: {one['mse']:.4f} {one['mae']:.4f} {one['seconds']:.0f} s", err=True)
    except (ParamsError, StageError, ServeError) as error:
        raise click.ClickException(str(error)) from error
    contexts = {name: every.models[name]["data"]["context"] for name in RECIPES}
    head = __doc__.split("\n\n")
    text = f"# ETTh1\n\n{head[0]}\n\n{head[1]}\nBrackets: 95 % over seeds. {machine.describe()['cpu']}.\n"
    (RESULTS / "etth1.md").write_text(text + tables(found, contexts) + "\n", encoding="utf-8")
    click.echo((RESULTS / "etth1.md").read_text())


if __name__ == "__main__":
    main()
