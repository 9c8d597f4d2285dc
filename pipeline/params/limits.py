"""What may stand under `check:` of params.yaml, what is made beside fp32 and what the gate allows; and `explain:`."""

from __future__ import annotations

from typing import Any

from pipeline.params.schema import SEED, Field, check_section

ERROR_LIMIT = 1e-3  # of a forecast's error, relative: what onnxruntime's may differ from torch's by, and the served one
CHECK = {
    "atol": Field(float, 1e-4, least=1e-9),
    "fp16_atol": Field(float, 1e-2, least=1e-9),
    "random": Field(int, 64, least=1),
    "seed": Field(int, 7, least=0, most=SEED),
    "devices": Field(
        list, [], item=str, choices=("cpu", "cuda", "tensorrt")
    ),  # none named: all that are there
    "variants": Field(list, ["int8", "fp16"], item=str, choices=("int8", "fp16")),
    "budget": Field(float, 0.005, least=0, most=1),  # accuracy that a variant may lose
    "baseline": Field(
        str, "report", choices=("report", "refuse")
    ),  # a network no better than its best baseline
    "int8": Field(dict, {}),
    "batches": Field(list, [1, 8, 32, 128], item=int, least=1, some=True),
    "threads": Field(list, [1], item=int, least=1),
    "seconds": Field(float, 0.3, least=0),
}
INT8 = {
    "methods": Field(
        list,
        ["MinMax", "Entropy"],
        item=str,
        choices=("MinMax", "Entropy", "Percentile"),
        some=True,
    ),
    "images": Field(int, 128, least=1),
    "tries": Field(int, 8, least=1),  # graphs that are made and measured, at most: never seconds
}
EXPORTED = (
    "atol",
    "fp16_atol",
    "random",
    "seed",
    "variants",
    "budget",
    "int8",
)  # what stage export follows, too
EXPLAIN = {  # counts, never seconds: what is drawn and measured is the same on every machine
    "seed": Field(int, 0, least=0, most=SEED),
    "images": Field(int, 6, least=1, most=12),  # of a classifier's test split, shown
    "of": Field(str, "score", choices=("score", "softmax")),  # what gradients are of
    "steps": Field(int, 12, least=2),  # of integrated gradients
    "samples": Field(int, 6, least=1),  # of SmoothGrad, for each image
    "perturbations": Field(int, 40, least=8),  # of LIME, for each image and seed
    "judged": Field(int, 8, least=4),  # images that the quality of the maps is measured on, at most
    "macs": Field(
        int, 1_200_000_000, least=1
    ),  # multiply-adds of those images together, where that is fewer
    "resamples": Field(int, 1000, least=100),  # of the bootstrap
    "searched": Field(int, 100, least=9),  # images that units' favourites are searched in
    "points": Field(int, 200, least=10),  # of the map of the last hidden layer, at most
    "attack_gmacs": Field(
        float, 1.0, least=0
    ),  # 1e9 multiply-adds of the images that are attacked, in one pass
    "synthesis_steps": Field(int, 48, least=4),  # of ascent, for recipes with `synthesis: true`
}


def check_limits(raw: dict[str, Any]) -> dict[str, Any]:
    """Return `check:` with its defaults, or raise `ParamsError` that names the place."""
    found = check_section("check", raw, CHECK)
    return found | {"int8": check_section("check.int8", found["int8"], INT8)}
