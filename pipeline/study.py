"""Stage study: a claim, measured over a recipe, settings laid over it, and seeds; a tidy CSV, a table, a picture.

Reads `studies.<name>` and `models` of params.yaml. Writes results/studies/<name>.csv and .md, out/studies/<name>.png
and, to go on from, out/studies/<name>/runs/.
Calls the same data and train as the line, in one process, and goes on run by run where it was interrupted.
Fails when a run fails; the runs before it are kept.

    python -m pipeline.study NAME
"""

from __future__ import annotations

import csv
import hashlib
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy import stats

from pipeline import data, device, metrics, params, train
from pipeline.recipe import MODELS, overlay, resolve
from pipeline.stage import OUT, RESULTS, StageError, run, write_json

FOLDER = RESULTS / "studies"
CODE = [*train.CODE, "pipeline/study.py", "pipeline/sources.py", "pipeline/metrics.py", "pipeline/baselines.py"]
Row = dict[str, Any]  # study, setting, seed, measure, value


def recipe_of(study: dict[str, Any], setting: dict[str, Any], seed: int, every: params.Params) -> dict[str, Any]:
    """Return the resolved recipe of one run: the study's, its base, the setting and the seed laid over it."""
    raw = overlay(params.studied(study, setting, every), {"train": {"seed": seed}})
    resolved = resolve(f"params.yaml models.{study['recipe']}", raw, every.sets)
    resolved["code"] = params.digest(MODELS / f"{resolved['arch']}.py", *map(Path, CODE))
    return {**resolved, "deterministic": every.deterministic}


def measure(recipe: dict[str, Any], names: list[str], label: str, on: torch.device) -> dict[str, float]:
    """Train one run and return its measures."""
    source, _ = data.make(recipe["data"])
    net, state = train.fit(recipe, source, on=on, label=label)
    return {name: MEASURES[name](net, source, state) for name in names}


@torch.no_grad()
def accuracy(net: Any, source: data.Data, state: train.State) -> float:
    """Test accuracy."""
    batches = train.batches(source, "test", net, net.mean.device)
    right = [net.logits(x).argmax(1) == y for x, y in zip(batches.x.split(500), batches.y.split(500), strict=True)]
    return float(torch.cat(right).double().mean())


def ahead(net: Any, source: data.Data, state: train.State, steps: int) -> float:
    """Test mean squared error over `steps` steps, each test series forecast once from its first context of samples.

    Beyond the trained horizon the forecast is fed back as history.
    """
    history, target = first_windows(source, steps)
    return float(((roll_out(net, history, steps) - target) ** 2).mean())


