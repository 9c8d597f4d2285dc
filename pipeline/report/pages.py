"""Write the report: collect the context of each page, render the templates, copy the pictures."""

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

from pipeline.params import schema
from pipeline.plots import forecasts, style, vega
from pipeline.plots.learning_curves import draw_learning_curve, draw_small_loss_curve, loss_limits
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
from pipeline.report.result_files import STAGE_OF_FILE, Entry, Study

# Files of templates/ that are written into each page.
INLINED = ("style.css", "page.js", "compare.js", "live.js")
TASK_TITLES = {"classification": "Classification", "forecasting": "Forecasting", None: "Pending"}
README_MARKS = ("<!-- results: `make readme` writes this table -->", "<!-- /results -->")
CLAIMS_MARKS = ("<!-- claims: `make readme` writes these tables -->", "<!-- /claims -->")


RESULTS_README = """# Results

`python -m pipeline.report` writes this file: every entry of `line` in params.yaml (size: {size}) on
its test split, with 95 % confidence intervals in brackets. Timings differ between runs, so they are
in out/report/index.html only. "pending": the stage has not run yet. A metric with ✗ is no better
than that of the best baseline.

{table}"""


def build_report(
    line: list[str],
    recipes: dict[str, schema.EntryRecipe],
    studies: dict[str, schema.Study],
    root: Path,
    size: str = "small",
) -> Path:
    """Write out/report/ and results/README.md under `root`; return the index page."""
    entries = [Entry(name, recipes[name], root) for name in line]
    site = root / "out" / "report"
    if site.exists():
        shutil.rmtree(site)  # removes the pages of entries that are not in the line any more
    (site / "img").mkdir(parents=True)
    (site / vega.LIBRARY).write_text(vega.javascript_library(), encoding="utf-8")
    study_results = [Study(name, study.claim, root) for name, study in studies.items()]
    write = page_writer(site)
    for entry in entries:
        write("entry", entry.name, entry_context(entry, site / "img"))
    write("index", "index", {"size": size, **index_context(entries, study_results, site / "img")})
    write("compare", "compare", {"entries": line, "facts": comparison.comparison_data(entries)})
    write("claims", "claims", {**claims.claims_context(root), "studies": list(studies)})
    write("live", "live", browser_demo.write_demo(entries, site, root / "out" / "downloads"))
    summary = tables.summary_markdown(entries)
    (root / "results").mkdir(exist_ok=True)
    (root / "results" / "README.md").write_text(
        RESULTS_README.format(size=size, table=summary), encoding="utf-8"
    )
    text = tables.plain_text(tables.entry_table(entries, timings=True))
    (site / "table.txt").write_text(f"{text}\n", encoding="utf-8")
    return site / "index.html"


