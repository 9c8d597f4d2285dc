"""Tables: their form, also as Markdown and as plain text, and the rows of many of them."""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from pipeline.evaluate.metric_catalogue import CATALOGUE
from pipeline.plots.style import format_number
from pipeline.report.forecast_verdicts import interval_fault
from pipeline.report.result_files import Entry

PENDING = "pending"
# Adebayo et al. 2018, arXiv:1810.03292, found that the first two pass and the third fails.
SANITY_CHECKED = ("gradient", "Grad-CAM", "guided backpropagation")
DELETION_COMPARED = ("gradient", "integrated gradients", "LIME")


@dataclass(frozen=True)
class Cell:
    """Text, the value to sort by (None sorts last), a state that sets the colour, a link, and a
    note that is shown below the text.
    """

    text: str
    value: float | str | None = None
    state: str = ""  # "", "pending", "good" or "bad"
    link: str = ""
    note: str = ""

    @property
    def line(self) -> str:
        """The text and the note on one line."""
        return f"{self.text}, {self.note}" if self.note else self.text


@dataclass(frozen=True)
class Column:
    """A column title; `number` columns are right-aligned and sorted by value.

    explained: the anchor of metrics.html that says what the column holds, if any.
    """

    title: str
    number: bool = False
    explained: str = ""


@dataclass(frozen=True)
class Table:
    """Columns and rows. groups: row number -> title of the group of rows that begins there."""

    columns: list[Column]
    rows: list[list[Cell]]
    groups: dict[int, str] = field(default_factory=dict)


def metric_cell(entry: Entry, key: str) -> Cell:
    """Return the cell of a metric; ✗ marks what is no better than the best baseline or is refused.

    A dash stands where the metric does not apply to the entry.
    """
    if entry.metric is None:  # stage check may have refused the file before it was measured
        return Cell("–") if "check" in entry.results else Cell(PENDING, state="pending")
    if key not in entry.metrics:
        return Cell("–")
    cell = Cell(metric_text(entry.metrics, key), entry.metrics[key])
    if key == entry.metric["name"] and entry.worse_than:
        return replace(cell, text=f"✗ {cell.text}", state="bad")
    if key == "ratio_to_best_baseline" and entry.best_baseline:
        return replace(cell, note=f"to {entry.best_baseline.name}")
    if key == "coverage":
        return coverage_cell(cell, entry.metric["intervals"][0])
    if by_device := entry.results["check"]["variants"].get(key.partition("_")[0]):
        mark, state = variant_mark([*by_device.values()])
        return replace(cell, text=f"{mark} {cell.text}".lstrip(), state=state)
    return cell


def named_metric(entry: Entry) -> Cell:
    """Return the test metric of a checked entry with its name: "MSE 0.2440 [0.1970, 0.2950]"."""
    assert entry.metric
    cell = metric_cell(entry, entry.metric["name"])
    return replace(cell, text=f"{CATALOGUE[entry.metric['name']].title} {cell.text}")


def metric_text(metrics: dict[str, float], key: str) -> str:
    """Return a metric of metrics.json as text, with its interval if it has one."""
    metric = CATALOGUE[key]
    if not metric.interval:
        return metric.text(metrics[key])
    return metric.interval_text(*(metrics[f"{key}{end}"] for end in ("", "_low", "_high")))


def coverage_cell(cell: Cell, interval: dict[str, float]) -> Cell:
    """Return the cell with the nominal coverage; ✗ marks an interval that is certainly wrong."""
    nominal = f"{interval['nominal']:g}"
    if fault := interval_fault(interval):
        return replace(cell, text=f"✗ {cell.text}", note=f"{fault} for {nominal}", state="bad")
    return replace(cell, note=f"nominal {nominal}")


def variant_mark(verdicts: list[dict[str, Any]]) -> tuple[str, str]:
    """Return the mark and the state of a variant: ? for undecided, ✗ for not accurate enough."""
    if any(verdict["undecided"] for verdict in verdicts):
        return "?", ""
    return ("", "") if all(verdict["accepted"] for verdict in verdicts) else ("✗", "bad")


def verdict_cell(holds: bool, yes: str, no: str) -> Cell:
    return Cell(f"✓ {yes}", 1, "good") if holds else Cell(f"✗ {no}", 0, "bad")


def device_name(name: str) -> str:
    """Return the short name of a provider or device: CPUExecutionProvider and cpu -> CPU."""
    return {"cpu": "CPU", "cuda": "CUDA", "tensorrt": "TensorRT"}.get(
        name, name.removesuffix("ExecutionProvider")
    )


def format_with_prefix(number: float) -> str:
    """Format to 3 significant digits with an SI prefix: 61706 -> '61.7 k'."""
    for factor, prefix in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= 0.9995 * factor:  # 999,500 would print as 1e+03 k
            return f"{format_number(number / factor)} {prefix}"
    return f"{number:.0f} "


