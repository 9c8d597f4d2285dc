"""Accuracy against cost of every model file: table, Pareto front, roofline, signal to noise."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from convline.colours import VARIANTS
from matplotlib.axes import Axes

from pipeline.evaluate.metric_catalogue import CATALOGUE
from pipeline.plots.style import Picture, drawing, format_number, use_integer_ticks
from pipeline.plots.vega import draw_chart, label_sparsely
from pipeline.report.entry_tables import group_by_data
from pipeline.report.result_files import Entry
from pipeline.report.tables import (
    Cell,
    Column,
    Table,
    device_name,
    format_with_prefix,
)

GPU_RESULTS = Path("results/gpu")
FEW_NODES = 6  # that have their names on the axis
LOSSLESS_DB = 88  # where a node without any loss is drawn
SIGNAL_TO_NOISE_PAIR = (
    "plain20-digits",
    "resnet20-digits",
)  # equal depth, without shortcuts and with
COST = {  # column of a cost -> where metrics.html explains it
    "p50, batch\u00a01": "p50",
    "Best per second": "best-per-second",
    "File": "file",
    "Memory": "memory",
    "First result": "first-result",
    "Share of limit": "share-of-limit",
}


def file_table(entries: list[Entry]) -> Table:
    """Return a row for each model file and device: accuracy, cost, and whether it is packaged.

    The groups of rows are the data sets.
    """
    names = dict.fromkeys(entry.metric["name"] for entry in entries if entry.metric)
    metrics = " or ".join(CATALOGUE[name].title for name in names)
    columns = [
        Column("Entry"),
        Column(metrics, number=True, explained="accuracy"),
        *map(Column, ("Variant", "Device")),
        Column("Ships", explained="ships"),
        Column("Points lost [95\u00a0%]", number=True, explained="points-lost"),
        *[Column(title, number=True, explained=anchor) for title, anchor in COST.items()],
        Column("Front", explained="front"),
    ]
    rows: list[list[Cell]] = []
    groups: dict[int, str] = {}
    for title, group in group_by_data(entries).items():
        found = [
            file_table_row(entry, file)
            for entry in group
            for file in entry.results.get("speed", {}).get("files", [])
        ]
        groups |= {len(rows): title} if found else {}
        rows += found
    return Table(columns, rows, groups)


def file_table_row(entry: Entry, file: dict[str, Any]) -> list[Cell]:
    device, variant = file["device"], file["variant"]
    check, speed = entry.results["check"], entry.results["speed"]
    own = [row for row in speed["rows"] if (row["device"], row["variant"]) == (device, variant)]
    one = next(row for row in own if row["batch"] == 1)
    best = max(own, key=lambda row: row["per_second"])
    found = check["variants"].get(variant, {}).get(device)
    choice = speed["choice"][device]
    metric = found[check["metric"]["name"]] if found else check["metric"]["value"]
    points = [100 * found[key] for key in ("lost", "lost_low", "lost_high")] if found else []
    lost = "{:.2f} [{:.2f}, {:.2f}]".format(*points) if found else "–"
    return [
        Cell(entry.name, entry.name, link=f"{entry.name}.html"),
        Cell(CATALOGUE[check["metric"]["name"]].text(metric), metric),
        Cell(variant, variant),
        Cell(device_name(device), device),
        ships_cell(found, recommended=choice["variant"] == variant)
        if check["passed"]
        else Cell("✗ check failed", 0, "bad"),
        Cell(lost, found["lost"] if found else None),
        Cell(f"{format_number(one['p50_ms'])} ms", one["p50_ms"]),
        Cell(f"{best['per_second']:,.0f}", best["per_second"], note=f"batch {best['batch']}"),
        Cell(f"{format_with_prefix(file['bytes'])}B", file["bytes"]),
        Cell(f"{file['memory_mb']:,.0f} MB", file["memory_mb"]),
        Cell(f"{file['first_s']:.2f} s", file["first_s"]),
        Cell(f"{100 * best['share_of_limit']:.0f} %", best["share_of_limit"]),
        Cell("✓" if variant in choice["front"] else "–", int(variant in choice["front"])),
    ]


def ships_cell(verdict: dict[str, Any] | None, *, recommended: bool) -> Cell:
    """Return whether a file is packaged. verdict: `judge_variant` of stage check, None for fp32."""
    if recommended:
        return Cell("✓ recommended", 2, "good")
    if verdict and verdict["undecided"]:
        return Cell("? undecided", 0.5, note="packaged" if verdict["accepted"] else "left out")
    return (
        Cell("✗ no", 0, "bad") if verdict and not verdict["accepted"] else Cell("✓ yes", 1, "good")
    )


def draw_tradeoffs(entries: list[Entry], img: Path, gpu: Path = GPU_RESULTS) -> dict[str, Picture]:
    """Draw the index page's plots; return them by name, none if no entry has been checked."""
    timed = [entry for entry in entries if entry.results.get("speed", {}).get("limits")]
    if not timed:
        return {}
    drawn = {}
    classifiers = [entry for entry in timed if entry.metric and entry.metric["name"] == "accuracy"]
    on_cpu = [entry for entry in classifiers if "cpu" in entry.results["speed"]["limits"]]
    sets = [entry.recipe.data.set for entry in on_cpu]
    if sets:  # accuracies are comparable on one dataset only
        most = max(sets, key=sets.count)
        same = [entry for entry in on_cpu if entry.recipe.data.set == most]
        drawn["fronts"] = pareto_front_chart(same, most, img / "verdict.fronts.png")
    drawn["roofline"] = roofline_chart(timed, gpu, img / "verdict.roofline.png")
    by_name = {entry.name: entry for entry in entries if entry.signal_to_noise}
    pair = [by_name[name] for name in SIGNAL_TO_NOISE_PAIR if name in by_name]
    if len(pair) == 2:
        drawn["noise"] = signal_to_noise_plot(pair, img / "verdict.noise.png")
    return drawn


