"""The verdict as table and pictures: every file of every entry, the Pareto front, the roofline, noise along depth."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from pipeline.evidence import Entry
from pipeline.figures import BLUE, GREEN, INK, ORANGE, PURPLE, Picture, drawing
from pipeline.table import Cell, Column, Table, scaled

COLOURS = {"fp32": BLUE, "int8": ORANGE, "fp16": GREEN}
GPU = Path("results/gpu")
EXACT = 88  # dB; drawn so high where nothing is lost
PAIR = ("plain20-digits", "resnet20-digits")  # equal depth, without shortcuts and with
COLUMNS = (
    ("Entry", "Device", "Variant"),
    (
        "Accuracy",
        "Points lost [95\u00a0%]",
        "p50, batch\u00a01",
        "Best per second",
        "Share of limit",
        "First result",
        "Memory",
        "File",
    ),
)


def matrix(entries: list[Entry]) -> Table:
    """Return one row for each file and device: what it answers, how fast, and whether it ships."""
    titles = [Column(title) for title in COLUMNS[0]] + [Column(title, number=True) for title in COLUMNS[1]]
    titles += [Column("Ships"), Column("On the front")]
    rows = [matrix_row(entry, file) for entry in entries for file in entry.results.get("speed", {}).get("files", [])]
    return Table(titles, rows)


def matrix_row(entry: Entry, file: dict[str, Any]) -> list[Cell]:
    device, variant = file["device"], file["variant"]
    check, speed = entry.results["check"], entry.results["speed"]
    own = [row for row in speed["rows"] if (row["device"], row["variant"]) == (device, variant)]
    one, best = next(row for row in own if row["batch"] == 1), max(own, key=lambda row: row["per_second"])
    found = check["variants"].get(variant, {}).get(device)
    choice = speed["choice"][device]
    accuracy = found["accuracy"] if found else check["metric"]["value"]
    percent = check["metric"]["name"] == "accuracy"
    points = [100 * found[key] for key in ("lost", "lost_low", "lost_high")] if found else []
    lost = "{:.2f} [{:.2f}, {:.2f}]".format(*points) if found else "–"
    ships = Cell("✓ yes", 1, "good") if not found or found["accepted"] else Cell("✗ no", 0, "bad")
    if choice["variant"] == variant:
        ships = Cell("✓ recommended", 2, "good")
    return [
        Cell(entry.name, entry.name, link=f"{entry.name}.html"),
        Cell(device, device),
        Cell(variant, variant),
        Cell(f"{100 * accuracy:.1f} %" if percent else f"MSE {accuracy:#.3g}", accuracy),
        Cell(lost, found["lost"] if found else None),
        Cell(f"{one['p50_ms']:#.3g} ms", one["p50_ms"]),
        Cell(f"{best['per_second']:,.0f} at {best['batch']}", best["per_second"]),
        Cell(f"{100 * best['share_of_limit']:.0f} %", best["share_of_limit"]),
        Cell(f"{file['first_s']:.2f} s", file["first_s"]),
        Cell(f"{file['memory_mb']:,.0f} MB", file["memory_mb"]),
        Cell(f"{scaled(file['bytes'])}B", file["bytes"]),
        ships,
        Cell("✓" if variant in choice["front"] else "–", int(variant in choice["front"])),
    ]


def pictures(entries: list[Entry], img: Path, gpu: Path = GPU) -> dict[str, Picture]:
    """Return the pictures of the index by name; none before an entry is checked."""
    timed = [entry for entry in entries if entry.results.get("speed", {}).get("limits")]
    if not timed:
        return {}
    drawn = {}
    sets = [entry.recipe["data"]["set"] for entry in timed if entry.task == "classification"]
    if sets:  # accuracies of one set can be held against one another
        most = max(sets, key=sets.count)
        same = [entry for entry in timed if entry.recipe["data"]["set"] == most]
        drawn["fronts"] = fronts(same, most, img / "verdict.fronts.png")
    drawn["roofline"] = roofline(timed, gpu, img / "verdict.roofline.png")
    pair = {entry.name: entry for entry in entries if entry.name in PAIR and entry.noise}
    if len(pair) == len(PAIR):
        drawn["noise"] = noise([pair[name] for name in PAIR], img / "verdict.noise.png")
    return drawn


def fronts(entries: list[Entry], data_set: str, path: Path) -> Picture:
    """Draw accuracy over latency of each file, an entry's files joined, and the front of them all."""
    width, height = 610, 400
    points: list[tuple[float, float, str, str]] = []
    with drawing(path, width, height) as axes:
        axis = axes[0, 0]
        for entry in entries:
            rows = [row for row in entry.results["speed"]["rows"] if row["device"] == "cpu" and row["batch"] == 1]
            by = {row["variant"]: row["p50_ms"] for row in reversed(rows)}  # the first is of every core
            found = entry.results["check"]["variants"]
            own = [(by["fp32"], 100 * entry.results["check"]["metric"]["value"], "fp32", entry.name)]
            own += [(by[v], 100 * found[v]["cpu"]["accuracy"], v, entry.name) for v in by if v in found]
            axis.plot(*zip(*[point[:2] for point in own], strict=True), color=INK, lw=0.4, zorder=1)
            points += own
        for latency, accuracy, variant, _ in points:
            axis.plot(latency, accuracy, "o", color=COLOURS[variant], ms=4)
        best = [p for p in points if not any(o[0] <= p[0] and o[1] >= p[1] and o[:2] != p[:2] for o in points)]
        best.sort()
        axis.step([p[0] for p in best], [p[1] for p in best], where="post", color=PURPLE, lw=1, zorder=0)
        for latency, accuracy, _, name in best:
            axis.annotate(name, (latency, accuracy), (0, 5), textcoords="offset points", ha="center", fontsize=7)
        low = np.quantile([p[1] for p in points], 0.1)
        axis.set(title=f"{data_set}: accuracy over latency on the CPU, batch 1", xlabel="p50, ms")
        axis.set(xscale="log", ylim=(low - 1, None), ylabel="test accuracy, %")
        axis.margins(x=0.1)
        axis.xaxis.set_major_formatter("{x:g}")
        shown = {variant for _, _, variant, _ in points}
        marks = [Line2D([], [], marker="o", ls="", color=COLOURS[v], label=v) for v in COLOURS if v in shown]
        axis.legend(handles=[*marks, Line2D([], [], color=PURPLE, label="front")], loc="lower right")
    names = ", ".join(dict.fromkeys(name for *_, name in best))
    alt = f"Accuracy on {data_set} over latency of {len(points)} files; on the front: {names}."
    return Picture(path.name, width, height, alt)


