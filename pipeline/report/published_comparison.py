"""The line beside the literature: accuracy over multiply-adds, ours and published, and the depth of ILSVRC's entries.

Published numbers lie in templates/published.json: `imagenet` is the metadata of torchvision's IMAGENET1K_V1 weights
(multiply-adds in billions, top-1 in percent), `ilsvrc` has the source of each row in the row.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pipeline.plots.style import Picture
from pipeline.plots.vega import TEMPLATES, chart, sparse
from pipeline.report.results import Entry
from pipeline.report.tables import metric_cell, scaled

PUBLISHED = json.loads((TEMPLATES / "published.json").read_text(encoding="utf-8"))
Network = dict[str, Any]  # one bubble: name, set, parameters, macs, y, low, high, interval, link


def measured(entries: list[Entry]) -> list[Network]:
    """Return the test accuracy in percent of each classifier that is trained and checked."""
    return [
        network(entry, [100 * entry.metric[key] for key in ("value", "low", "high")])
        for entry in entries
        if entry.metric and entry.metric["name"] == "accuracy" and "train" in entry.results
    ]


def timed(entries: list[Entry]) -> list[Network]:
    """Return the latency on the CPU (p50 in milliseconds, batch 1) of those of `measured` that have one."""
    p50 = {entry.name: entry.latencies.get("cpu") for entry in entries}
    return [found | {key: p50[found["name"]] for key in ("y", "low", "high")} | {"interval": "–"}
            for found in measured(entries) if p50[found["name"]]]  # fmt: skip


def network(entry: Entry, values: list[float]) -> Network:
    train, interval = (
        entry.results["train"],
        metric_cell(entry.metric).text.partition(" [")[2].rstrip("]"),
    )
    where = {"name": entry.name, "set": entry.recipe["data"]["set"], "link": f"{entry.name}.html"}
    size = {"parameters": train["parameters"], "macs": train["macs"], "interval": interval}
    return where | size | dict(zip(("y", "low", "high"), values, strict=True))


def published() -> list[Network]:
    """Return ImageNet-1k top-1 in percent of the networks in torchvision's metadata."""
    size = {"set": "ImageNet-1k", "interval": "–", "link": None}
    return [
        {"name": name, "parameters": row["parameters"], "macs": 1e9 * row["gmacs"], **size}
        | dict.fromkeys(("y", "low", "high"), row["top1"])
        for name, row in PUBLISHED["imagenet"].items()
    ]


def pictures(entries: list[Entry], img: Path) -> dict[str, Picture]:
    """Return the pictures by name; none before a classifier of ours can stand beside the published ones."""
    ours, times = measured(entries), timed(entries)
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
        "accuracy": bubbles(
            ours, f"this line: measured here, {where}", accuracy, img / "landscape.accuracy.png"
        )
    }
    title = "published: ImageNet-1k, torchvision's weight metadata"
    drawn["published"] = bubbles(published(), title, top1, img / "landscape.published.png")
    if times:
        title, label = (
            "this line: measured here, onnxruntime on the CPU at batch 1",
            "latency p50, ms",
        )
        drawn["latency"] = bubbles(times, title, label, img / "landscape.latency.png", log=True)
    return drawn | {"depth": depth_by_year(img / "landscape.depth.png")}


def bubbles(
    networks: list[Network], title: str, measure: str, path: Path, *, log: bool = False
) -> Picture:
    """Draw `measure` over multiply-adds, parameters as area (Canziani et al. 2016, arXiv:1605.07678, figure 2)."""
    groups = sorted(
        {found["set"] for found in networks if found["link"]}
    )  # published: none, and grey
    lowest, highest = (choose(networks, key=lambda found: found["y"]) for choose in (min, max))
    ends = [
        f"{found['name']} with {found['y']:.3g} at {scaled(found['macs']).strip()}"
        for found in (lowest, highest)
    ]
    alt = f"{title}; {measure} over multiply-adds of {len(networks)} networks: from {ends[0]} to {ends[1]}."
    values = sparse(sorted(networks, key=lambda found: -found["parameters"]), "macs", "y")
    return chart(
        "bubbles", path, alt, values=values, title=title, measure=measure, groups=groups, log=log
    )


def depth_rows() -> list[list[Any]]:
    """Return name, year, weight layers, top-5 error and source of each entry of ILSVRC, oldest first."""
    return [
        [*map(row.get, ("name", "year")), depth(row), row["error"], row["source"]]
        for row in PUBLISHED["ilsvrc"]
    ]


def depth(row: dict[str, Any]) -> int | str:
    return row["depth"] or row["instead"]


def depth_by_year(path: Path) -> Picture:
    """Draw weight layers and top-5 error of ILSVRC's entries, oldest first; who did not win its year is faint."""
    rows = [
        row
        | {
            "said": str(depth(row)),
            "depth": row["depth"] or 0,
            "name": f"{row['name']} · {row['year']}",
        }
        for row in PUBLISHED["ilsvrc"]
    ]
    said = "; ".join(f"{row['name']} {row['said']}, {row['error']} %" for row in rows)
    return chart(
        "depth",
        path,
        f"Weight layers and published top-5 error of ILSVRC entries: {said}.",
        values=rows,
    )