def pareto_front_chart(entries: list[Entry], data_set: str, path: Path) -> Picture:
    """Draw accuracy over latency of each file and the Pareto front; lines join an entry's files."""
    points: list[dict[str, Any]] = []
    for entry in entries:
        check, rows = entry.results["check"], entry.results["speed"]["rows"]
        accuracy = {"fp32": check["metric"]["value"]}
        accuracy |= {v: by["cpu"]["accuracy"] for v, by in check["variants"].items() if "cpu" in by}
        one = [row for row in rows if (row["device"], row["batch"]) == ("cpu", 1)]
        latencies = {row["variant"]: row["p50_ms"] for row in reversed(one)}  # the first: all cores
        about = {"entry": entry.name, "link": f"{entry.name}.html"}
        points += [
            about | {"variant": variant, "ms": ms, "accuracy": 100 * accuracy[variant]}
            for variant, ms in latencies.items()
        ]
    for p in points:
        better = [o for o in points if o["ms"] <= p["ms"] and o["accuracy"] >= p["accuracy"]]
        p["front"] = all((o["ms"], o["accuracy"]) == (p["ms"], p["accuracy"]) for o in better)
        p["name"] = p["entry"] if p["front"] else ""
    names = ", ".join(dict.fromkeys(p["name"] for p in points if p["front"]))
    alt = f"Accuracy on {data_set} over latency of {len(points)} files; on the front: {names}."
    title = f"{data_set}: accuracy over latency on the CPU, batch 1"
    low = float(np.quantile([p["accuracy"] for p in points], 0.1)) - 1
    facts = {"values": label_sparsely(points, "ms", "accuracy"), "title": title, "low": low}
    return draw_chart("fronts", path, alt, **facts, variants=precision_colours(points))


def precision_colours(points: list[dict[str, Any]]) -> dict[str, str]:
    """Return the colours of the precisions that occur."""
    present = {point["variant"] for point in points}
    return {variant: colour for variant, colour in VARIANTS.items() if variant in present}