def first_windows(source: data.Data, steps: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the first context of every test series (M, T, D) and the `steps` samples after it (M, steps, D)."""
    context = source.about["input"]["context"]
    starts = source.y["test"]
    if (shortest := int(np.diff(starts).min())) < context + steps:
        raise StageError(
            f"study: the test series have {shortest} samples, {context + steps} are needed; set a longer `length:`"
        )
    rows = data.window_rows(starts, context + steps, stride=10**9)
    both = source.x["test"][rows]
    return both[:, :context], both[:, context:]


@torch.no_grad()
def roll_out(net: Any, history: np.ndarray, steps: int) -> np.ndarray:
    """Return the forecast (M, steps, D), the network's own answers fed back as often as needed."""
    path = torch.from_numpy(history.astype(np.float32)).to(net.mean.device)
    context, made = history.shape[1], 0
    while made < steps:
        path = torch.cat([path, net(path[:, -context:])[0]], dim=1)
        made = path.shape[1] - context
    return path[:, context : context + steps].double().cpu().numpy()


MEASURES = {
    "accuracy": accuracy,
    "mse 10 ahead": lambda *a: ahead(*a, steps=10),
    "mse 100 ahead": lambda *a: ahead(*a, steps=100),
    "validation loss": lambda net, source, state: state.chosen["validation_loss"],
}


def rivals(recipe: dict[str, Any], names: list[str]) -> dict[str, dict[str, float]]:
    """Return the baselines' errors on the same windows: {baseline: {measure: value}}; classifiers have none."""
    source, _ = data.make(recipe["data"])
    if source.task == "classification":
        return {}
    answers: dict[str, dict[str, float]] = {}
    for name in names:
        if name.startswith("mse"):
            steps = int(name.split()[1])
            history, target = first_windows(source, steps)
            for rival, forecast in metrics.rivals(history, source, steps).items():
                answers.setdefault(rival, {})[name] = float(((forecast - target) ** 2).mean())
    return answers


def run_all(name: str, study: dict[str, Any], every: params.Params) -> list[Row]:
    """Return the rows of every run; those made before under the same recipe and code are read, not made again."""
    on = device.choose(every.device)
    rows: list[Row] = []
    recipes: dict[str, dict[str, Any]] = {}  # one for each data set: what the baselines are fitted on
    runs = [(setting, layer, seed) for setting, layer in study["settings"].items() for seed in study["seeds"]]
    for k, (setting, layer, seed) in enumerate(runs):
        recipe = recipe_of(study, layer, seed, every)
        recipes.setdefault(recipe["data"]["set"], recipe)
        key = hashlib.sha256(json.dumps([recipe, study["measures"]], sort_keys=True).encode()).hexdigest()[:16]
        made = OUT / "studies" / name / "runs" / f"{key}.json"
        if not made.exists():
            print(f"── study  {name}  {setting}, seed {seed}  {k + 1} of {len(runs)}", file=sys.stderr, flush=True)
            write_json(made, measure(recipe, study["measures"], f"{setting} {seed}", on))
        values = json.loads(made.read_text())
        rows += [tidy(name, setting, seed, m, values[m]) for m in study["measures"]]
    for set_name, recipe in recipes.items():
        for rival, values in rivals(recipe, study["measures"]).items():
            rows += [tidy(name, f"{rival} ({set_name})", "", m, value) for m, value in values.items()]
    return rows


def tidy(study: str, setting: str, seed: int | str, measure: str, value: float) -> Row:
    return {"study": study, "setting": setting, "seed": seed, "measure": measure, "value": float(f"{value:.6g}")}


def interval(values: list[float], log: bool) -> tuple[float, float, float]:
    """Return mean, low and high: the 95 % t interval over seeds; for positive errors of the logarithm's mean.

    What is not an error is a proportion, and so is its interval's end.
    """
    x = np.log(np.maximum(values, 1e-300)) if log else np.asarray(values)
    mean = x.mean()
    half = stats.t.ppf(0.975, len(x) - 1) * x.std(ddof=1) / np.sqrt(len(x)) if len(x) > 1 else 0.0
    low, mid, high = (np.exp(v) if log else np.clip(v, 0, 1) for v in (mean - half, mean, mean + half))
    return float(mid), float(low), float(high)


def summary(rows: list[Row], log: bool) -> dict[str, dict[str, tuple[float, float, float]]]:
    """Return {setting: {measure: (mean, low, high)}}, in the order of the rows."""
    groups: dict[str, dict[str, list[float]]] = {}
    for row in rows:
        groups.setdefault(row["setting"], {}).setdefault(row["measure"], []).append(row["value"])
    return {s: {m: interval(v, log) for m, v in by.items()} for s, by in groups.items()}


def write_table(name: str, study: dict[str, Any], rows: list[Row]) -> None:
    """Write the tidy CSV and the Markdown table."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    with (FOLDER / f"{name}.csv").open("w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        table.writeheader()
        table.writerows(rows)
    log = study["better"] == "lower"
    kind = "geometric mean" if log else "mean"
    lines = [
        f"# {name}: {study['claim']}",
        "",
        f"Test split, {kind} [95 % t interval] over seeds {study['seeds']}.",
        "",
    ]
    lines += [f"| setting | {' | '.join(study['measures'])} |", "| --- |" + " ---: |" * len(study["measures"])]
    for setting, by in summary(rows, log).items():
        cells = [text(by[m]) if m in by else "" for m in study["measures"]]
        lines.append(f"| {setting} | {' | '.join(cells)} |")
    (FOLDER / f"{name}.md").write_text("\n".join(lines) + "\n", encoding="utf-8")


def text(value: tuple[float, float, float]) -> str:
    mean, low, high = value
    return f"{mean:.3g}" if low == high else f"{mean:.3g} [{low:.3g}, {high:.3g}]"


def draw(name: str, study: dict[str, Any], rows: list[Row]) -> None:
    """Draw each measure: every setting's seeds as dots, its mean and interval as a bar."""
    from pipeline import figures

    log = study["better"] == "lower"
    groups = summary(rows, log)
    path = OUT / "studies" / f"{name}.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    columns = len(study["measures"])
    with figures.drawing(path, 760, 60 + 22 * len(groups), columns=columns) as axes:
        for axis, measure in zip(axes[0], study["measures"], strict=True):
            for y, (setting, by) in enumerate(groups.items()):
                if measure in by:
                    mean, low, high = by[measure]
                    dots = [r["value"] for r in rows if (r["setting"], r["measure"]) == (setting, measure)]
                    axis.plot([low, high], [y, y], color=figures.BLUE, lw=4, alpha=0.35, solid_capstyle="butt")
                    axis.plot(dots, [y] * len(dots), ".", color=figures.ORANGE, ms=4)
                    axis.plot([mean], [y], "|", color=figures.BLUE, ms=11, mew=2)
            axis.set(title=measure, yticks=range(len(groups)), yticklabels=list(groups) if axis is axes[0, 0] else [])
            axis.set_xscale("log" if log else "linear")
            axis.invert_yaxis()


def main() -> None:
    every = params.load()
    if len(sys.argv) != 2 or sys.argv[1] not in every.studies:
        raise StageError(f"usage: python -m pipeline.study NAME, where NAME is one of: {', '.join(every.studies)}")
    name = sys.argv[1]
    study = every.studies[name]
    rows = run_all(name, study, every)
    write_table(name, study, rows)
    draw(name, study, rows)
    print((FOLDER / f"{name}.md").read_text())


if __name__ == "__main__":
    run(main)
