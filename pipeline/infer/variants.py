"""Serve each variant of an entry that stage check compared, on each device."""

from __future__ import annotations

from typing import Any

import numpy as np
from convline.model_file.registry import variant_file_name

from pipeline.core.paths import OUT
from pipeline.data import dataset
from pipeline.infer.request import Request
from pipeline.infer.tasks import TASKS


def serve_variants(name: str) -> dict[tuple[str, str], dict[str, Any]]:
    """Return the result of serving by (device, variant), for each pair that stage check compared.

    `n` of the `test` inputs of the test split have raw files. The first variant writes
    predictions.jsonl. A variant that the check refused is not served.
    """
    about, folder = dataset.load(name).about, OUT / name
    with np.load(folder / "check" / "test.npz") as arrays:
        checked = dict(arrays)
    served: dict[tuple[str, str], dict[str, Any]] = {}
    for key in [key for key in checked if key.startswith("predictions_")]:
        _, device, variant = key.split("_")
        if not (OUT / "dist" / name / variant_file_name(variant)).exists():
            continue
        file = f"predictions.{device}.{variant}.jsonl" if served else "predictions.jsonl"
        output = folder / "infer" / file
        request = Request(name, about, checked, checked[key], device, variant, output)
        facts = TASKS[about["task"]].serve(request)
        served[device, variant] = facts | {"test": about["test"]}
    return served
