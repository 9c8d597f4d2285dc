"""Write the report: collect the context of each page, render the templates, copy the pictures."""

from __future__ import annotations

import functools
import json
import re
import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime
from functools import partial
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


@dataclass(frozen=True)
class Report:
    """What a report is made of; `made`: when, as its pages say."""

    entries: list[Entry]
    studies: list[Study]
    root: Path
    size: str
    made: str

    @property
    def site(self) -> Path:
        return self.root / "out" / "report"

    @property
    def img(self) -> Path:
        return self.site / "img"

    @property
    def write(self) -> Callable[[str, str, dict[str, Any]], None]:
        return page_writer(self.site, self.made)


def build_report(
    line: list[str],
    recipes: dict[str, schema.EntryRecipe],
    studies: dict[str, schema.Study],
    root: Path,
    size: str = "small",
    each: Callable[..., Iterable[object]] = map,
) -> Path:
    """Write out/report/ and results/README.md under `root`; return the index page.

    each: calls a function with each of some values, as `map` does, in processes or in this one.
    """
    report = Report(
        [Entry(name, recipes[name], root) for name in line],
        [Study(name, root, study) for name, study in studies.items()],
        root,
        size,
        datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z"),
    )
    if report.site.exists():
        shutil.rmtree(report.site)  # removes the pages of entries that are not in the line any more
    report.img.mkdir(parents=True)
    parts = [write_model_pages, write_overviews, write_study_pages]
    entries = [partial(write_entry, entry=entry) for entry in report.entries]
    for _ in each(partial(write_part, report), [*parts, *entries]):
        pass
    return report.site / "index.html"


def write_part(report: Report, part: Callable[[Report], None]) -> None:
    part(report)


def write_entry(report: Report, entry: Entry) -> None:
    """Write the page of an entry, and that of what it sees."""
    context = entry_page.entry_context(entry, report.img)
    report.write("entry", entry.name, context)
    report.write("explain", context["explain_page"], context)


def write_overviews(report: Report) -> None:
    """Write the pages and tables of all entries."""
    entries, img, size = report.entries, report.img, report.size
    report.write("index", "index", {"size": size, **index_page.index_context(entries, img)})
    report.write("model_files", "model_files", index_page.files_context(entries, img))
    explanations = index_page.explanations_context(entries)
    report.write("explanation_quality", "explanation_quality", explanations)
    report.write("compare", "compare", comparison.write_comparison(entries, report.site))
    summary = entry_tables.summary_markdown(entries)
    (report.root / "results").mkdir(exist_ok=True)
    (report.root / "results" / "README.md").write_text(
        RESULTS_README.format(size=size, table=summary), encoding="utf-8"
    )
    (report.site / "table.txt").write_text(entry_tables.plain_text(entries), encoding="utf-8")


def write_study_pages(report: Report) -> None:
    """Write the pages of studies, claims and metrics, and the library of the charts."""
    (report.site / vega.LIBRARY).write_text(vega.javascript_library(), encoding="utf-8")
    contexts = study_pages.study_contexts(report.studies, report.img)
    report.write("studies", "studies", {"items": contexts})
    for context in contexts:
        report.write("study", study_pages.page_name(context["study"].name), context)
    names = [study.name for study in report.studies]
    report.write("claims", "claims", {**claims.claims_context(report.root), "studies": names})
    report.write("metrics", "metrics", metrics_page.metrics_context())


def write_model_pages(report: Report) -> None:
    """Write the pages that run packaged models, and the runtime."""
    entries, site = report.entries, report.site
    missing = browser_demo.write_runtime(entries, site, report.root / "out" / "downloads")
    report.write("live", "live", browser_demo.write_demo(entries, site, missing))
    report.write("inside", "inside", unit_view.write_unit_views(entries, site, missing))


@functools.cache
def page_writer(site: Path, made: str = "") -> Callable[[str, str, dict[str, Any]], None]:
    """Return a function write(kind, name, context) that renders templates/<kind>.html.j2.

    made: when, as the pages say.
    """
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
        try:  # another process may write a page now, so none is looked for before
            with path.open("x", encoding="utf-8") as file:
                file.write(html)
        except FileExistsError:
            where = "pipeline/params/schema/recipes.py RESERVED"
            what = f"two pages are named {path.name}; add {name!r} to {where}"
            raise StageError(f"report: {what}") from None

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
