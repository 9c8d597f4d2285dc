"""Train each setting of a study with each seed; summarize the measures in a table."""

from __future__ import annotations

import csv
import itertools
import json
from typing import Any

import torch

from pipeline.core import digest as code
from pipeline.core.files import write_json
from pipeline.core.paths import OUT, RESULTS
from pipeline.core.stage import progress
from pipeline.data import dataset, prepare
from pipeline.evaluate import naive_baselines, over_seeds
from pipeline.evaluate.over_seeds import Row, summarize
from pipeline.network import pretrained
from pipeline.params import load as params
from pipeline.params import schema
from pipeline.params.recipe import laid_full, overlay, resolve
from pipeline.params.schema import Layer, Recipe, Study
from pipeline.study import measures
from pipeline.study.measures import CURVES, MEASURES, Run
from pipeline.train import checkpoint, device, loop

FOLDER = RESULTS / "studies"


def resolve_run(name: str, base: Layer, setting: Layer, seed: int, every: params.Params) -> Recipe:
    """Return the recipe of one run: models.<name> with `base`, the setting and the seed.

    With `size: full`, the `full:` blocks of `base` and of the setting are laid over it.
    """
    raw = params.lay_over(name, base, setting, every)
    raw = overlay(laid_full(raw) if every.size == "full" else raw, {"train": {"seed": seed}})
    recipe = params.in_environment(every, resolve(f"params.yaml models.{name}", raw, every.sets))
    if getattr(recipe.data.spec, "per_class", None):
        recipe = recipe.updated(data={"spec": {"draw": seed}})
    if recipe.needs:  # each seed trains its own backbone
        recipe = recipe.updated(base=resolve_run(recipe.needs, {}, {}, seed, every))
    return recipe


def run_key(
    recipe: Recipe, source: dataset.Data, on: torch.device, study: Study | None = None
) -> str:
    """Return a hash of all that a run's numbers depend on; a backbone has no study."""
    return code.hash_values(
        recipe.model_dump(mode="json"),
        study.measures if study else [],
        study.curves if study else [],
        code.hash_files(*code.stage_files("study")),
        source.about["hash"],
        torch.__version__,
        on.type,
    )


def train_and_measure(
    recipe: Recipe, study: Study, source: dataset.Data, label: str, on: torch.device
) -> dict[str, Any]:
    """Train one run; return its measures, and its curves as (x, value) pairs."""
    watch = ["test"] if "test error" in study.curves else []
    base = load_backbone(recipe.base, on) if recipe.base else None
    net: Any
    with device.explain_errors(f"study {label}", recipe, on):
        if recipe.on_features:
            from pipeline.train import head_training  # imports scikit-learn: 3 s

            net, state = head_training.fit_recipe(recipe, source, on=on, label=label, base=base)
        else:
            net, state = loop.fit(recipe, source, on=on, label=label, watch=watch, base=base)
    run = Run(recipe, source, net, state, base.labels if base else ())
    return {name: MEASURES[name](run) for name in study.measures} | {
        name: CURVES[name](run) for name in study.curves
    }


def load_backbone(recipe: Recipe, on: torch.device) -> pretrained.Base:
    """Return a backbone; it is trained once for all runs that use it."""
    source = prepare.make(recipe.data)[0]
    file = OUT / "studies" / "bases" / f"{run_key(recipe, source, on)}.pt"
    if not file.exists():
        label = f"backbone {recipe.train.seed}"
        with device.explain_errors(label, recipe, on):
            net, _ = loop.fit(recipe, source, on=on, label=label)
        file.parent.mkdir(parents=True, exist_ok=True)
        part = file.with_suffix(".part")
        torch.save(checkpoint.copy_weights(net), part)
        part.replace(file)
    return pretrained.Base(torch.load(file, weights_only=True), source.about["labels"])


def baseline_errors(source: dataset.Data, names: list[str]) -> dict[str, dict[str, float]]:
    """Return the naive baselines' errors on the same windows: {baseline: {measure: value}}.

    Classifiers have no baselines.
    """
    if source.task == "classification":
        return {}
    errors: dict[str, dict[str, float]] = {}
    for name in names:
        if name.startswith("mse"):
            steps = int(name.split()[1])
            history, target = measures.first_windows(source, steps)
            for baseline, forecast in naive_baselines.baseline_forecasts(history, source, steps):
                error = float(((forecast - target) ** 2).mean())
                errors.setdefault(baseline, {})[name] = error
    return errors


