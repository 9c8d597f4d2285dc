"""ETTh1 as the field measures it, beside its published rows: runs are trained, exported, scored as
the file answers.

Rows to 8,640 train, to 11,520 validate, to 14,400 test; values standardised by the training rows;
every test window kept; mean squared and absolute error of standardised values; of the 80 % interval
the share of test targets inside and the interval score. A run is a recipe of params.yaml at one
horizon and seed, of the oil temperature alone or of all seven columns.

Ours is one recipe in every cell, for every file of this form: the mean of three candidates, in
shares. Two are the least-squares map of a window less its mean, of rank 12, with 14 and 21 days of
look-back, each with a bias if this gains more on validation rows than the standard error of its
gain (models/ensemble.py); the third is a dilated net of 14 days, each window less its mean and by
its spread. Candidates that do not follow the level of their window are left out beforehand, since
validation rows do not show what they do beyond the range of the training rows. The net's epoch and
the shares are chosen on validation rows (greedy selection in ten rounds), if these hold ten windows
ahead that do not overlap, as up to 192 hours of ETTh1; else the two maps have half each. Test rows
are scored by the exported file, after all choices.

    python benchmarks/etth1.py     # all of it: an hour on one core; goes on where it stopped
    python benchmarks/etth1.py --task univariate --horizon 96 --seed 1
"""

from __future__ import annotations

import hashlib
import itertools
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))  # runs from a bare checkout, uninstalled

import click
import numpy as np
from convline.errors import ServeError
from convline.loading import load_file

from benchmarks.forecast_file import recipe_of, train_file
from benchmarks.page import write_part
from pipeline.check import machine
from pipeline.check.predictions import predict
from pipeline.core.errors import ParamsError, StageError
from pipeline.core.paths import OUT, RESULTS, located
from pipeline.data import dataset, prepare
from pipeline.evaluate.over_seeds import t_interval
from pipeline.params import load as params

PAGE = RESULTS / "etth1.md"
HORIZONS = (96, 192, 336, 720)
TASKS = {"univariate": "etth1-ot", "multivariate": "etth1"}
NETS = {"ours": "chosen-etth1", "NLinear here": "nlinear-etth1", "DLinear here": "dlinear-etth1"}
# Sha256 of the file that was published.
ETTH1 = "f18de3ad269cef59bb07b5438d79bb3042d3be49bdeecf01c1cd6d29695ee066"
# MSE/MAE at HORIZONS, or MSE. LTSF: Zeng et al. 2023, the repository's LTSF-Benchmark.md. PatchTST:
# Nie et al. 2023, table 3. "all windows": of their code without `drop_last`, which leaves out the
# last batch of test windows; by the FITS repository, README, 25 December 2023. SparseTSF: Lin et al.
# 2024, table 2. Root Purge: Wang et al. 2025, arXiv:2509.23597.
PUBLISHED = {
    "univariate": {
        "NLinear": (".053/.177", ".069/.204", ".081/.226", ".080/.226"),
        "DLinear": (".056/.180", ".071/.204", ".098/.244", ".189/.359"),
    },
    "multivariate": {
        "PatchTST/64": (".370/.400", ".413/.429", ".422/.440", ".447/.468"),
        "NLinear": (".374/.394", ".408/.415", ".429/.427", ".440/.453"),
        "DLinear": (".375/.399", ".405/.416", ".439/.443", ".472/.490"),
        "PatchTST, all windows": (".385", ".413", ".440", ".456"),
        "DLinear, all windows": (".384", ".443", ".446", ".504"),
        "SparseTSF": (".362", ".403", ".434", ".426"),
        "Root Purge": (".359", ".394", ".423", ".421"),
    },
}
Run = dict[str, Any]


def run(name: str, task: str, horizon: int, seed: int, every: params.Params, label: str) -> Run:
    """Return the scores of a recipe at one horizon and seed, whatever params.yaml says of them; its
    file stays under out/etth1.
    """
    layer = {"data": {"set": TASKS[task], "horizon": horizon}, "train": {"seed": seed}}
    recipe = recipe_of(name, layer, every)
    source = prepare.make(recipe.data)[0]
    path, found = train_file(name, recipe, source, OUT / "etth1", label)
    validation = score(path, source, "validation")["mse"]
    return found | score(path, source, "test") | {"validation": validation}


def score(path: Path, source: dataset.Data, split: str) -> Run:
    """Return the errors of a model file over every window of a split, of standardised values.

    `inside` is the share of targets within the interval between the outermost quantiles, and
    `interval_score` the mean of that interval's score.
    """
    forecast, quantiles = predict(load_file(path, "cpu"), source.served(split), 256)
    target = source.windows(split, source.about["stride"])[1]
    error = (forecast.astype(np.float64) - target) * source.scale
    low, high = quantiles[..., 0], quantiles[..., -1]
    outside = 2 * source.about["forecast"]["quantiles"][0]
    scores = interval_score(low * source.scale, high * source.scale, target * source.scale, outside)
    return {
        "mse": float((error**2).mean()),
        "mae": float(np.abs(error).mean()),
        "inside": float(((low <= target) & (target <= high)).mean()),
        "interval_score": float(scores.mean(dtype=np.float64)),
        "windows": len(target),
    }


def interval_score(
    low: np.ndarray, high: np.ndarray, target: np.ndarray, outside: float
) -> np.ndarray:
    """Return the score of each interval: its width, and 2 / `outside` times what a target is beyond
    it. `outside` is the share of targets that should be, .2 of an 80 % interval.

    Gneiting & Raftery 2007, "Strictly proper scoring rules, prediction, and estimation", eq. 43.
    """
    beyond = np.maximum(low - target, 0) + np.maximum(target - high, 0)
    return high - low + 2 / outside * beyond


