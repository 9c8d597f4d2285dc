"""Task ETT_1H of fev-bench, which scores intervals too: hourly ETTh1 and ETTh2, one week ahead.

Shchur et al. 2025, "fev-bench: A Realistic Benchmark for Time Series Forecasting",
arXiv:2509.26468; definition and metrics as in its package fev and its tasks.yaml. All seven columns
are targets, without covariates. The last 20 weeks of each file are 20 windows of 168 hours, side by
side; the first cutoff is 3,360 rows before the end, and each window's past is all rows before its
cutoff. Of a window and a column, an error is scaled by the past's mean |y[t] - y[t - 24]|:

- MASE: the mean over the 168 hours of the scaled |y - forecast|
- SQL: the mean over hours and levels q = .1 to .9 of twice the scaled quantile loss max(q e, (q - 1)
  e) of e = y - quantile

The score is the mean over series, columns and windows, each with equal weight: of ETTh1 alone it is
as comparable as ETTh1 is with ETTh2, so each row is also divided by the seasonal naive row of the
same series. That one repeats the last day; its quantiles are normal, as statsforecast makes them of
the last 2,500 rows for the published row. A run here is a recipe of params.yaml, trained once for
all windows on the rows before the first cutoff, of which the last four months validate; its file
forecasts under onnxruntime.

    python benchmarks/fev.py     # ETTh1 and ETTh2, whichever is below DATA_ROOT/series
    python benchmarks/fev.py --etth2 ETTh2.csv --seed 1
"""

from __future__ import annotations

import sys
from pathlib import Path
from statistics import NormalDist
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))  # runs from a bare checkout, uninstalled

import click
import numpy as np
from convline.errors import ServeError
from convline.loading import load_file
from convline.timeseries.series import read_csv

from benchmarks.forecast_file import recipe_of, train_file
from pipeline.check import machine
from pipeline.check.predictions import predict
from pipeline.core.errors import ParamsError, StageError
from pipeline.core.paths import OUT, RESULTS, located
from pipeline.data import dataset, prepare
from pipeline.evaluate.naive_baselines import mase_scale, seasonal_naive
from pipeline.params import load as params
from pipeline.params.schema import Recipe

HORIZON, WINDOWS, SEASON = 168, 20, 24
COLUMNS = ["HUFL", "HULL", "MUFL", "MULL", "LUFL", "LULL", "OT"]
LEVELS = tuple(round(0.1 * k, 1) for k in range(1, 10))
VALIDATION = 2880  # rows, as the protocol of the literature has for ETTh1
FITTED = 2500  # rows of the past that the published seasonal naive takes
RECIPES = {"ours": "chosen-etth1", "DLinear here": "dlinear-etth1"}
# SQL and MASE of both series: benchmarks/fev_bench/results of the repository autogluon/fev.
NAIVE = "seasonal naive"
PUBLISHED = {
    NAIVE: (1.207, 1.323),
    "PatchTST, trained": (0.952, 1.199),
    "Chronos-2": (0.883, 1.126),
}
Scores = dict[str, float]


def score(
    past: list[np.ndarray], target: np.ndarray, forecast: np.ndarray, quantiles: np.ndarray
) -> Scores:
    """Return `sql` and `mase` over windows, and `inside`, the share of targets between the
    outermost levels.

    past: of each window, (rows, D); target and forecast (M, S, D); quantiles (M, S, D, levels).
    """
    scale = np.stack([mase_scale(rows, np.array([0, len(rows)]), SEASON) for rows in past])
    scale = scale[:, None]  # (M, 1, D)
    below, levels = target[..., None] - quantiles, np.array(LEVELS)
    losses = 2 * np.maximum(levels * below, (levels - 1) * below).mean(-1)
    inside = (quantiles[..., 0] <= target) & (target <= quantiles[..., -1])
    return {
        "sql": float((losses / scale).mean()),
        "mase": float((np.abs(target - forecast) / scale).mean()),
        "inside": float(inside.mean()),
    }


def cut_windows(values: np.ndarray) -> tuple[list[np.ndarray], np.ndarray]:
    """Return the past of each window, (rows, D), and the targets (M, S, D), of values (rows, D)."""
    cutoffs = [len(values) - HORIZON * k for k in range(WINDOWS, 0, -1)]
    return [values[:cut] for cut in cutoffs], np.stack(
        [values[cut : cut + HORIZON] for cut in cutoffs]
    )


