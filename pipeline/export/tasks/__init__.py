"""What is exported and how it is described, by task: a module for each."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
import onnx
from torch import nn

from pipeline.data.dataset import Data
from pipeline.export.tasks import captioning, classification, detection, forecasting, segmentation


class ExportTask(Protocol):
    """The names of a task's module. Inputs are as `Data.served` has them."""

    @property
    def OUTPUT_NAMES(self) -> tuple[str, ...]:
        """Names of the outputs that parity and golden samples are about."""

    @property
    def count_correct(self) -> Callable[[list[np.ndarray], np.ndarray], float] | None:
        """How many of the inputs a graph gets right, or a metric in [0, 1] times their number.

        From its outputs and `Data.y`; the search for an int8 graph maximises it. None: the task has
        no precision but fp32.
        """

    @property
    def answers(self) -> Callable[[Any, np.ndarray, dict[str, Any]], list[np.ndarray]] | None:
        """What a search on the host makes of the network's outputs for inputs, as torch has them.

        From the network, the inputs and results/<entry>/data.json. None: outputs are answers.
        """

    def export(self, net: nn.Module, x: np.ndarray) -> onnx.ModelProto:
        """Return the checked graph of a network; x: two inputs or more."""

    def random_inputs(self, source: Data, seed: int, count: int) -> np.ndarray:
        """Return random inputs (count, ...) of the shape and type of real ones."""

    def parity_limit(self, outputs: list[np.ndarray], relative: float) -> float:
        """Return the largest difference from torch's outputs that stage check allows."""

    def difference(self, first: list[np.ndarray], second: list[np.ndarray]) -> float:
        """Return the difference of outputs for the same inputs, as `parity_limit` limits it."""

    def document_fields(self, about: dict[str, Any]) -> dict[str, Any]:
        """Return the task's own keys of the model document; about: results/<entry>/data.json."""

    def measured_fields(self, net: nn.Module, source: Data) -> dict[str, Any]:
        """Return keys of the model document that depend on the trained network."""

    def golden_inputs(self, about: dict[str, Any], x: np.ndarray) -> dict[str, np.ndarray]:
        """Return the arrays of the golden samples x by their key in the document."""


TASKS: dict[str, ExportTask] = {
    "classification": classification,
    "forecasting": forecasting,
    "detection": detection,
    "segmentation": segmentation,
    "captioning": captioning,
}
