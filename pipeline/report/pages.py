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

from pipeline.core.errors import StageError
from pipeline.params import schema
from pipeline.plots import style, vega
from pipeline.report import (
    browser_demo,
    claims,
    comparison,
    entry_page,
    entry_tables,
    index_page,
    metrics_page,
    study_pages,
    tables,
    unit_view,
)
from pipeline.report.result_files import Entry, Study

# Files of templates/ that are written into each page.
INLINED = (
    "style.css",
    "page.js",
    "compare.js",
    "runtime.js",
    "live.js",
    "live_images.js",
    "inside.js",
)
README_MARKS = ("<!-- results: `make readme` writes this table -->", "<!-- /results -->")
CLAIMS_MARKS = ("<!-- claims: `make readme` writes these tables -->", "<!-- /claims -->")


RESULTS_README = """# Results

`python -m pipeline.report` writes this file: every entry of `line` in params.yaml (size: {size}) on
its test split, with 95 % confidence intervals in brackets. Timings differ between runs, so they are
in out/report/index.html only; out/report/metrics.html says what each metric means. "pending": the
stage has not run yet. ✗: a metric that is no better than that of the best baseline, a coverage that
is certainly not the nominal one, or int8 that loses too much accuracy; ?: the test images are too
few to say so.

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
    study_results = [Study(name, root, study) for name, study in studies.items()]
    write = page_writer(site)
    for entry in entries:
        context = entry_page.entry_context(entry, site / "img")
        write("entry", entry.name, context)
        write("explain", context["explain_page"], context)
    write("index", "index", {"size": size, **index_page.index_context(entries, site / "img")})
    write("model_files", "model_files", index_page.files_context(entries, site / "img"))
    write("explanation_quality", "explanation_quality", index_page.explanations_context(entries))
    write("metrics", "metrics", metrics_page.metrics_context())
    contexts = study_pages.study_contexts(study_results, site / "img")
    write("studies", "studies", {"items": contexts})
    for context in contexts:
        write("study", study_pages.page_name(context["study"].name), context)
    write("compare", "compare", comparison.write_comparison(entries, site))
    write("claims", "claims", {**claims.claims_context(root), "studies": list(studies)})
    missing = browser_demo.write_runtime(entries, site, root / "out" / "downloads")
    write("live", "live", browser_demo.write_demo(entries, site, missing))
    write("inside", "inside", unit_view.write_unit_views(entries, site, missing))
    summary = entry_tables.summary_markdown(entries)
    (root / "results").mkdir(exist_ok=True)
    (root / "results" / "README.md").write_text(
        RESULTS_README.format(size=size, table=summary), encoding="utf-8"
    )
    (site / "table.txt").write_text(entry_tables.plain_text(entries), encoding="utf-8")
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
        "headings": find_headings,
        "study_page": study_pages.page_name,
        "anchor": lambda text: re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-"),
    }

    def write(kind: str, name: str, context: dict[str, Any]) -> None:
        html = pages.get_template(f"{kind}.html.j2").render(page=name, **context)
        path = site / f"{name}.html"
        if path.exists():
            where = "pipeline/params/schema/recipes.py RESERVED"
            raise StageError(f"report: two pages are named {path.name}; add {name!r} to {where}")
        path.write_text(html, encoding="utf-8")

    return write


def find_headings(html: str) -> list[tuple[str, Markup]]:
    """Return id and title, escaped, of the headings of level 2 that have an id."""
    found = re.findall(r'<h2 id="([^"]+)">([^<]+)</h2>', html)
    return [(name, Markup(title)) for name, title in found]


def format_recipe(recipe: schema.EntryRecipe) -> str:
    """Return the blocks of a recipe that params.yaml has, as indented JSON."""
    blocks = recipe.model_dump(mode="json", include=set(schema.RecipeBlock.model_fields))
    return json.dumps(blocks, indent=2, ensure_ascii=False)


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
