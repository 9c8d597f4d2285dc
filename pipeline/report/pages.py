"""The report's pages, from the files that the stages wrote."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from pipeline.plots import forecasts as fans
from pipeline.plots import style, vega
from pipeline.plots.style import Picture
from pipeline.report import (
    browser_demo,
    claims,
    comparison,
    error_analysis,
    published_comparison,
    tables,
    tradeoff_plots,
)
from pipeline.report.results import MAKERS, Entry, Study

OURS = ("style.css", "page.js", "compare.js", "live.js")  # put into the pages


TASKS = {"classification": "Classification", "forecasting": "Forecasting", None: "Not made yet"}


MARKS = ("<!-- results: `make readme` writes this table -->", "<!-- /results -->")


README = """# Results

Written by `python -m pipeline.report`: every entry of `line` in params.yaml (size: {size}) on its test split, in
brackets its 95 % interval. Timings differ from run to run and stand in out/report/index.html only; "pending" is not
made yet.

{table}"""


def build(
    line: list[str],
    recipes: dict[str, dict],
    studies: dict[str, dict],
    root: Path,
    size: str = "small",
) -> str:
    """Write out/report/ and results/README.md under `root`; return the table of entries as text.

    studies: name -> {"claim": ...}, those to show
    """
    entries = [Entry(name, recipes[name], root) for name in line]
    site = root / "out" / "report"
    if site.exists():
        shutil.rmtree(site)  # the page of a removed entry must not survive
    (site / "img").mkdir(parents=True)
    (site / vega.LIBRARY).write_text(vega.library(), encoding="utf-8")
    shown = [Study(name, study["claim"], root) for name, study in studies.items()]
    write = writer(site)
    for entry in entries:
        write("entry", entry.name, entry_page(entry, site / "img"))
    write("index", "index", {"size": size, **index_page(entries, shown, site / "img")})
    write("compare", "compare", {"entries": line, "facts": comparison.facts(entries)})
    write("claims", "claims", {**claims.ledger(root), "studies": list(studies)})
    write("live", "live", browser_demo.write(entries, site, root / "out" / "downloads"))
    summary = tables.markdown(tables.entry_table(entries, timings=False))
    (root / "results").mkdir(exist_ok=True)
    (root / "results" / "README.md").write_text(
        README.format(size=size, table=summary), encoding="utf-8"
    )
    return tables.text(tables.entry_table(entries, timings=True))


def writer(site: Path) -> Callable[[str, str, dict[str, Any]], None]:
    """Return what fills templates/<kind>.html.j2, everything escaped, style and script in it, and writes the page."""
    pages = jinja2.Environment(
        loader=jinja2.FileSystemLoader(vega.TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    pages.globals |= {file.replace(".", "_"): inline(file) for file in OURS}
    pages.globals |= {
        "made": datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z"),
        "library": vega.LIBRARY,
    }
    pages.policies["json.dumps_kwargs"] = {"sort_keys": False}
    pages.filters |= {
        "scaled": tables.scaled,
        "three": tables.three,
        "device": tables.short_provider,
    }
    pages.filters["percent"] = lambda share: f"{100 * share:.0f}\u00a0%"
    pages.filters["pretty"] = lambda value: json.dumps(value, indent=2, ensure_ascii=False)
    pages.filters["anchor"] = lambda text: re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")

    def write(kind: str, name: str, shown: dict[str, Any]) -> None:
        html = pages.get_template(f"{kind}.html.j2").render(**shown)
        (site / f"{name}.html").write_text(html, encoding="utf-8")

    return write


def inline(file: str) -> Markup:
    """Return one of our own files, not to be escaped."""
    return Markup((vega.TEMPLATES / file).read_text(encoding="utf-8"))


def index_page(entries: list[Entry], studies: list[Study], img: Path) -> dict[str, Any]:
    """Return what index.html.j2 shows."""
    groups = []
    for task, title in TASKS.items():
        members = [entry for entry in entries if entry.task == task]
        if members:
            groups.append(
                {"title": title, "task": task, "table": tables.entry_table(members, timings=True)}
            )
            groups[-1]["curves"] = small_curves(members, img)
    pending = {entry.name: entry for entry in entries if entry.pending}
    machines = [entry.results["speed"]["machine"] for entry in entries if "speed" in entry.results]
    return {
        "groups": groups,
        "entries": len(entries),
        "matrix": tradeoff_plots.matrix(entries),
        "verdicts": tradeoff_plots.pictures(entries, img),
        "landscape": published_comparison.pictures(entries, img),
        "depths": published_comparison.depth_rows(),
        "explanations": tables.explanation_rows(entries),
        "pending": pending,
        "studies": [study_section(study, img) for study in studies],
        "machines": [machine for i, machine in enumerate(machines) if machine not in machines[:i]],
    }


def small_curves(entries: list[Entry], img: Path) -> list[tuple[str, Picture]]:
    """Return (entry name, its loss curve) on one scale, for the entries trained already."""
    trained = [entry for entry in entries if entry.trained]
    limits = style.loss_limits([entry.history for entry in trained])
    return [
        (
            entry.name,
            style.small_curve(
                entry.history, best_epoch(entry), limits, img / f"{entry.name}.loss.png"
            ),
        )
        for entry in trained
    ]


def best_epoch(entry: Entry) -> int | None:
    return entry.results.get("train", {}).get("best_epoch")


def study_section(study: Study, img: Path) -> dict[str, Any]:
    """Return what the index shows of one study."""
    alt = f"Result of the study {study.name}; the table beside it holds the same numbers."
    picture = (
        style.adopt(study.picture, img / f"study.{study.name}.png", alt) if study.picture else None
    )
    return {"study": study, "picture": picture}


def entry_page(entry: Entry, img: Path) -> dict[str, Any]:
    """Return what entry.html.j2 shows."""
    return {
        "entry": entry,
        "metric": tables.metric_cell(entry.metric) if entry.metric else None,
        "made_of": {file: entry.results.get(file) for file in MAKERS},
        "rows": tables.detail_rows(entry),
        "serve": serve_command(entry),
        "curves": learning_curves(entry, img),
        "classifier": error_analysis.section(entry, img)
        if entry.task == "classification"
        else None,
        "noise": tradeoff_plots.noise([entry], img / f"{entry.name}.noise.png")
        if entry.noise
        else None,
        "forecaster": forecaster_part(entry, img) if entry.task == "forecasting" else None,
        "seen": seen_part(entry, img),
    }


def seen_part(entry: Entry, img: Path) -> list[dict[str, Any]]:
    """Return the sections of stage explain, their pictures copied; none before it has run."""
    return [
        {
            "title": section["title"],
            "shown": [shown(entry, found, img) for found in section["shown"]],
        }
        for section in entry.seen or []
    ]


def shown(entry: Entry, found: dict[str, Any], img: Path) -> dict[str, Any]:
    """Return a picture of stage explain under the report's own name, and its caption."""
    name = f"{entry.name}.{found['file']}"
    shutil.copyfile(entry.picture(found["file"]), img / name)
    return {
        "picture": Picture(name, found["width"], found["height"], found["alt"]),
        "caption": found["caption"],
    }