def run_study(name: str, study: Study, every: params.Params) -> list[Row]:
    """Return the rows of all runs and baselines; finished runs with the same key are read."""
    on = device.choose(every.device)
    rows: list[Row] = []
    sources: dict[str, tuple[str, dataset.Data]] = {}  # dataset name and dataset, by `data:` block
    runs = list(itertools.product(study.settings.items(), study.seeds))
    bar = progress(len(runs), "study", "run")
    for (setting, layer), seed in runs:
        recipe = resolve_run(study.recipe, study.base, layer, seed, every)
        block = recipe.data.model_dump_json()
        if block not in sources:
            sources[block] = (recipe.data.set, prepare.make(recipe.data)[0])
        source = sources[block][1]
        file = OUT / "studies" / name / "runs" / f"{run_key(recipe, source, on, study)}.json"
        if not file.exists():
            write_json(file, train_and_measure(recipe, study, source, f"{setting} {seed}", on))
        values = json.loads(file.read_text())
        rows += [make_row(name, setting, seed, m, "", values[m]) for m in study.measures]
        rows += [make_row(name, setting, seed, c, x, y) for c in study.curves for x, y in values[c]]
        bar.update()
    bar.close()
    for set_name, source in sources.values():
        for baseline, errors in baseline_errors(source, study.measures).items():
            label = f"{baseline} ({set_name})"
            rows += [make_row(name, label, "", m, "", value) for m, value in errors.items()]
    return rows


def make_row(
    study: str, setting: str, seed: int | str, measure: str, x: float | str, value: float
) -> Row:
    keys = {"study": study, "setting": setting, "seed": seed, "measure": measure, "x": x}
    return keys | {"value": float(f"{value:.6g}")}


def write_table(name: str, study: Study, rows: list[Row]) -> None:
    """Write all rows as CSV, and the summary as a Markdown table."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    with (FOLDER / f"{name}.csv").open("w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        table.writeheader()
        table.writerows(rows)
    geometric = [m for m in study.measures if schema.MEASURES[m][1] == "error"]
    note = f" (geometric: {', '.join(geometric)})" if geometric else ""
    lines = [
        f"# {name}: {study.claim}",
        "",
        "Test split where nothing else is said, "
        f"mean{note} [95 % t interval] over seeds {study.seeds}.",
        "",
        f"| setting | {' | '.join(study.measures)} |",
        "| --- |" + " ---: |" * len(study.measures),
    ]
    for setting, by_measure in summarize(rows).items():
        cells = [format_interval(by_measure[m]) if m in by_measure else "" for m in study.measures]
        lines.append(f"| {setting} | {' | '.join(cells)} |")
    for measure in study.measures if study.factors else []:
        lines += ["", describe_factors(study.factors, rows, measure)]
    (FOLDER / f"{name}.md").write_text("\n".join(lines) + "\n", encoding="utf-8")


def describe_factors(factors: dict[str, list[str]], rows: list[Row], measure: str) -> str:
    """Return what each of two factors does to a measure: share of the variance, and mean gain."""
    values = over_seeds.crossed_values(rows, factors, measure)
    *shares, seeds = over_seeds.variance_shares(values)
    names = [*factors, "interaction"]
    parts = [f"{name} {share:.0%}" for name, share in zip(names, shares, strict=True)]
    gains = [
        f"{levels[-1]} less {levels[0]}: {format_interval(gain)}"
        for levels, gain in zip(factors.values(), over_seeds.mean_gains(values), strict=True)
    ]
    return (
        f"Variance of {measure}: {', '.join(parts)}, seed {seeds:.0%}."
        f" Mean gain: {'; '.join(gains)}."
    )


def format_interval(value: tuple[float, float, float]) -> str:
    mean, low, high = (f"{v:,.0f}" if 1e3 <= abs(v) < 1e9 else f"{v:.3g}" for v in value)
    return mean if low == high else f"{mean} [{low}, {high}]"
