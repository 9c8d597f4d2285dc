"""The tables of entries, one for each task: on the index, in README.md, and in a terminal."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

from pipeline.evaluate.metric_catalogue import CATALOGUE
from pipeline.plots.style import format_number
from pipeline.report.result_files import Entry
from pipeline.report.tables import (
    PENDING,
    Cell,
    Column,
    Table,
    device_name,
    format_with_prefix,
    markdown,
    metric_cell,
    padded_text,
    verdict_cell,
    without_columns,
)
from pipeline.report.tasks import TASKS


def entry_tables(entries: list[Entry], *, timings: bool) -> dict[str, Table]:
    """Return a table of entries for each task, by title; its groups are the data sets."""
    tables = {}
    for name, task in TASKS.items():
        if members := [entry for entry in entries if entry.task == name]:
            groups = group_by_data(members)
            ranked = [entry for group in groups.values() for entry in group]
            table = entry_table(ranked, timings=timings)
            tables[task.TITLE] = replace(table, groups=first_rows(groups))
    return tables


def group_by_data(entries: list[Entry]) -> dict[str, list[Entry]]:
    """Return the entries by the description of their data; the best of each group comes first."""
    groups: dict[str, list[Entry]] = {}
    for entry in entries:
        groups.setdefault(describe_data(entry), []).append(entry)
    return {title: sorted(group, key=rank) for title, group in groups.items()}


def first_rows(groups: dict[str, list[Entry]]) -> dict[int, str]:
    """Return {number of a group's first row: its title} of groups with one row for each entry."""
    starts = itertools.accumulate((len(group) for group in groups.values()), initial=0)
    return dict(zip(starts, groups, strict=False))


def rank(entry: Entry) -> float:
    """Return a number that is lower for a better entry of the same data; pending ones are last."""
    if not entry.metric:
        return math.inf
    value = float(entry.metric["value"])
    return -value if CATALOGUE[entry.metric["name"]].better == "higher" else value


def describe_data(entry: Entry) -> str:
    """Return e.g. "digits (10 classes, 360 test images)"; the name alone before stage data."""
    if not (about := entry.results.get("data")):
        return str(entry.recipe.data.set)
    task = TASKS[entry.task]
    counts = f"{task.describe_targets(about)}, {task.describe_test(about)}"
    return f"{entry.recipe.data.set} ({counts})"


def entry_table(entries: list[Entry], *, timings: bool) -> Table:
    """Return one row per entry. Without timings, the same results give the same table."""
    providers = list(dict.fromkeys(name for entry in entries for name in entry.latencies))
    providers = providers if timings else []
    tasks = list(dict.fromkeys(entry.task for entry in entries))
    first, last = ([key for task in tasks for key in TASKS[task].METRICS[k]] for k in (0, 1))
    costs = [("Parameters", "parameters"), ("MACs", "macs"), ("File", "file")]
    latencies = [(f"{device_name(name)}\u00a0p50, batch\u00a01", "p50") for name in providers]
    columns = [
        Column("Entry"),
        *map(metric_column, first),
        Column("Served = trained", explained="served-trained"),
        Column("Data"),
        Column("Architecture"),
        *[Column(title, number=True, explained=anchor) for title, anchor in (*costs, *latencies)],
        *map(metric_column, last),
    ]
    return Table(columns, [entry_row(entry, providers, first, last) for entry in entries])


def metric_column(key: str) -> Column:
    """Return the column of a metric; [95 %] says that its cells hold an interval."""
    metric = CATALOGUE[key]
    title = f"{metric.title} [95\u00a0%]" if metric.interval else metric.title
    return Column(title, number=True, explained=key.replace("_", "-"))


def entry_row(entry: Entry, providers: list[str], first: list[str], last: list[str]) -> list[Cell]:
    """Return the cells of one entry; results that do not exist yet are marked pending."""
    train, export = entry.results.get("train"), entry.results.get("export")
    missing = Cell(PENDING, state="pending")
    return [
        Cell(entry.name, entry.name, link=f"{entry.name}.html"),
        *[metric_cell(entry, key) for key in first],
        served_cell(entry),
        Cell(str(entry.recipe.data.set), str(entry.recipe.data.set)),
        Cell(entry.network_description, entry.network_description),
        Cell(f"{train['parameters']:,}", train["parameters"]) if train else missing,
        Cell(format_with_prefix(train["macs"]).strip(), train["macs"]) if train else missing,
        Cell(format_with_prefix(export["bytes"]) + "B", export["bytes"]) if export else missing,
        *[latency_cell(entry.latencies.get(n)) if entry.latencies else missing for n in providers],
        *[metric_cell(entry, key) for key in last],
    ]


def served_cell(entry: Entry) -> Cell:
    """Return whether the packaged command reaches the checked metric, and what hinders it."""
    check, infer = entry.results.get("check"), entry.results.get("infer")
    if check and not check["passed"]:
        return Cell("✗ check failed", 0, "bad")
    return verdict_cell(infer["equal"], "yes", "no") if infer else Cell(PENDING, state="pending")


def latency_cell(p50_ms: float | None) -> Cell:
    return Cell("–") if p50_ms is None else Cell(f"{format_number(p50_ms)} ms", p50_ms)


def summary_markdown(entries: list[Entry]) -> str:
    """Return the tables of README.md as Markdown, and a line for each entry that failed a test.

    They have no timings, which do not repeat, and no column for the two tests that entries pass.
    """
    parts = []
    for title, table in entry_tables(entries, timings=False).items():
        kept = without_columns(table, ("MACs", "Served = trained"))
        parts.append(f"### {title}\n\n{markdown(kept)}")
    return "\n".join([*parts, *(f"{sentence}\n" for sentence in failed_tests(entries))])


def failed_tests(entries: list[Entry]) -> list[str]:
    """Return a Markdown sentence for each entry that stages check or infer refused."""
    sentences = []
    for entry in entries:
        check, infer = entry.results.get("check"), entry.results.get("infer")
        if check and not check["passed"]:
            sentences.append(f"**✗ {entry.name}**: stage check refused it: {check['verdict']}.")
        if infer and not infer["equal"]:
            meaning = "the packaged command does not reach the checked metric"
            sentences.append(f"**✗ {entry.name}** (Served = trained): {meaning}.")
    return sentences


def plain_text(entries: list[Entry]) -> str:
    """Return the tables for a terminal: padded columns, without those that do not fit."""
    parts = []
    for title, table in entry_tables(entries, timings=True).items():
        kept = without_columns(table, ("Architecture", "MACs"))
        parts.append(f"{title}\n{padded_text(kept)}\n")
    return "\n".join(parts)
