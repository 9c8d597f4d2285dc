"""A check in few numbers, for metrics.json, and in one line, for the terminal."""

from __future__ import annotations

from typing import Any


def main_metrics(checked: dict[str, Any]) -> dict[str, float]:
    """Return the flat numbers of metrics.json; errors are in the units of the series."""
    metric = checked["metric"]
    name = metric["name"]
    numbers = {
        f"test_{name}": metric["value"],
        f"test_{name}_low": metric["low"],
        f"test_{name}_high": metric["high"],
    }
    if name == "accuracy":
        numbers["test_balanced_accuracy"] = metric["balanced_accuracy"]
        numbers["test_calibration_error"] = metric["calibration_error"]
    else:
        if metric["intervals"]:
            numbers["coverage"] = metric["intervals"][0]["measured"]
        if metric["mase"] is not None:
            numbers["mase"] = metric["mase"]
        if naive := metric["baselines"]["seasonal naive"]["mse"]:  # 0: a perfect season
            numbers["mse_vs_seasonal_naive"] = metric["value"] / naive
    if retrieval := checked.get("retrieval"):
        numbers["precision_at_5"] = retrieval["precision"]
        numbers["mean_average_precision"] = retrieval["mean_average_precision"]
    for variant, by_device in checked["variants"].items():
        numbers[f"{variant}_accuracy"] = next(iter(by_device.values()))["accuracy"]
    return numbers


def describe_result(checked: dict[str, Any], speed: dict[str, Any]) -> str:
    """Return the sentence that the stage prints: metric, parity, latency, variants."""
    metric, beside = checked["metric"], checked["against_baseline"]
    interval = f"{metric['value']:.4g} [{metric['low']:.4g}, {metric['high']:.4g}]"
    parts = [f"{metric['name']} {interval} on {metric['n']:,}"]
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
        parts += doubts or [f"{variant} loses {100 * lost:.2f} points"]
    if not beside["better"]:
        parts.append(f"✗ {beside['sentence']}")  # last, where it is seen
    return "; ".join(parts)
