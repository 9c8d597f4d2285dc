"""Captioning: captions that equal a reference, found by the search that `infer` uses."""

from __future__ import annotations

from typing import Any

import numpy as np
from convline.metrics.captions import exact_matches

from pipeline.check.differences import compare as compare
from pipeline.check.metric_loss import MetricLoss, counted_loss
from pipeline.check.predictions import Outputs
from pipeline.check.predictions import record as record
from pipeline.data.dataset import Data
from pipeline.evaluate.captions import measure_captions, reference_texts
from pipeline.evaluate.metrics import compare_with_constant

BEYOND = ""  # no row of parity counts any


def answers(model: Any, x: np.ndarray) -> Outputs:
    """Return the captions of images x, str (N,)."""
    return [np.array([caption.text for caption in model.caption(x)], dtype=np.str_)]


def measure(
    found: Outputs, torch: Outputs, source: Data
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Return exact match and its worth, and {"captions" (N,), "references" (N, R), "y"}."""
    y = np.asarray(source.y["test"])
    references = reference_texts(y, source.about["words"])
    metric = measure_captions([*found[0]], [*torch[0]], references)
    most = max(map(len, references))
    filled = [texts + [""] * (most - len(texts)) for texts in references]
    return metric, {"captions": found[0], "references": np.array(filled), "y": y}


def compare_with_baseline(metric: dict[str, Any], source: Data) -> dict[str, Any]:
    """Return how exact match compares with that of the most frequent caption."""
    return compare_with_constant(metric)


def lose(fp32: Outputs, found: Outputs, source: Data) -> MetricLoss:
    """Return the exact match that the variant loses, and the share of equal captions."""
    references = reference_texts(np.asarray(source.y["test"]), source.about["words"])
    fp32_right, right = (exact_matches([*one[0]], references) for one in (fp32, found))
    return counted_loss(fp32_right, right, fp32[0] == found[0])