def detail_rows(entry: Entry) -> dict[str, list[list[Any]]]:
    """Return the rows of the tables on an entry's page, keyed by table; pending tables are left
    out.
    """
    results = entry.results
    rows: dict[str, list[list[Any]]] = {}
    if "check" in results:
        rows["parity"] = [parity_row(row) for row in results["check"]["rows"]]
    if "speed" in results:
        rows["speed"] = [speed_row(row) for row in results["speed"]["rows"]]
        rows["files"] = [file_row(row) for row in results["speed"]["files"]]
    if results.get("check", {}).get("variants") and "export" in results:
        rows["variants"] = [variant_row(v, results) for v in results["check"]["variants"]]
    if entry.layers:
        rows["layers"] = [layer_row(row) for row in entry.layers]
    if entry.head_search:
        ranked = sorted(entry.head_search["candidates"], key=lambda row: -row["accuracy"])
        kinds = dict.fromkeys(row["kind"] for row in ranked)
        best = [next(row for row in ranked if row["kind"] == kind) for kind in kinds]
        rows["heads"] = [head_row(row) for row in best]
    if entry.metric and "baselines" in entry.metric:
        own = {"mse": entry.metric["value"], "mase": entry.metric["mase"]}
        rivals = {"this entry": own, **entry.metric["baselines"]}
        rows["baselines"] = [baseline_row(name, facts) for name, facts in rivals.items()]
        rows["intervals"] = [interval_row(facts) for facts in entry.metric["intervals"]]
    if methods := entry.attribution_facts.get("methods"):
        rows["explanations"] = [attribution_row(name, facts) for name, facts in methods.items()]
    if balance := results.get("data", {}).get("balance"):
        splits, labels = balance.values(), results["data"]["labels"]
        rows["balance"] = [
            [label, *(counts.get(label, 0) for counts in splits)] for label in labels
        ]
    return rows


def with_interval(values: Sequence[float]) -> str:
    """Format a gain with its interval: (0.5, -0.4, 0.6) -> '+0.50 [-0.40, +0.60]'."""
    value, low, high = (f"{number:+.2f}" for number in values)
    return f"{value} [{low}, {high}]"


def attribution_row(name: str, facts: dict[str, Any]) -> list[str]:
    """Return the metrics of one attribution method; a dash where a metric does not apply."""
    cells = [name, "–"]
    if "sane" in facts:
        cells[1] = verdict_cell(facts["sane"], "passes", "fails its sanity check").text
    for what in ("deletion", "insertion"):
        gain = facts.get(f"{what}_gain")
        cells.append(f"{facts[what]:.2f}" + (f" ({with_interval(gain)})" if gain else ""))
    for what in ("infidelity", "sensitivity", "hit", "mass"):
        cells.append(f"{facts[what]:.2f}" if what in facts else "–")
    return [*cells, " → ".join(f"{kept:.2f}" for kept in facts["kept"]) if "kept" in facts else "–"]


def attribution_summary(entries: list[Entry]) -> Table:
    """Return one row per explained classifier: sanity checks, deletion gains, LIME, completeness
    gap.
    """
    numbers = [f"Kept: {name}" for name in ("gradient", "Grad-CAM", "guided")]
    numbers += ["Deletion gain of gradient", "of integrated gradients", "of LIME"]
    numbers += ["LIME fits", "LIME agrees", "Completeness gap"]
    columns = [Column("Entry"), Column("Failed sanity checks")]
    columns += [Column(title, number=True) for title in numbers]
    explained = [entry for entry in entries if entry.attribution_facts.get("methods")]
    return Table(columns, [attribution_summary_row(entry) for entry in explained])


def attribution_summary_row(entry: Entry) -> list[Cell]:
    methods: dict[str, dict[str, Any]] = entry.attribution_facts["methods"]
    gap = entry.attribution_facts.get("completeness_gap")
    checked = {name: facts for name, facts in methods.items() if "sane" in facts}
    failing = ", ".join(name for name, facts in checked.items() if not facts["sane"])
    failing = failing or ("none" if checked else "–")
    kept = [checked.get(name, {}).get("kept") for name in SANITY_CHECKED]
    gains = [methods.get(name, {}).get("deletion_gain") for name in DELETION_COMPARED]
    return [
        Cell(entry.name, entry.name, link=f"{entry.name}.explain.html"),
        Cell(failing, failing),
        *[share_cell(float(np.mean(shares)) if shares else None) for shares in kept],
        *[gain_cell(gain) for gain in gains],
        *[share_cell(methods["LIME"][what]) for what in ("fidelity", "stability")],
        Cell("–") if gap is None else Cell(f"{100 * gap:.1f} %", gap),
    ]


def share_cell(share: float | None) -> Cell:
    return Cell("–") if share is None else Cell(f"{share:.2f}", share)


def gain_cell(gain: list[float] | None) -> Cell:
    """Return a gain with its interval below it."""
    if not gain:
        return Cell("–")
    value, interval = with_interval(gain).split(" ", 1)
    return Cell(value, gain[0], note=interval)


def baseline_row(name: str, facts: dict[str, Any]) -> list[str]:
    """Return name (with its selected form), errors, and the ratios of this entry's errors to
    them.
    """
    forms = f" ({'; '.join(dict.fromkeys(facts['forms']))})" if "forms" in facts else ""
    cells = [name + forms]
    for kind in ("mse", "mase"):
        error, ratio = facts[kind], facts.get(f"{kind}_ratio")
        cells.append("–" if error is None else CATALOGUE[kind].text(error))
        cells.append(CATALOGUE["ratio_to_best_baseline"].interval_text(*ratio) if ratio else "–")
    return cells


