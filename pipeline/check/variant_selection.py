"""Which variants of an entry may ship, and which of them is recommended on a device."""

from __future__ import annotations

import math
from typing import Any

from pipeline.check.metric_loss import MetricLoss
from pipeline.evaluate.metric_catalogue import CATALOGUE
from pipeline.params.schema import Check

MIN_SPEEDUP = 1.1  # over fp32, for a recommendation: timings differ from run to run
ROUNDED = ("fp16", "bf16")  # within a limit for every input
FEW_IMAGES = 1000  # below this many test images the sentence says that the verdict is weak


def images_needed(budget: float) -> int:
    """Return how many test images can decide whether a variant loses more accuracy than `budget`.

    With fewer, the budget is less than two images, which chance alone may cost.
    """
    return math.ceil(2 / budget - 1e-9)  # 2 / .005 must not round up to 401


def judge_variant(
    name: str,
    metric: str,
    rows: list[dict[str, Any]],
    loss: MetricLoss,
    checks: Check,
    refused: str = "it does not ship",
) -> dict[str, Any]:
    """Return whether a variant may ship, why, and how its metric differs from the fp32 file's.

    metric: its name; rows: of the variant's parity; refused: what a refusal means, for the reason.

    int8 may lose `check.budget` of the metric. It is undecided where the test images cannot tell,
    unless it certainly loses more: it then ships only with `check.undecided: package`. fp16 and
    bf16 may lose the budget, or two images where these are more. Their metric is no better known,
    but outputs must be within a limit of torch's for every input, so that only images at the edge
    between two answers can change. int8 has no such limit.
    """
    variant, failed = rows[0]["variant"], [row for row in rows if not row["passed"]]
    undecided = False
    if failed:
        worst = max(row["max_difference"] for row in failed)
        accepted = False
        why = f"differs from torch by {worst:.1e} (limit {failed[0]['limit']:.1e})"
        why += f"; {refused}"
    else:
        undecided, accepted, why = judge_loss(
            variant, CATALOGUE[metric].noun, loss, checks, refused
        )
    return {
        "accepted": accepted,
        "undecided": undecided,
        "why": f"{name}: {variant} {why}",
        metric: loss.value,
        "lost": loss.lost,
        "lost_low": loss.low,
        "lost_high": loss.high,
        "top1_agreement": loss.agreement,
    }


def judge_loss(
    variant: str, noun: str, loss: MetricLoss, checks: Check, refused: str
) -> tuple[bool, bool, str]:
    """Return whether a variant is undecided, whether it ships, and why.

    A loss of images that are right is undecided with fewer images than `images_needed`, another
    loss where its interval holds the budget. noun: of the metric.
    """
    budget, needed = checks.budget, images_needed(checks.budget)
    points, why = f"{100 * budget:.2g} points", describe_loss_with_interval(noun, *loss.interval)
    unknown = loss.n < needed if loss.counted else loss.high > budget
    if variant == "int8" and unknown and loss.low <= budget:
        ships = checks.undecided == "package"
        asked, found = "`check.undecided: package`", why
        why = f"is undecided: {loss.n} test images cannot decide a loss of {points}"
        why += f" ({needed} needed)" if loss.counted else ""
        why += f", it {found}; "
        why += f"it ships because of {asked}" if ships else f"{asked} ships it anyway"
        return True, ships, why
    ships = loss.lost <= (max(budget, 2 / loss.n) if variant in ROUNDED else budget)
    why += f" (limit {points}{' or two images' if variant in ROUNDED else ''})"
    why += "" if ships else f"; {refused}"
    why += f", a weak verdict on {loss.n} images" if loss.counted and loss.n < FEW_IMAGES else ""
    return False, ships, why


def describe_loss(lost: float) -> str:
    """Return "loses 0.28 points", or "gains 4.23 points" where the accuracy is higher."""
    return f"{'gains' if lost < 0 else 'loses'} {100 * abs(lost):.2f} points"


def describe_loss_with_interval(noun: str, lost: float, low: float, high: float) -> str:
    """Return `describe_loss` with the metric and the 95 % interval of the loss, or of the gain."""
    ends = (-high, -low) if lost < 0 else (low, high)
    return "{} of {} [{:.2f}, {:.2f}]".format(
        describe_loss(lost), noun, *(100 * end + 0.0 for end in ends)
    )


def recommend_variant(
    device: str,
    timings: list[dict[str, Any]],
    metric: dict[str, Any],
    variants: dict[str, dict[str, dict[str, Any]]],
) -> dict[str, Any]:
    """Return the recommended variant, why, and the Pareto front of latency at batch 1 and metric.

    The fastest variant that may ship is recommended, if it is MIN_SPEEDUP faster than fp32 both at
    batch 1 and in its best throughput. timings: rows of speed.json; metric: of the fp32
    file; variants: what `judge_variant` returned, by variant and device.
    """
    rows = [row for row in timings if row["device"] == device]
    timed = {row["variant"] for row in rows}
    accepted = {
        variant: by_device[device][metric["name"]]
        for variant, by_device in variants.items()
        if variant in timed and by_device[device]["accepted"]
    }
    accuracy = {"fp32": metric["value"], **accepted}
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