def naive_forecasts(past: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Return the forecast (M, S, D) and the quantiles (M, S, D, levels) of seasonal naive.

    The deviation after k whole seasons is sqrt(k + 1) times that of one season (Hyndman &
    Athanasopoulos, "Forecasting: Principles and Practice", 3rd edition, section 5.5).
    """
    recent = np.stack([rows[-FITTED:] for rows in past])
    forecast = seasonal_naive(recent, HORIZON, SEASON)
    deviation = np.sqrt(((recent[:, SEASON:] - recent[:, :-SEASON]) ** 2).mean(1, keepdims=True))
    deviation = deviation * np.sqrt(1 + np.arange(HORIZON) // SEASON)[:, None]  # (M, S, D)
    normal = np.array([NormalDist().inv_cdf(level) for level in LEVELS])
    return forecast, forecast[..., None] + deviation[..., None] * normal


def recipe_for(name: str, path: Path, rows: int, seed: int, every: params.Params) -> Recipe:
    """Return the recipe of one run on a file of so many rows."""
    cutoff = rows - HORIZON * WINDOWS
    data = {"set": "etth1", "horizon": HORIZON, "quantiles": list(LEVELS)}
    recipe = recipe_of(name, {"data": data, "train": {"seed": seed}}, every)
    splits = cutoff - VALIDATION, cutoff, rows
    return recipe.updated(data={"spec": {"path": str(path), "columns": COLUMNS, "splits": splits}})


def run(name: str, recipe: Recipe, values: np.ndarray, label: str) -> dict[str, Any]:
    """Return the scores of a recipe on the windows of its file's values (rows, D), `validation`,
    its SQL on the weeks of the validation rows, and what it cost.
    """
    source = prepare.make(recipe.data)[0]
    path, found = train_file(name, recipe, source, OUT / "fev", label)
    known = source.windows("validation", HORIZON)[1]
    before = [source.x["train"]] * len(known)
    validation = score(before, known, *forecasts(path, source, "validation", HORIZON))
    scores = score(*cut_windows(values), *forecasts(path, source, "test", HORIZON))
    return found | scores | {"validation": validation["sql"]}


def forecasts(path: Path, source: dataset.Data, split: str, stride: int) -> list[np.ndarray]:
    """Return what a model file answers to every so many windows of a split, as float64."""
    x = source.served(split)[::stride]
    return [output.astype(np.float64) for output in predict(load_file(path, "cpu"), x, 256)]


# Of a run's facts; an ensemble that picks has those of its members as well.
MEANS = ("sql", "mase", "inside", "validation", "parameters", "seconds")


def results_table(naive: Scores, runs: dict[str, list[dict[str, Any]]], series: list[str]) -> str:
    """Return the published rows, those of both series, and ours of `series`, as Markdown."""
    ours = " and ".join(series)
    titles = ["forecaster", "series", "SQL", "MASE", "SQL / naive", "MASE / naive"]
    titles += ["inside the 80 % interval", "validation SQL", "parameters", "seconds, one core"]
    lines = [f"| {' | '.join(titles)} |", f"| --- | --- {'| ---: ' * (len(titles) - 2)}|"]

    def row(
        name: str, of: str, sql: float, mase: float, base: tuple[float, float], *more: str
    ) -> str:
        cells = [name, of, *(f"{x:.3f}" for x in (sql, mase, sql / base[0], mase / base[1]))]
        cells += [*more] + [""] * (len(titles) - len(cells) - len(more))
        return f"| {' | '.join(cells)} |"

    for name, (sql, mase) in PUBLISHED.items():
        lines.append(row(f"{name}, published", "ETTh1 and ETTh2", sql, mase, PUBLISHED[NAIVE]))
    base = naive["sql"], naive["mase"]
    lines.append(row(f"{NAIVE}, here", ours, *base, base, f"{naive['inside']:.3f}"))
    for name, found in runs.items():
        mean = {key: float(np.mean([one[key] for one in found])) for key in MEANS}
        more = [f"{mean['inside']:.3f}", f"{mean['validation']:.3f}"]
        more += [f"{mean['parameters']:,.0f}", f"{mean['seconds']:.0f}"]
        lines.append(row(name, ours, mean["sql"], mean["mase"], base, *more))
    return "\n".join(lines)


@click.command()
@click.option("--etth1", "first", default="series/ETTh1.csv", show_default=True)
@click.option("--etth2", "second", default="series/ETTh2.csv", show_default=True)
@click.option("--seed", "seeds", multiple=True, type=int, default=(1, 2, 3))
def main(first: str, second: str, seeds: tuple[int, ...]) -> None:
    """Make the runs that are not there yet and write their table to results/fev.md.

    Of two files the one that is not there is left out, and the table says so. Scores are means over
    files and seeds.
    """
    files = {"ETTh1": located(first), "ETTh2": located(second)}
    there = [name for name, path in files.items() if path.is_file()]
    if not there:
        raise click.ClickException(f"expected one of {first}, {second} here or below DATA_ROOT")
    naive: list[Scores] = []
    runs: dict[str, list[dict[str, Any]]] = {title: [] for title in RECIPES}
    try:
        every = params.load()
        for series in there:
            table = read_csv(files[series], columns=COLUMNS, time="date", id=None, gaps="error")
            values = table.series[0].values
            past, target = cut_windows(values)
            naive.append(score(past, target, *naive_forecasts(past)))
            for title, name in RECIPES.items():
                for seed in seeds:
                    recipe = recipe_for(name, files[series], len(values), seed, every)
                    runs[title].append(run(name, recipe, values, f"{series} {title}, seed {seed}"))
    except (ParamsError, StageError, ServeError) as error:
        raise click.ClickException(str(error)) from error
    mean = {key: float(np.mean([one[key] for one in naive])) for key in naive[0]}
    absent = "".join(f" {name} was not there." for name in files if name not in there)
    about = f"Rows `here` are of {' and '.join(there)}, {len(seeds)} seeds.{absent}"
    head = __doc__.split("\n\n    python")[0]
    text = f"# fev-bench, ETT_1H\n\n{head}\n\n{about} {machine.describe_machine()['cpu']}, one thread.\n"
    text += f"\n{results_table(mean, runs, there)}\n"
    (RESULTS / "fev.md").write_text(text, encoding="utf-8")
    click.echo(text)


if __name__ == "__main__":
    main()
