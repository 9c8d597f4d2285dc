"""The limits of the gate: each function returns the sentence that stops the line, or None."""

from __future__ import annotations

from typing import Any

from pipeline.check.parity import MAX_ROUNDING_ERROR
from pipeline.evaluate.metric_catalogue import CATALOGUE
from pipeline.params.schema import ERROR_LIMIT

# Of accuracies and the like: rounding may decide a tie of one image; two of 360 are a fault.
PROPORTION_LIMIT = 0.005


def document_mismatch(name: str, document: dict[str, Any], about: dict[str, Any]) -> str | None:
    """Return the sentence for a model document that is not of the entry's data."""
    rule = {key: value for key, value in document["input"].items() if key != "range"}
    promised = document | {"input": rule}  # stage export adds the range, of the network
    expected = about | {"name": name}
    for key in ("name", "task", "labels", "words", "input", "forecast"):
        if promised.get(key) != expected.get(key):
            values = (
                f"{shorten(expected.get(key))} as the entry has, got {shorten(promised.get(key))}"
            )
            return f"{name}: model.onnx: expected {key} {values}; run `dvc repro export@{name}`"
    return None


def shorten(value: Any, most: int = 120) -> str:
    text = repr(value)
    return text if len(text) <= most else f"{text[:most]}..."


def broken_limit(name: str, checked: dict[str, Any], cause: str | None = None) -> str | None:
    """Return the sentence for the first limit that check.json's content breaks.

    cause: what in the data makes float32 round much, and its cure, if there is any. Differences of
    the network's answers may come from it.
    """
    # rounding first: every other difference may come from it
    limits = broken_rounding, broken_parity, broken_golden, broken_stream, broken_metric
    for limit in limits:
        if sentence := limit(checked):
            may = cause and limit in (broken_parity, broken_metric)
            why = f"; it may be that {cause}" if may else ""
            return f"{name}: {sentence}{why}; see results/{name}/check.json"
    return None


def broken_rounding(checked: dict[str, Any]) -> str | None:
    for device, error in checked.get("rounding", {}).items():
        if not error <= MAX_ROUNDING_ERROR:
            off = f"off by {error:.1e} (limit {MAX_ROUNDING_ERROR:.1e})"
            cure = "unset NVIDIA_TF32_OVERRIDE, or install another version of onnxruntime-gpu"
            return f"{device} rounds float32 products, {off}; {cure}"
    return None


def broken_parity(checked: dict[str, Any]) -> str | None:
    """Return the sentence for the worst difference of fp32, or any output that is not finite."""
    broken = [
        row
        for row in checked["rows"]
        if not row["passed"] and (row["variant"] == "fp32" or not row["finite"])
    ]
    if not broken:
        return None
    row = max(broken, key=lambda row: (not row["finite"], row["max_difference"]))
    variant, where = row["variant"], f"{row['input']} input at batch {row['batch']}"
    who = f"{variant}: onnxruntime ({row['provider']})"
    if row["finite"]:
        limit = f"(limit {row['limit']:.1e}), worst in row {row['worst_row']}"
        return f"{who} differs from torch by {row['max_difference']:.1e} on {where} {limit}"
    cure = "" if variant == "fp32" else f"; take {variant} out of check.variants, or retrain"
    return (
        f"{who} has outputs that are not finite on {where}, first in row {row['worst_row']}{cure}"
    )


def broken_golden(checked: dict[str, Any]) -> str | None:
    for row in checked["golden"]:
        if not row["difference"] <= row["limit"]:
            who = f"the golden samples of {row['variant']} replayed on {row['provider']}"
            return f"{who} differ by {row['difference']:.1e} (limit {row['limit']:.1e})"
    return None


def broken_stream(checked: dict[str, Any]) -> str | None:
    for row in checked.get("streams", []):
        if not row["difference"] <= row["limit"]:
            gap = f"{row['difference']:.1e} (limit {row['limit']:.1e})"
            return f"a stream on {row['provider']} differs from whole windows by {gap}"
    return None


def broken_metric(checked: dict[str, Any]) -> str | None:
    """Return the sentence for a metric that onnxruntime changes: a proportion, or an error."""
    metric = checked["metric"]
    is_proportion = CATALOGUE[metric["name"]].unit == "proportion"
    limit = PROPORTION_LIMIT if is_proportion else ERROR_LIMIT * abs(metric["torch"])
    if not is_proportion:  # errors below what may differ are rounding, as of an exact forecast
        rows = [row for row in checked["rows"] if row["variant"] == "fp32"]
        floor = min(row["limit"] for row in rows) ** 2
        limit = floor if metric["torch"] < floor else limit
    if abs(metric["value"] - metric["torch"]) <= limit:
        return None
    values = f"{metric['value']:.4g} under onnxruntime, {metric['torch']:.4g} under torch"
    return f"{metric['name']} is {values} (limit {limit:.1e})"


def no_better_than_baseline(name: str, checked: dict[str, Any], baseline: str) -> str | None:
    """Return the sentence for a network no better than its best baseline.

    baseline: `check.baseline` of params.yaml; only "refuse" stops the line.
    """
    beside = checked["against_baseline"]
    if baseline != "refuse" or beside["better"]:
        return None
    cure = "train it longer, give it more data, or set `check.baseline: report`"
    return f"{name}: {beside['sentence']}; {cure}"