def cell(runs: list[Run]) -> str:
    """Return MSE and MAE, each the mean over seeds, and the 95 % t interval of the first."""
    mse, mae = ([run[kind] for run in runs] for kind in ("mse", "mae"))
    mean, low, high = t_interval(mse, "count")
    apart = f" [{low:.3f}, {high:.3f}]" if len(runs) > 1 else ""
    return f"{mean:.3f}{apart}/{np.mean(mae):.3f}".replace("0.", ".")


def is_etth1(path: Path) -> bool:
    """Return whether the file is ETTh1 as published, on which alone the published rows were
    measured.
    """
    return hashlib.sha256(path.read_bytes()).hexdigest() == ETTH1


def tables(
    found: dict[tuple[str, str, int], list[Run]], rows: dict[str, dict[str, tuple[str, ...]]]
) -> str:
    """Return a table for each task, by horizon, and one of what the runs cost; a cell without runs
    is empty.

    rows: the published ones by task, which stand beside ours.
    """
    lines = []
    for task, published in rows.items():
        titles = ["horizon", *(f"{title}, published" for title in published), *NETS]
        lines += [
            f"\n{task}, MSE/MAE\n",
            f"| {' | '.join(titles)} |",
            "| ---: " * len(titles) + "|",
        ]
        for k, horizon in enumerate(HORIZONS):
            cells = [cells[k] for cells in published.values()]
            cells += [
                cell(found[name, task, horizon]) if (name, task, horizon) in found else ""
                for name in NETS
            ]
            lines.append(f"| {horizon} | {' | '.join(cells)} |")
        titles = ["run", "parameters", "epochs", "seconds, one core", "validation MSE"]
        titles += ["inside the 80 % interval", "interval score"]
        lines += [f"\n| {' | '.join(titles)} |", f"| --- {'| ---: ' * (len(titles) - 1)}|"]
        for (name, of, horizon), runs in found.items():
            if of == task:
                facts = [
                    f"{np.mean([run[key] for run in runs]):,.0f}"
                    for key in ("parameters", "epochs", "seconds")
                ]
                facts += [
                    f"{np.mean([run[key] for run in runs]):.3f}"
                    for key in ("validation", "inside", "interval_score")
                ]
                lines.append(f"| {horizon}: {name} | {' | '.join(facts)} |")
        lines += chosen(
            {
                horizon: runs
                for (name, of, horizon), runs in found.items()
                if (name, of) == ("ours", task)
            }
        )
    return "\n".join(lines)


def chosen(cells: dict[int, list[Run]]) -> list[str]:
    """Return a table of the members' shares and errors on validation rows, means over the seeds of
    each horizon; none where nothing was chosen.
    """
    labels = [label for runs in cells.values() for label in runs[0]["members"]]
    labels = list(dict.fromkeys(labels))
    if not labels:
        return []
    lines = [
        f"\n| share, validation MSE | {' | '.join(labels)} |",
        f"| ---: {'| ---: ' * len(labels)}|",
    ]
    for horizon, runs in cells.items():
        members = [[run["members"][label] for run in runs] for label in labels]
        row = [
            f"{np.mean([one['share'] for one in of]):.2f}, "
            f"{np.mean([one['validation_mse'] for one in of]):.4f}"
            for of in members
        ]
        lines.append(f"| {horizon} | {' | '.join(row)} |")
    return lines


@click.command()
@click.option("--task", "tasks", multiple=True, type=click.Choice(list(TASKS)), default=list(TASKS))
@click.option("--horizon", "horizons", multiple=True, type=int, default=HORIZONS)
@click.option("--seed", "seeds", multiple=True, type=int, default=(1, 2, 3))
def main(tasks: tuple[str, ...], horizons: tuple[int, ...], seeds: tuple[int, ...]) -> None:
    """Make the runs that are not there yet and write their tables between the marks of
    results/etth1.md, whose other text stays.

    Of another file than ETTh1 the table goes to out/etth1/, without the published rows, which are
    not of it.
    """
    try:
        every = params.load()
        path = located(every.sets["etth1"].path)
        found: dict[tuple[str, str, int], list[Run]] = {}
        for task, horizon, (title, name) in itertools.product(tasks, horizons, NETS.items()):
            label = f"{task} {horizon} {title}, one of {len(seeds)}"
            runs = [run(name, task, horizon, seed, every, label) for seed in seeds]
            found[title, task, horizon] = runs
        about = f"Brackets: 95 % t interval over {len(seeds)} seeds. {machine.describe_machine()['cpu']}, one thread."
        if is_etth1(path):
            text = f"{about}\n{tables(found, PUBLISHED)}"
            write_part(PAGE, "protocol", __doc__.rpartition("\n\n")[0])
            write_part(PAGE, "tables", text)
        else:
            what = f"{path.name} is not the published ETTh1 (its sha256 is another): published rows are left out."
            rows: dict[str, dict[str, tuple[str, ...]]] = {task: {} for task in PUBLISHED}
            text = f"# {path.stem}\n\n{what}\n\n{about}\n{tables(found, rows)}\n"
            (OUT / "etth1" / f"{path.stem}.md").write_text(text, encoding="utf-8")
    except (ParamsError, StageError, ServeError) as error:
        raise click.ClickException(str(error)) from error
    click.echo(text)


if __name__ == "__main__":
    main()
