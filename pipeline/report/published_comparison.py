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
from pipeline.report.tables import format_with_prefix, metric_cell

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
    return [found | {key: p50[found["name"]] for key in ("y", "low", "high")} | {"interval": "–"}
            for found in accuracy_bubbles(entries) if p50[found["name"]]]  # fmt: skip


def entry_bubble(entry: Entry, values: list[float]) -> Bubble:
    assert entry.metric
    train, interval = (
        entry.results["train"],
        metric_cell(entry.metric).text.partition(" [")[2].rstrip("]"),
    )
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
    sets = sorted({found["set"] for found in ours})
    where = (
        f"on the test split of {sets[0]}"
        if len(sets) == 1
        else "each on the test split of its own set"
    )
    accuracy, top1 = "test accuracy, %", "ImageNet-1k top-1 accuracy, %"
    drawn = {
        "accuracy": bubble_chart(
            ours, f"this line: measured here, {where}", accuracy, img / "landscape.accuracy.png"
        )
    }
    title = "published: ImageNet-1k, torchvision's weight metadata"
    drawn["published"] = bubble_chart(
        published_bubbles(), title, top1, img / "landscape.published.png"
    )
    if times:
        title, label = (
            "this line: measured here, onnxruntime on the CPU at batch 1",
            "latency p50, ms",
        )
        drawn["latency"] = bubble_chart(
            times, title, label, img / "landscape.latency.png", log=True
        )
    return drawn | {"depth": depth_chart(img / "landscape.depth.png")}


def bubble_chart(
    networks: list[Bubble], title: str, measure: str, path: Path, *, log: bool = False
) -> Picture:
    """Draw `measure` over multiply-adds; area is parameters (Canziani et al. 2016,
    arXiv:1605.07678).
    """
    groups = sorted(
        {found["set"] for found in networks if found["link"]}
    )  # published: none, and grey
    lowest, highest = (choose(networks, key=lambda found: found["y"]) for choose in (min, max))
    ends = [
        f"{found['name']} with {found['y']:.3g} at {format_with_prefix(found['macs']).strip()}"
        for found in (lowest, highest)
    ]
    alt = f"{title}; {measure} of {len(networks)} networks over multiply-adds: {' to '.join(ends)}."
    values = label_sparsely(sorted(networks, key=lambda found: -found["parameters"]), "macs", "y")
    return draw_chart(
        "bubbles", path, alt, values=values, title=title, measure=measure, groups=groups, log=log
    )


def ilsvrc_rows() -> list[list[Any]]:
    """Return name, year, weight layers, top-5 error and source of each ILSVRC entry, oldest
    first.
    """
    return [
        [*map(row.get, ("name", "year")), weight_layers(row), row["error"], row["source"]]
        for row in PUBLISHED["ilsvrc"]
    ]


def weight_layers(row: dict[str, Any]) -> int | str:
    """Return the number of layers with weights, or what stands in its place: "shallow"."""
    layers: int | str = row["depth"] or row["instead"]
    return layers


def depth_chart(path: Path) -> Picture:
    """Draw weight layers and top-5 error of ILSVRC entries, oldest first; non-winners are pale."""
    rows = [
        row
        | {
            "layers": str(weight_layers(row)),
            "depth": row["depth"] or 0,
            "name": f"{row['name']} · {row['year']}",
        }
        for row in PUBLISHED["ilsvrc"]
    ]
    networks = "; ".join(f"{row['name']} {row['layers']}, {row['error']} %" for row in rows)
    return draw_chart(
        "depth",
        path,
        f"Weight layers and published top-5 error of ILSVRC entries: {networks}.",
        values=rows,
    )
