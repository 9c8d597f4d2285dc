"""Which variants of an entry may ship, and which of them is recommended on a device."""

from __future__ import annotations

from typing import Any

import numpy as np

from pipeline.evaluate.bootstrap import paired_accuracy_difference

MIN_SPEEDUP = 1.1  # over fp32, for a recommendation: timings differ from run to run
FEW_IMAGES = 1000  # below this many test images the sentence says that the verdict is weak


def judge_variant(
    name: str,
    rows: list[dict[str, Any]],
    probabilities: np.ndarray,
    fp32: np.ndarray,
    y: np.ndarray,
    budget: float,
) -> dict[str, Any]:
    """Return whether a variant may ship, why, and how its accuracy differs from the fp32 file's.

    rows: of its parity; probabilities and fp32 (N, K): of the variant and of the fp32 file for
    images with labels y (N,). It may lose `budget` of accuracy, or two images.
    """
    correct, fp32_correct = probabilities.argmax(1) == y, fp32.argmax(1) == y
    lost, low, high = paired_accuracy_difference(fp32_correct, correct)
    failed = [row for row in rows if not row["passed"]]
    accepted = not failed and lost <= max(budget, 2 / len(y))
    why = (
        f"loses {100 * lost:.2f} points of accuracy [{100 * low:.2f}, {100 * high:.2f}] "
        f"(limit {100 * budget:.2g} points and two images)"
    )
    if failed:
        worst = max(row["max_difference"] for row in failed)
        why = f"differs from torch by {worst:.1e} (limit {failed[0]['limit']:.1e})"
    why += "" if accepted else "; it does not ship"
    why += f", a weak verdict on {len(y)} images" if len(y) < FEW_IMAGES else ""
    return {
        "accepted": accepted,
        "why": f"{name}: {rows[0]['variant']} {why}",
        "accuracy": float(correct.mean()),
        "lost": lost,
        "lost_low": low,
        "lost_high": high,
        "top1_agreement": float((probabilities.argmax(1) == fp32.argmax(1)).mean()),
    }


def recommend_variant(
    device: str,
    timings: list[dict[str, Any]],
    fp32: float,
    variants: dict[str, dict[str, dict[str, Any]]],
) -> dict[str, Any]:
    """Return the recommended variant, why, and the Pareto front of latency at batch 1 and accuracy.

    The fastest variant that may ship is recommended, if it is MIN_SPEEDUP faster than fp32 both at
    batch 1 and in its best throughput. timings: rows of speed.json; fp32: accuracy or error of the
    fp32 file; variants: what `judge_variant` returned, by variant and device.
    """
    rows = [row for row in timings if row["device"] == device]
    timed = {row["variant"] for row in rows}
    accepted = {
        variant: by_device[device]["accuracy"]
        for variant, by_device in variants.items()
        if variant in timed and by_device[device]["accepted"]
    }
    accuracy = {"fp32": fp32, **accepted}
    latency = {
        v: next(r["p50_ms"] for r in rows if (r["variant"], r["batch"]) == (v, 1)) for v in accuracy
    }
    throughput = {v: max(r["per_second"] for r in rows if r["variant"] == v) for v in accuracy}

    def dominated(v: str) -> bool:
        better = [o for o in accuracy if latency[o] <= latency[v] and accuracy[o] >= accuracy[v]]
        return any((latency[o], accuracy[o]) != (latency[v], accuracy[v]) for o in better)

    speedups = {
        v: (latency["fp32"] / latency[v], throughput[v] / throughput["fp32"]) for v in accepted
    }
    best = max(speedups, key=lambda v: min(speedups[v]), default="fp32")
    if best != "fp32" and min(speedups[best]) < MIN_SPEEDUP:
        best = "fp32"
    sentence = "{} has {:.2f} times the speed of fp32 at batch 1, {:.2f} at the best"
    sentences = [sentence.format(v, *both) for v, both in speedups.items()]
    front = [v for v in accuracy if not dominated(v)]
    return {"variant": best, "why": "; ".join(sentences) or "nothing else ships", "front": front}
