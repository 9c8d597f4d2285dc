"""Exact match of an entry's captions of the test split, and what it is worth."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
from convline.metrics.captions import GRADES, cider_scores, exact_matches, grade_captions
from convline.model_file.schema import SPECIAL_WORDS
from convline.report.confidence_interval import wilson_interval

from pipeline.evaluate.bootstrap import mean_interval

END, UNKNOWN = map(SPECIAL_WORDS.index, ("<end>", "<unknown>"))  # ids


def measure_captions(
    captions: Sequence[str], torch_captions: Sequence[str], references: Sequence[Sequence[str]]
) -> dict[str, Any]:
    """Return the share of n captions that equal one of their image's references, and its worth.

    `torch` is the share of the same network in PyTorch; `cider` the mean of CIDEr-D, with the ends
    of its interval; `grades` the number of captions of each grade; `baseline` the share of the most
    frequent reference, answered for every image.
    """
    n = len(references)
    right = exact_matches(captions, references)
    low, high = wilson_interval(int(right.sum()), n)
    scores = cider_scores(captions, references)
    cider_low, cider_high = mean_interval(scores)
    grades = grade_captions(captions, references)
    [[often, _]] = Counter(text for texts in references for text in texts).most_common(1)
    return {
        "name": "exact_match",
        "value": float(right.mean()),
        "low": low,
        "high": high,
        "n": n,
        "torch": float(exact_matches(torch_captions, references).mean()),
        "cider": float(scores.mean()),
        "cider_low": cider_low,
        "cider_high": cider_high,
        "grades": {grade: grades.count(grade) for grade in GRADES},
        "baseline": {
            "name": f"always answering {often!r}, the most frequent caption",
            "value": float(exact_matches([often] * n, references).mean()),
        },
    }


def reference_texts(y: np.ndarray, words: Sequence[str]) -> list[list[str]]:
    """Return the references of each image of y int64 (N, R, L), word ids that end with <end>.

    A word that the training captions do not have is "_", so that no caption equals it.
    """
    names = ["_" if k == UNKNOWN else word for k, word in enumerate(words)]
    return [
        [
            " ".join(names[word] for word in ids[: [*ids].index(END)])
            for ids in references
            if ids[0] >= 0
        ]
        for references in y
    ]
