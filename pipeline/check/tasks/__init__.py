"""What stage check measures in another way for each task: a module each."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np

from pipeline.check.metric_loss import MetricLoss
from pipeline.check.predictions import Model, Outputs
from pipeline.check.tasks import captioning, classification, detection, forecasting, segmentation
from pipeline.data.dataset import Data


class CheckTask(Protocol):
    """The names of a task's module."""

    @property
    def BEYOND(self) -> str:
        """What `beyond` of a row of parity counts, for the verdict, with {count} and {atol}."""

    @property
    def lose(self) -> Callable[[Outputs, Outputs, Data], MetricLoss] | None:
        """What a variant loses, from the answers of the fp32 file and its own.

        None: the task has no precision but fp32.
        """

    def answers(self, model: Model, x: np.ndarray) -> Outputs:
        """Return what the metric judges, for inputs as served."""

    def compare(
        self, model: Model, outputs: Outputs, expected: Outputs, count: int, close: float
    ) -> dict[str, Any]:
        """Return how the outputs for the first `count` rows differ from torch's.

        The keys are those of `row_differences`, and what only this task has.
        """

    def measure(
        self, found: Outputs, torch: Outputs, source: Data
    ) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """Return the metric of the answers for the test split, and the arrays of test.npz, for
        stage infer and the report. torch: the answers of the same network in PyTorch.
        """

    def record(self, found: Outputs) -> np.ndarray:
        """Return the array (N, ...) of answers that stage infer compares with."""

    def compare_with_baseline(self, metric: dict[str, Any], source: Data) -> dict[str, Any]:
        """Return {"better": bool, "sentence": str} about the metric and its best baseline."""


TASKS: dict[str, CheckTask] = {
    "classification": classification,
    "forecasting": forecasting,
    "detection": detection,
    "segmentation": segmentation,
    "captioning": captioning,
}
