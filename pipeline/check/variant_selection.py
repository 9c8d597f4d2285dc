"""Which variants of an entry may ship, and which of them is recommended on a device."""

from __future__ import annotations

from typing import Any

import numpy as np

from pipeline.evaluate import bootstrap

FASTER = 1.1  # a variant that is not so much faster than fp32 is not recommended: timings differ from run to run
WEAK = 1000  # test images below which a verdict on accuracy is marked as weak


def judge(
    name: str,
    rows: list[dict[str, Any]],
    got: np.ndarray,
    fp32: np.ndarray,
    y: np.ndarray,
    budget: float,
) -> dict[str, Any]:
    """Return whether a variant may ship, why, and its accuracy beside that of the fp32 file on the same images.

    rows: those of its parity; got, fp32: probabilities (N, K); y: labels (N,).
    """
    right, plain = got.argmax(1) == y, fp32.argmax(1) == y
    lost, low, high = bootstrap.paired_accuracy_difference(plain, right)
    allowed = max(budget, 2 / len(y))
    apart = [row for row in rows if not row["passed"]]
    points = f"loses {100 * lost:.2f} points of accuracy [{100 * low:.2f}, {100 * high:.2f}]"
    limit = f"limit {100 * budget:.2g} points and two images"
    if apart:
        worst = max(row["max_difference"] for row in apart)
        why = f"differs from torch by {worst:.1e} (limit {apart[0]['limit']:.1e}); it does not ship"
    elif lost > allowed:
        why = f"{points} ({limit}); it does not ship"
    else:
        why = f"{points} ({limit})"
    weak = f", a weak verdict on {len(y)} images" if len(y) < WEAK else ""
    return {
        "accepted": not apart and lost <= allowed,
        "why": f"{name}: {rows[0]['variant']} {why}{weak}",
        "accuracy": float(right.mean()),
        "lost": lost,
        "lost_low": low,
        "lost_high": high,
        "top1_agreement": float((got.argmax(1) == fp32.argmax(1)).mean()),
        "weak": len(y) < WEAK,
    }


def choose(
    device: str,
    timings: list[dict[str, Any]],
    fp32: float,
    variants: dict[str, dict[str, dict[str, Any]]],
) -> dict[str, Any]:
    """Return the Pareto front of latency at batch 1 and accuracy, and the variant that is recommended, with the reason.

    Recommended is the fastest that may ship, if it is FASTER than fp32 both at batch 1 and in its best throughput.
    timings: the rows of speed.json; fp32: its accuracy, or error; variants: the verdicts of `judge` by device.
    """
    rows = [row for row in timings if row["device"] == device]
    timed = {row["variant"] for row in rows}
    accepted = {
        v: by[device]["accuracy"]
        for v, by in variants.items()
        if v in timed and by[device]["accepted"]
    }
    accuracy = {"fp32": fp32, **accepted}
    slow = {
        v: next(r["p50_ms"] for r in rows if (r["variant"], r["batch"]) == (v, 1)) for v in accuracy
    }
    most = {v: max(r["per_second"] for r in rows if r["variant"] == v) for v in accuracy}

    def beaten(v: str) -> bool:
        better = [o for o in accuracy if slow[o] <= slow[v] and accuracy[o] >= accuracy[v]]
        return any((slow[o], accuracy[o]) != (slow[v], accuracy[v]) for o in better)

    gains = {v: (slow["fp32"] / slow[v], most[v] / most["fp32"]) for v in accepted}
    best = max(gains, key=lambda v: min(gains[v]), default="fp32")
    best = best if best in gains and min(gains[best]) >= FASTER else "fp32"
    words = "{} has {:.2f} times the speed of fp32 at batch 1, {:.2f} at the best"
    others = [words.format(v, *both) for v, both in gains.items()]
    front = [v for v in accuracy if not beaten(v)]
    return {"variant": best, "why": "; ".join(others) or "nothing else ships", "front": front}
