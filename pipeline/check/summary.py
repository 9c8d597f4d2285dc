"""A check in one line, for the terminal."""

from __future__ import annotations

from typing import Any

from pipeline.check.variant_selection import describe_loss
from pipeline.evaluate.metric_catalogue import CATALOGUE


def describe_result(checked: dict[str, Any], speed: dict[str, Any]) -> str:
    """Return the sentence that the stage prints: metric, parity, latency, variants."""
    metric, beside = checked["metric"], checked["against_baseline"]
    named = CATALOGUE[metric["name"]]
    interval = named.interval_text(*(metric[key] for key in ("value", "low", "high")))
    parts = [f"{named.title} {interval} on {metric['n']:,}"]
    if metric["name"] != "accuracy" and beside["better"]:
        parts.append(beside["sentence"])
    parity = max(row["max_difference"] for row in checked["rows"] if row["variant"] == "fp32")
    parts.append(f"parity {parity:.1e}, p50 {speed['rows'][0]['p50_ms']:.2f} ms")
    for variant, by_device in checked["variants"].items():
        verdicts = by_device.values()
        lost = max(verdict["lost"] for verdict in verdicts)
        # without the entry's name, which begins the line
        doubts = [
            verdict["why"].partition(": ")[2]
            for verdict in verdicts
            if verdict["undecided"] or not verdict["accepted"]
        ]
        parts += doubts or [f"{variant} {describe_loss(lost)}"]
    for chosen in speed.get("engines", {}).values():
        if chosen["engine"] != "onnxruntime":
            parts.append(f"{chosen['engine']} recommended with {chosen['variant']}")
    if not beside["better"]:
        parts.append(f"✗ {beside['sentence']}")  # last, where it is seen
    return "; ".join(parts)