def interval_row(facts: dict[str, float]) -> list[str]:
    """Return nominal coverage, measured coverage with its confidence interval, and mean width."""
    held, low, high = (f"{100 * facts[key]:.1f}" for key in ("measured", "low", "high"))
    nominal, width = f"{100 * facts['nominal']:.0f} %", format_number(facts["width"])
    return [nominal, f"{held} % [{low}, {high}]", width]


def layer_row(row: dict[str, Any]) -> list[str]:
    """Return name, type, output shape (without N) and parameters of one layer."""
    shape = " × ".join(map(str, row["output"]))
    return [row["layer"], row["type"], shape, f"{row['parameters']:,}"]


def head_row(row: dict[str, Any]) -> list[str]:
    """Return kind, options, and cross-validation accuracy (mean and standard deviation)."""
    options = ", ".join(f"{key} {value}" for key, value in row["options"].items())
    return [row["kind"], options, f"{100 * row['accuracy']:.1f} % ± {100 * row['std']:.1f}"]


def parity_row(row: dict[str, Any]) -> list[Any]:
    """Return device, variant, input, batch, differences, limit, verdict, and top-1 agreement if
    any.
    """
    agreement = row.get("top1_agreement")
    return [
        device_name(row["provider"]),
        row["variant"],
        row["input"],
        row["batch"],
        *[f"{row[key]:.1e}" for key in ("max_difference", "relative", "mean_difference")],
        f"{row['limit']:.1e}" if row["limit"] is not None else "accuracy",
        verdict_cell(row["passed"], "passed", "failed").text,
        *([] if agreement is None else [f"{100 * agreement:.1f} %"]),
    ]


def speed_row(row: dict[str, Any]) -> list[Any]:
    """Return device, variant, binding, batch, threads, p50, p90, p99 in ms, and throughput."""
    return [
        device_name(row["device"]),
        *[row[key] for key in ("variant", "way", "batch", "threads")],
        format_number(row["p50_ms"]) + ("" if row["stable"] else ", unsettled"),
        *[format_number(row[key]) for key in ("p90_ms", "p99_ms")],
        f"{row['per_second']:,.0f}",
        f"{format_with_prefix(row['ops_per_second'])}op/s",
        f"{100 * row['share_of_limit']:.1f} %",
    ]


def file_row(row: dict[str, Any]) -> list[Any]:
    """Return device, variant, size, seconds to a new process's first prediction, memory,
    placement.
    """
    nodes = ", ".join(f"{count} by {device_name(name)}" for name, count in row["placement"].items())
    if operators := row.get("on_cpu"):
        nodes += f" ({', '.join(operators)})"
    nodes += "; no CUDA graph" if row.get("cuda_graph") is False else ""
    size, memory = f"{format_with_prefix(row['bytes'])}B", f"{row['memory_mb']:,.0f} MB"
    return [
        device_name(row["device"]),
        row["variant"],
        size,
        f"{row['first_s']:.2f} s",
        memory,
        nodes,
    ]


def variant_row(variant: str, results: dict[str, Any]) -> list[Any]:
    """Return variant, calibration, top-1 agreement and verdict on the first device that ran it."""
    facts, how = results["export"]["variants"][variant], ""
    if "method" in facts:
        kept = f"{len(facts['kept'])} of {facts['products']} products in fp32"
        how = f"{facts['method']}, {kept}"
    verdict = next(iter(results["check"]["variants"][variant].values()))
    why = verdict["why"].partition(f": {variant} ")[2] or verdict["why"]  # the page names the entry
    return [variant, how, f"{100 * verdict['top1_agreement']:.1f} %", why]


def markdown(table: Table) -> str:
    """Return a GitHub Markdown table; every cell is escaped."""

    def line(cells: list[str]) -> str:
        return "| " + " | ".join(cells) + " |"

    rule = ["---:" if column.number else "---" for column in table.columns]
    rows = [[html.escape(cell.line).replace("|", "\\|") for cell in row] for row in table.rows]
    titles = [column.title for column in table.columns]
    return "\n".join([*map(line, [titles, rule, *rows]), ""])


def without_columns(table: Table, titles: tuple[str, ...]) -> Table:
    """Return the table without the columns of these titles."""
    kept = [i for i, column in enumerate(table.columns) if column.title not in titles]
    return Table([table.columns[i] for i in kept], [[row[i] for i in kept] for row in table.rows])


def padded_text(table: Table) -> str:
    """Return the table with columns of equal width."""
    rows = [[c.title for c in table.columns], *([c.line for c in row] for row in table.rows)]
    columns = []
    for column, words in zip(table.columns, zip(*rows, strict=True), strict=True):
        width, side = max(map(len, words)), ">" if column.number else "<"
        columns.append([f"{word:{side}{width}}" for word in words])
    return "\n".join("  ".join(words).rstrip() for words in zip(*columns, strict=True))
