"""Train a study's settings over its seeds; summarize them in a table."""

from __future__ import annotations

import csv
import hashlib
import json
import sys
from typing import Any

import numpy as np
import torch
from scipy import stats

from pipeline.core import digest as code
from pipeline.core.files import write_json
from pipeline.core.paths import OUT, RESULTS
from pipeline.data import dataset, prepare
from pipeline.evaluate import naive_baselines
from pipeline.network import pretrained
from pipeline.params import load as params
from pipeline.params import schema
from pipeline.params.recipe import overlay, resolve
from pipeline.params.schema import ImageData, Layer, Recipe, Study
from pipeline.study import measures
from pipeline.study.measures import CURVES, MEASURES, Run
from pipeline.train import checkpoint, device, loop

FOLDER = RESULTS / "studies"


Row = dict[
    str, Any
]  # study, setting, seed, measure, x (of a curve: epoch, or place of the layer), value


def recipe_of(name: str, base: Layer, setting: Layer, seed: int, every: params.Params) -> Recipe:
    """Return the resolved recipe of one run: models.<name>, `base`, the setting and the seed laid over it."""
    raw = overlay(params.lay_over(name, base, setting, every), {"train": {"seed": seed}})
    recipe = params.in_environment(every, resolve(f"params.yaml models.{name}", raw, every.sets))
    if isinstance(recipe.data, ImageData) and recipe.data.spec.per_class:
        recipe = recipe.updated(data={"spec": {"draw": seed}})
    if recipe.needs:  # the backbone is made anew by each seed, too
        recipe = recipe.updated(base=recipe_of(recipe.needs, {}, {}, seed, every))
    return recipe


def key_of(
    recipe: Recipe, source: dataset.Data, on: torch.device, study: Study | None = None
) -> str:
    """Return the name of a run's file, a hash of all that its numbers depend on; a backbone has no study."""
    digest = code.hash_files(*code.stage_files("study"))
    parts = [
        recipe.model_dump(mode="json"),
        study.measures if study else [],
        study.curves if study else [],
        digest,
        source.about["hash"],
        torch.__version__,
        on.type,
    ]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


def measure(
    recipe: Recipe,
    study: Study,
    source: dataset.Data,
    label: str,
    on: torch.device,
) -> dict[str, Any]:
    """Train one run; return its measures, and its curves as (x, value) pairs."""
    watch = ["test"] if "test error" in study.curves else []
    base = base_of(recipe.base, on) if recipe.base else None
    with device.explain_errors(f"study {label}", recipe, on):
        if recipe.on_features:
            from pipeline.train import head_training  # scikit-learn: 3 s

            made = head_training.fit_recipe(recipe, source, on=on, label=label, base=base)
        else:
            made = loop.fit(recipe, source, on=on, label=label, watch=watch, base=base)
    trained = Run(recipe, source, *made, base.labels if base else ())
    return {m: MEASURES[m](trained) for m in study.measures} | {
        c: CURVES[c](trained) for c in study.curves
    }


def base_of(recipe: Recipe, on: torch.device) -> pretrained.Base:
    """Return a backbone, trained once for all the runs that are built on it."""
    source = prepare.make(recipe.data)[0]
    file = OUT / "studies" / "bases" / f"{key_of(recipe, source, on)}.pt"
    if not file.exists():
        label = f"backbone {recipe.train.seed}"
        with device.explain_errors(label, recipe, on):
            net, _ = loop.fit(recipe, source, on=on, label=label)
        file.parent.mkdir(parents=True, exist_ok=True)
        part = file.with_suffix(".part")
        torch.save(checkpoint.copy_weights(net), part)
        part.replace(file)
    return pretrained.Base(torch.load(file, weights_only=True), source.about["labels"])


def rivals(source: dataset.Data, names: list[str]) -> dict[str, dict[str, float]]:
    """Return the baselines' errors on the same windows: {baseline: {measure: value}}; classifiers have none."""
    if source.task == "classification":
        return {}
    answers: dict[str, dict[str, float]] = {}
    for name in names:
        if name.startswith("mse"):
            steps = int(name.split()[1])
            history, target = measures.first_windows(source, steps)
            for rival, forecast in naive_baselines.baseline_forecasts(history, source, steps):
                answers.setdefault(rival, {})[name] = float(((forecast - target) ** 2).mean())
    return answers


