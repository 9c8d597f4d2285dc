"""Which test windows stage data writes as raw CSV files, for stages check and infer."""

from __future__ import annotations

import numpy as np

from pipeline.data.dataset import RAW_WINDOWS, spread

MAX_RAW_WINDOWS = 400  # as many as raw images; each may be a file
MAX_RAW_ROWS = 50_000  # of all files together, a few megabytes


def choose_raw_windows(windows: int, context: int) -> np.ndarray:
    """Return the numbers of the test windows whose histories, of `context` rows, are written.

    All of them where they are at most MAX_RAW_WINDOWS and MAX_RAW_ROWS together, so that the served
    metric is that of the whole test split; else as many, but at least RAW_WINDOWS, spread evenly.
    """
    at_most = max(RAW_WINDOWS, min(MAX_RAW_WINDOWS, MAX_RAW_ROWS // context))
    return spread(windows, at_most)