def serve_command(entry: Entry) -> str:
    """Return the command that a user types, on the raw files that stage data has left."""
    raw = f"out/{entry.name}/data/raw"
    forecasts = entry.task == "forecasting"
    return (
        f"infer series {entry.name} {raw}/*.csv"
        if forecasts
        else f"infer images {entry.name} {raw}"
    )


def learning_curves(entry: Entry, img: Path) -> list[Picture]:
    """Return a chart for each measure that training recorded, over epochs; none before it has run."""
    recorded, drawn = entry.history[0] if entry.trained else {}, []
    for measure in [m for m in ("loss", "accuracy") if f"validation_{m}" in recorded]:
        values = [
            {"epoch": row["epoch"], "split": split, "value": row[f"{split}_{measure}"]}
            | {"kept": split == "validation" and row["epoch"] == best_epoch(entry)}
            for row in entry.history
            for split in ("train", "validation")
        ]
        said = f"{measure.capitalize()} by epoch; the last has {values[-1]['value']:.3g} on the validation split."
        path = img / f"{entry.name}.curve-{measure}.png"
        drawn.append(vega.chart("curves", path, said, values=values, title=measure))
    return drawn


def forecaster_part(entry: Entry, img: Path) -> dict[str, Any] | None:
    """Return the pictures of the backtest and what their captions say, or None before check has run."""
    if entry.answers is None or entry.metric is None:
        return None
    answers, about, name = entry.answers, entry.results["data"], f"{entry.name}."
    columns, bounds, first = about["columns"], entry.array("test_y"), answers["residuals"][:, 0]
    one = bounds is not None and len(bounds) == 2  # several series have no one time axis
    return {
        "examples": fans.examples(answers, columns, img / f"{name}forecasts.png"),
        "along": fans.along(answers, columns, about["stride"], img / f"{name}along.png")
        if one
        else None,
        "steps": fans.by_step(answers, list(entry.metric["baselines"]), img / f"{name}steps.png"),
        "residuals": fans.residuals(first, columns[0], img / f"{name}residuals.png"),
        "column": columns[0],
        "memory": float(fans.autocorrelation(first, 1)[0]),
        "noise": 1.96 / len(first) ** 0.5,
        "bias": float(first.mean() / (first.std() or 1)),
    }


def update_readme(readme: Path, results: Path) -> None:
    """Put the table of results/README.md between the marks of the front page, so that both say the same."""
    table_lines = results.read_text(encoding="utf-8").split("\n\n", 2)[2]
    head, rest = readme.read_text(encoding="utf-8").split(MARKS[0], 1)
    tail = rest.split(MARKS[1], 1)[1]
    readme.write_text(
        f"{head}{MARKS[0]}\n\n{table_lines.strip()}\n\n{MARKS[1]}{tail}", encoding="utf-8"
    )