def roofline(entries: list[Entry], gpu: Path, path: Path) -> Picture:
    """Draw each file's best rate over its arithmetic intensity, under the limits of the machines that ran them."""
    width, height = 610, 400
    machines: dict[str, tuple[dict[str, float], list[tuple[float, float, str]]]] = {}
    for entry in entries:
        speed = entry.results["speed"]
        for row in speed["rows"]:
            name = speed["machine"]["cpu"] if row["device"] == "cpu" else row["device"]
            points = machines.setdefault(name, (speed["limits"][row["device"]], []))[1]
            points.append((row["intensity"], row["ops_per_second"], row["variant"]))
    for file in sorted(gpu.glob("*.json")):
        found = json.loads(file.read_text(encoding="utf-8"))
        if "limits" in found:
            machines[found["device"]] = found["limits"], [(*point,) for point in found["points"]]
    with drawing(path, width, height) as axes:
        axis = axes[0, 0]
        for k, (limit, points) in enumerate(machines.values()):
            for variant in [v for v in COLOURS if v in limit]:
                x = np.geomspace(0.05, 5e3, 200)
                y = np.minimum(limit[variant], limit["stream"] * x)
                axis.plot(x, y, color=COLOURS[variant], lw=1, ls=("-", "--", ":")[k % 3])
                axis.text(5e3, limit[variant], f"{scaled(limit[variant])}op/s", ha="right", va="bottom", fontsize=7)
            for intensity, rate, variant in points:
                axis.plot(intensity, rate, "os^"[k % 3], color=COLOURS[variant], ms=3, alpha=0.6, mew=0)
        axis.set(title="achieved rate of every file and batch", xscale="log", yscale="log")
        axis.set(xlabel="operations for each byte moved", ylabel="operations/s")
        shown = {variant for _, points in machines.values() for *_, variant in points}
        marks = [Line2D([], [], marker="o", ls="", color=COLOURS[v], label=v) for v in COLOURS if v in shown]
        lines = [Line2D([], [], color=INK, ls=("-", "--", ":")[k % 3], label=name) for k, name in enumerate(machines)]
        axis.legend(handles=[*marks, *lines], loc="lower right")
    count = sum(len(points) for _, points in machines.values())
    alt = f"Roofline of {', '.join(machines)}: {count} measured points below the limits of memory and of products."
    return Picture(path.name, width, height, alt)


def noise(entries: list[Entry], path: Path) -> Picture:
    """Draw the signal-to-noise ratio of each node's output along depth, by precision; a ring: a layer kept in fp32."""
    width, height = 760, 230
    with drawing(path, width, height, columns=len(entries), head_px=22) as axes:
        for axis, entry in zip(axes[0], entries, strict=True):
            draw_noise(axis, entry)
            axis.set(title=entry.name, ylim=(0, 90), xlabel="node")
        axes[0, 0].set_ylabel("signal to noise, dB")
        axes[0, 0].figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="upper right", ncols=3)
    ends = [f"{e.name} {v} ends at {[*by.values()][-1]:.0f} dB" for e in entries for v, by in (e.noise or {}).items()]
    return Picture(path.name, width, height, f"Signal to noise along depth: {'; '.join(ends)}.")


def draw_noise(axis: Axes, entry: Entry) -> None:
    kept = entry.results.get("export", {}).get("variants", {}).get("int8", {}).get("kept", [])
    found = entry.noise or {}
    place = places(list(found.values()))
    for variant, by in found.items():
        x = [place[name] for name in by]
        shown = {name: min(decibels, EXACT) for name, decibels in by.items()}
        axis.plot(x, [*shown.values()], ".-", color=COLOURS[variant], lw=1, ms=2, label=variant)
        rings = [(place[name], shown[name]) for name in by if variant == "int8" and name in kept]
        if rings:
            axis.plot(*zip(*rings, strict=True), "o", mfc="none", color=ORANGE, ms=6, label="kept in fp32")


def places(graphs: list[dict[str, float]]) -> dict[str, float]:
    """Return where on the axis each node lies: each precision merges other nodes into one, so none has them all."""
    longest, *others = sorted(graphs, key=len, reverse=True)
    place: dict[str, float] = {name: k for k, name in enumerate(longest)}
    for graph in others:
        last = -1.0
        for name in graph:
            last = place.setdefault(name, last + 0.5)
    return place
