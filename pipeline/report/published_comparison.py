"""Our networks beside published ones: accuracy over multiply-adds, and the depth of ILSVRC entries.

templates/published.json holds the published numbers: `imagenet` is the metadata of torchvision's
IMAGENET1K_V1 weights (multiply-adds in billions, top-1 accuracy in percent); each row of `ilsvrc`
names its source.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pipeline.plots.style import Picture
from pipeline.plots.vega import TEMPLATES, draw_chart, label_sparsely
from pipeline.report.result_files import Entry
from pipeline.report.tables import format_with_prefix, metric_text

PUBLISHED = json.loads((TEMPLATES / "published.json").read_text(encoding="utf-8"))
Bubble = dict[str, Any]  # one bubble: name, set, parameters, macs, y, low, high, interval, link


def accuracy_bubbles(entries: list[Entry]) -> list[Bubble]:
    """Return a bubble with the test accuracy in percent of each checked classifier."""
    return [
        entry_bubble(entry, [100 * entry.metric[key] for key in ("value", "low", "high")])
        for entry in entries
        if entry.metric and entry.metric["name"] == "accuracy" and "train" in entry.results
    ]


def latency_bubbles(entries: list[Entry]) -> list[Bubble]:
    """Return a bubble with the CPU latency (p50 in ms, batch 1) of each checked classifier."""
    p50 = {entry.name: entry.latencies.get("cpu") for entry in entries}
    return [
        bubble | dict.fromkeys(("y", "low", "high"), p50[bubble["name"]]) | {"interval": "–"}
        for bubble in accuracy_bubbles(entries)
        if p50[bubble["name"]]
    ]


def entry_bubble(entry: Entry, values: list[float]) -> Bubble:
    assert entry.metric
    train = entry.results["train"]
    interval = metric_text(entry.metrics, entry.metric["name"]).partition(" [")[2].rstrip("]")
    where = {"name": entry.name, "set": entry.recipe.data.set, "link": f"{entry.name}.html"}
    size = {"parameters": train["parameters"], "macs": train["macs"], "interval": interval}
    return where | size | dict(zip(("y", "low", "high"), values, strict=True))


def published_bubbles() -> list[Bubble]:
    """Return a bubble with the ImageNet-1k top-1 accuracy in percent of each published network."""
    size = {"set": "ImageNet-1k", "interval": "–", "link": None}
    return [
        {"name": name, "parameters": row["parameters"], "macs": 1e9 * row["gmacs"], **size}
        | dict.fromkeys(("y", "low", "high"), row["top1"])
        for name, row in PUBLISHED["imagenet"].items()
    ]


def draw_comparison(entries: list[Entry], img: Path) -> dict[str, Picture]:
    """Draw the comparison; return the charts by name, none if no classifier has been checked."""
    ours, times = accuracy_bubbles(entries), latency_bubbles(entries)
    if not ours:
        return {}
    sets = sorted({bubble["set"] for bubble in ours})
    one = f"on the test split of {sets[0]}"
    where = one if len(sets) == 1 else "each on the test split of its own set"
    title, path = f"this line: measured here, {where}", img / "landscape.accuracy.png"
    drawn = {"accuracy": bubble_chart(ours, title, "test accuracy, %", path)}
    title = "published: ImageNet-1k, torchvision's weight metadata"
    top1, path = "ImageNet-1k top-1 accuracy, %", img / "landscape.published.png"
    drawn["published"] = bubble_chart(published_bubbles(), title, top1, path)
    if times:
        title = "this line: measured here, onnxruntime on the CPU at batch 1"
        path = img / "landscape.latency.png"
        drawn["latency"] = bubble_chart(times, title, "latency p50, ms", path, log=True)
    return drawn | {"depth": depth_chart(img / "landscape.depth.png")}


def bubble_chart(
    networks: list[Bubble], title: str, measure: str, path: Path, *, log: bool = False
) -> Picture:
    """Draw `measure` over multiply-adds, the area by parameters.

    Canziani et al. 2016, arXiv:1605.07678.
    """
    # published networks have no group: they are grey
    groups = sorted({bubble["set"] for bubble in networks if bubble["link"]})
    lowest, highest = (choose(networks, key=lambda found: found["y"]) for choose in (min, max))
    ends = [
        f"{found['name']} with {found['y']:.3g} at {format_with_prefix(found['macs']).strip()}"
        for found in (lowest, highest)
    ]
    alt = f"{title}; {measure} of {len(networks)} networks over multiply-adds: {' to '.join(ends)}."
    values = label_sparsely(sorted(networks, key=lambda found: -found["parameters"]), "macs", "y")
    facts = {"title": title, "measure": measure, "groups": groups, "log": log}
    return draw_chart("bubbles", path, alt, values=values, **facts)


def ilsvrc_rows() -> list[list[Any]]:
    """Return name, year, weight layers, top-5 error and source of ILSVRC entries, oldest first."""
    return [
        [row["name"], row["year"], weight_layers(row), row["error"], row["source"]]
        for row in PUBLISHED["ilsvrc"]
    ]


def weight_layers(row: dict[str, Any]) -> int | str:
    """Return the number of layers with weights, or what stands in its place: "shallow"."""
    return row["depth"] or row["instead"]


def depth_chart(path: Path) -> Picture:
    """Draw weight layers and top-5 error of ILSVRC entries, oldest first; non-winners are pale."""
    rows = []
    for row in PUBLISHED["ilsvrc"]:
        name, depth = f"{row['name']} · {row['year']}", row["depth"] or 0
        rows.append(row | {"layers": str(weight_layers(row)), "depth": depth, "name": name})
    networks = "; ".join(f"{row['name']} {row['layers']}, {row['error']} %" for row in rows)
    alt = f"Weight layers and published top-5 error of ILSVRC entries: {networks}."
    return draw_chart("depth", path, alt, values=rows)
