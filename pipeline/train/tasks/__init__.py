"""What training minimises and counts, by task: a module for each."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import Tensor

from pipeline.data.dataset import Data
from pipeline.params.schema import ResolvedTrain
from pipeline.train.batches import Split, TrainingSplit
from pipeline.train.tasks import captioning, classification, detection, forecasting, segmentation


class TrainTask(Protocol):
    """The names of a task's module. `net` is what network.tasks assembles."""

    HAS_ACCURACY: bool  # whether `sum_correct` counts something

    def load_batches(self, source: Data, split: str, net: Any, on: torch.device) -> TrainingSplit:
        """Return a split on the device."""

    def forward(self, net: Any, x: Tensor, y: Tensor, train: ResolvedTrain) -> Any:
        """Return the network's outputs for a batch: a tensor, or a tuple of them.

        It runs under autocast. y: for networks that are told the truth while they train. In
        evaluation mode nothing may be drawn at random.
        """

    def objective(self, outputs: Any, y: Tensor, train: ResolvedTrain) -> Tensor:
        """Return the mean loss over the rows of a batch, a scalar, which the history records and a
        step minimises.
        """

    def auxiliary_loss(self, outputs: Any, y: Tensor, train: ResolvedTrain) -> Tensor | float:
        """Return what a step minimises besides, weighted: the losses of auxiliary heads."""

    def sum_correct(self, outputs: Any, y: Tensor) -> Tensor:
        """Return the sum over rows of the share that is right, a scalar."""

    def statistics_forward(self, net: Any) -> Callable[[Tensor], object]:
        """Return the function of x that runs every batch-normalized layer."""

    def finish(self, net: Any, source: Data, validation: Split) -> None:
        """Set what the network takes from the validation split once it is trained."""


TASKS: dict[str, TrainTask] = {
    "classification": classification,
    "forecasting": forecasting,
    "detection": detection,
    "segmentation": segmentation,
    "captioning": captioning,
}