def page_writer(site: Path) -> Callable[[str, str, dict[str, Any]], None]:
    """Return a function write(kind, name, context) that renders templates/<kind>.html.j2."""
    pages = jinja2.Environment(
        loader=jinja2.FileSystemLoader(vega.TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    for file in INLINED:  # markup: these are our own files, so they are not escaped
        text = (vega.TEMPLATES / file).read_text(encoding="utf-8")
        pages.globals[file.replace(".", "_")] = Markup(text)
    made = datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z")
    pages.globals |= {"made": made, "library": vega.LIBRARY}
    pages.policies["json.dumps_kwargs"] = {"sort_keys": False}
    pages.filters |= {
        "scaled": tables.format_with_prefix,
        "three": style.format_number,
        "device": tables.device_name,
        "percent": lambda share: f"{100 * share:.0f}\u00a0%",
        "pretty": format_recipe,
        "anchor": lambda text: re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-"),
    }

    def write(kind: str, name: str, context: dict[str, Any]) -> None:
        html = pages.get_template(f"{kind}.html.j2").render(**context)
        (site / f"{name}.html").write_text(html, encoding="utf-8")

    return write


def format_recipe(recipe: schema.EntryRecipe) -> str:
    """Return the blocks of a recipe that params.yaml has, as indented JSON."""
    blocks = recipe.model_dump(mode="json", include=set(schema.RecipeBlock.model_fields))
    return json.dumps(blocks, indent=2, ensure_ascii=False)


def index_context(entries: list[Entry], studies: list[Study], img: Path) -> dict[str, Any]:
    """Return the context of index.html.j2."""
    groups: list[dict[str, Any]] = []
    for task, title in TASK_TITLES.items():
        if members := [entry for entry in entries if entry.task == task]:
            table = tables.entry_table(members, timings=True)
            groups.append({"title": title, "table": table, "curves": small_curves(members, img)})
    pending = {entry.name: entry for entry in entries if entry.pending_stages}
    machines = [entry.results["speed"]["machine"] for entry in entries if "speed" in entry.results]
    return {
        "groups": groups,
        "entries": len(entries),
        "worse": {entry.name: entry.worse_than for entry in entries if entry.worse_than},
        "matrix": tradeoff_plots.file_table(entries),
        "verdicts": tradeoff_plots.draw_tradeoffs(entries, img),
        "landscape": published_comparison.draw_comparison(entries, img),
        "depths": published_comparison.ilsvrc_rows(),
        "explanations": tables.attribution_summary_rows(entries),
        "pending": pending,
        "studies": [study_context(study, img) for study in studies],
        "machines": [machine for i, machine in enumerate(machines) if machine not in machines[:i]],
    }


def small_curves(entries: list[Entry], img: Path) -> list[tuple[str, Picture]]:
    """Return (entry name, loss curve) of each trained entry, all on one scale."""
    histories = {e.name: e.history for e in entries if e.has_epochs and e.history}
    limits = loss_limits(histories.values())
    best = {entry.name: best_epoch(entry) for entry in entries}
    return [
        (name, draw_small_loss_curve(history, best[name], limits, img / f"{name}.loss.png"))
        for name, history in histories.items()
    ]


def best_epoch(entry: Entry) -> int | None:
    return entry.results.get("train", {}).get("best_epoch")


def study_context(study: Study, img: Path) -> dict[str, Any]:
    """Return one study and its plot."""
    alt = f"Result of the study {study.name}; the table beside it holds the same numbers."
    path, source = img / f"study.{study.name}.png", study.picture
    return {"study": study, "picture": style.copy_picture(source, path, alt) if source else None}


def entry_context(entry: Entry, img: Path) -> dict[str, Any]:
    """Return the context of entry.html.j2."""
    classifier = entry.task == "classification"
    noise = img / f"{entry.name}.noise.png"
    return {
        "entry": entry,
        "metric": tables.metric_cell(entry.metric) if entry.metric else None,
        "made_of": {file: entry.results.get(file) for file in STAGE_OF_FILE},
        "rows": tables.detail_rows(entry),
        "serve": serve_command(entry),
        "curves": learning_curves(entry, img),
        "classifier": error_analysis.error_context(entry, img) if classifier else None,
        "noise": entry.signal_to_noise and tradeoff_plots.signal_to_noise_plot([entry], noise),
        "forecaster": forecaster_context(entry, img) if entry.task == "forecasting" else None,
        "seen": explain_sections(entry, img),
    }


def explain_sections(entry: Entry, img: Path) -> list[dict[str, Any]]:
    """Copy the pictures of stage explain; return its sections, none if it has not run."""
    sections: list[dict[str, Any]] = []
    for section in entry.explain_sections or []:
        sections.append({"title": section["title"], "pictures": []})
        for drawn in section["pictures"]:
            name = f"{entry.name}.{drawn['file']}"
            shutil.copyfile(entry.picture(drawn["file"]), img / name)
            picture = Picture(name, drawn["width"], drawn["height"], drawn["alt"])
            sections[-1]["pictures"].append({"picture": picture, "caption": drawn["caption"]})
    return sections


def serve_command(entry: Entry) -> str:
    """Return the `infer` command for the raw test files that stage data wrote."""
    raw = f"out/{entry.name}/data/raw"
    if entry.task == "forecasting":
        return f"infer series {entry.name} {raw}/*.csv"
    return f"infer images {entry.name} {raw}"


def learning_curves(entry: Entry, img: Path) -> list[Picture]:
    """Return a chart over epochs of loss and accuracy, as far as training recorded them."""
    history = (entry.history or []) if entry.has_epochs else []
    recorded, drawn = history[0] if history else {}, []
    for measure in [m for m in ("loss", "accuracy") if f"validation_{m}" in recorded]:
        path = img / f"{entry.name}.curve-{measure}.png"
        drawn.append(draw_learning_curve(history, measure, best_epoch(entry), path))
    return drawn


def forecaster_context(entry: Entry, img: Path) -> dict[str, Any] | None:
    """Return the plots of the backtest and the numbers of their captions.

    None before stage check has run.
    """
    if entry.predictions is None or entry.metric is None:
        return None
    predictions, about, baselines = (
        entry.predictions,
        entry.results["data"],
        entry.metric["baselines"],
    )
    columns, bounds, first = about["columns"], entry.array("test_y"), predictions["residuals"][:, 0]
    files = ("forecasts", "along", "steps", "residuals")
    examples, along, steps, residuals = (img / f"{entry.name}.{file}.png" for file in files)
    rows = None
    if bounds is not None and len(bounds) == 2:  # several series have no common time axis
        rows = forecasts.draw_test_rows(predictions, columns, about["stride"], along)
    return {
        "examples": forecasts.draw_examples(predictions, columns, examples),
        "along": rows,
        "steps": forecasts.draw_errors_by_step(predictions, list(baselines), steps),
        "residuals": forecasts.draw_residuals(first, columns[0], residuals),
        "column": columns[0],
        "memory": float(forecasts.autocorrelation(first, 1)[0]),
        "noise": 1.96 / len(first) ** 0.5,
        "bias": float(first.mean() / (first.std() or 1)),
    }


def update_docs(root: Path) -> None:
    """Write the measured tables of README.md and docs/lecture-notes.md under `root`."""
    results = (root / "results" / "README.md").read_text(encoding="utf-8")
    table = results.split("\n\n", 2)[2].strip()
    replace_between(root / "README.md", README_MARKS, table)
    replace_between(root / "docs" / "lecture-notes.md", CLAIMS_MARKS, claims.claims_markdown(root))


def replace_between(page: Path, marks: tuple[str, str], content: str) -> None:
    """Replace what a page holds between two marks."""
    head, rest = page.read_text(encoding="utf-8").split(marks[0], 1)
    tail = rest.split(marks[1], 1)[1]
    page.write_text(f"{head}{marks[0]}\n\n{content}\n\n{marks[1]}{tail}", encoding="utf-8")