def roofline_chart(entries: list[Entry], gpu: Path, path: Path) -> Picture:
    """Draw achieved operations per second over arithmetic intensity, below each machine's roofline.

    It shows whether a model is limited by memory bandwidth or by arithmetic, so whether a faster
    file is possible on this machine (Williams et al. 2009, "Roofline").
    """
    limits: dict[str, dict[str, float]] = {}
    points = []
    for entry in entries:
        speed = entry.results["speed"]
        for row in speed["rows"]:
            machine = speed["machine"]["cpu"] if row["device"] == "cpu" else row["device"]
            limits.setdefault(machine, speed["limits"][row["device"]])
            known = {key: row[key] for key in ("variant", "batch", "intensity")}
            known |= {"rate": row["ops_per_second"], "share": row["share_of_limit"]}
            points.append(known | {"entry": entry.name, "machine": machine})
    for file in sorted(gpu.glob("*.json")):
        found = json.loads(file.read_text(encoding="utf-8"))
        if "limits" in found:
            limits[found["device"]] = found["limits"]
            points += [
                {"intensity": x, "rate": y, "variant": variant, "machine": found["device"]}
                for x, y, variant in found["points"]
            ]
    roofs: list[dict[str, Any]] = []
    for machine, limit in limits.items():
        for variant in [v for v in VARIANTS if v in limit]:
            stream, most = limit["stream"], limit[variant]
            label = f"{format_with_prefix(most)}op/s"
            corners = (0.05, 0.05 * stream, None), (most / stream, most, None), (5e3, most, label)
            roofs += [
                {"intensity": x, "rate": y, "roof": roof, "machine": machine, "variant": variant}
                for x, y, roof in corners
            ]
    machines = ", ".join(limits)
    alt = f"Roofline of {machines}: {len(points)} measured points below each machine's limits."
    facts = {"title": "achieved rate of every file and batch", "values": points, "roofs": roofs}
    return draw_chart("roofline", path, alt, **facts, variants=precision_colours(points))


def signal_to_noise_plot(entries: list[Entry], path: Path) -> Picture:
    """Draw the signal-to-noise ratio of each node's output along the graph; rings: fp32 layers."""
    width, height = 760, 230
    with drawing(path, width, height, columns=len(entries), head_px=22) as axes:
        for axis, entry in zip(axes[0], entries, strict=True):
            draw_signal_to_noise(axis, entry)
            axis.set(title=entry.name, ylim=(0, 90), xlabel="node, from the input on")
        axes[0, 0].set_ylabel("signal to noise, dB")
        handles = axes[0, 0].get_legend_handles_labels()
        axes[0, 0].figure.legend(*handles, loc="upper right", ncols=3)
    ends = [
        f"{e.name} {v} ends at {[*by.values()][-1]:.0f} dB"
        for e in entries
        for v, by in (e.signal_to_noise or {}).items()
    ]
    return Picture(path.name, width, height, f"Signal to noise along depth: {'; '.join(ends)}.")


def draw_signal_to_noise(axis: Axes, entry: Entry) -> None:
    kept = entry.results.get("export", {}).get("variants", {}).get("int8", {}).get("kept", [])
    found = entry.signal_to_noise or {}
    place = node_positions(list(found.values()))
    for variant in [variant for variant in VARIANTS if variant in found]:
        by = found[variant]
        x = [place[name] for name in by]
        shown = {name: min(decibels, LOSSLESS_DB) for name, decibels in by.items()}
        look: dict[str, Any] = {"color": VARIANTS[variant], "lw": 1, "label": variant}
        axis.plot(x, [*shown.values()], ".-", ms=2 if len(place) > FEW_NODES else 6, **look)
        rings = [(place[name], shown[name]) for name in by if variant == "int8" and name in kept]
        if rings:
            places, ratios = zip(*rings, strict=True)
            axis.plot(
                places, ratios, "o", mfc="none", color=VARIANTS[variant], ms=6, label="kept in fp32"
            )
    if len(place) <= FEW_NODES:
        axis.set_xticks([*place.values()], [*place])
    else:
        use_integer_ticks(axis.xaxis)


def node_positions(graphs: list[dict[str, float]]) -> dict[str, float]:
    """Return each node's position on the axis: precisions fuse different nodes, none has all."""
    longest, *others = sorted(graphs, key=len, reverse=True)
    place: dict[str, float] = {name: k for k, name in enumerate(longest)}
    for graph in others:
        last = -1.0
        for name in graph:
            last = place.setdefault(name, last + 0.5)
    return place