def run_all(name: str, study: Study, every: params.Params) -> list[Row]:
    """Return the rows of every run; those made before under the same recipe, data and code are read, not made again."""
    on = device.choose(every.device)
    print(f"   device {every.device}: {device.describe(on, every.device)}", file=sys.stderr)
    rows: list[Row] = []
    sources: dict[
        str, tuple[str, dataset.Data]
    ] = {}  # by their `data:` blocks: the set's name, and what it holds
    runs = [
        (setting, layer, seed) for setting, layer in study.settings.items() for seed in study.seeds
    ]
    for k, (setting, layer, seed) in enumerate(runs):
        recipe = recipe_of(study.recipe, study.base, layer, seed, every)
        block = recipe.data.model_dump_json()
        if block not in sources:
            sources[block] = (recipe.data.set, prepare.make(recipe.data)[0])
        source = sources[block][1]
        made = OUT / "studies" / name / "runs" / f"{key_of(recipe, source, on, study)}.json"
        if not made.exists():
            print(
                f"── study  {name}  {setting}, seed {seed}  {k + 1} of {len(runs)}",
                file=sys.stderr,
                flush=True,
            )
            write_json(made, measure(recipe, study, source, f"{setting} {seed}", on))
        values = json.loads(made.read_text())
        rows += [tidy(name, setting, seed, m, "", values[m]) for m in study.measures]
        rows += [tidy(name, setting, seed, c, x, y) for c in study.curves for x, y in values[c]]
    for set_name, source in sources.values():
        for rival, found in rivals(source, study.measures).items():
            rows += [
                tidy(name, f"{rival} ({set_name})", "", m, "", value) for m, value in found.items()
            ]
    return rows


def tidy(
    study: str, setting: str, seed: int | str, measure: str, x: float | str, value: float
) -> Row:
    keys = {"study": study, "setting": setting, "seed": seed, "measure": measure, "x": x}
    return keys | {"value": float(f"{value:.6g}")}


def interval(values: list[float], kind: str) -> tuple[float, float, float]:
    """Return mean, low and high: the 95 % t interval over seeds, of an "error" that of its logarithm.

    The interval of a "share" ends at 0 and 1.
    """
    log = kind == "error"
    x = np.log(np.maximum(values, 1e-300)) if log else np.asarray(values)
    mean = x.mean()
    half = stats.t.ppf(0.975, len(x) - 1) * x.std(ddof=1) / np.sqrt(len(x)) if len(x) > 1 else 0.0
    ends = np.array([mean, mean - half, mean + half])
    mid, low, high = np.exp(ends) if log else np.clip(ends, 0, 1) if kind == "share" else ends
    return float(mid), float(low), float(high)


def summary(rows: list[Row]) -> dict[str, dict[str, tuple[float, float, float]]]:
    """Return {setting: {measure: (mean, low, high)}}, in the order of the rows; curves are left out."""
    groups: dict[str, dict[str, list[float]]] = {}
    for row in rows:
        if row["x"] == "":
            groups.setdefault(row["setting"], {}).setdefault(row["measure"], []).append(
                row["value"]
            )
    return {
        s: {m: interval(v, schema.MEASURES[m][1]) for m, v in by.items()}
        for s, by in groups.items()
    }


def write_table(name: str, study: Study, rows: list[Row]) -> None:
    """Write the tidy CSV and the Markdown table."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    with (FOLDER / f"{name}.csv").open("w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        table.writeheader()
        table.writerows(rows)
    geometric = [m for m in study.measures if schema.MEASURES[m][1] == "error"]
    note = f" (geometric: {', '.join(geometric)})" if geometric else ""
    lines = [f"# {name}: {study.claim}", ""]
    lines += [
        f"Test split where nothing else is said, mean{note} [95 % t interval] over seeds {study.seeds}.",
        "",
    ]
    lines += [
        f"| setting | {' | '.join(study.measures)} |",
        "| --- |" + " ---: |" * len(study.measures),
    ]
    for setting, by in summary(rows).items():
        cells = [text(by[m]) if m in by else "" for m in study.measures]
        lines.append(f"| {setting} | {' | '.join(cells)} |")
    (FOLDER / f"{name}.md").write_text("\n".join(lines) + "\n", encoding="utf-8")


def text(value: tuple[float, float, float]) -> str:
    mean, low, high = (f"{v:,.0f}" if 1e3 <= abs(v) < 1e9 else f"{v:.3g}" for v in value)
    return mean if low == high else f"{mean} [{low}, {high}]"
