"""What a network does with its input and gives as output, by task: a module for each."""

from __future__ import annotations

from typing import Any, Protocol

from torch import nn

from pipeline.data.dataset import Data
from pipeline.network.tasks import captioning, classification, detection, forecasting, segmentation
from pipeline.params.schema import Training


class NetworkTask(Protocol):
    """The functions of a task's module."""

    def assemble(self, recipe: Training, data: Data) -> nn.Module:
        """Return the network of a recipe, sized by its data, as it is exported.

        A module with `net`, the architecture, and buffers `mean` and `scale`. It takes inputs as
        `Data.served` has them and returns the outputs of the graph.
        """

    def require_output(self, net: Any, recipe: Training, data: Data) -> None:
        """Raise StageError where the architecture's output for one sample has not the shape that
        the data ask for.
        """


TASKS: dict[str, NetworkTask] = {
    "classification": classification,
    "forecasting": forecasting,
    "detection": detection,
    "segmentation": segmentation,
    "captioning": captioning,
}
