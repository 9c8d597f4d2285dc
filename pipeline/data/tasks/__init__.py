"""What stage data does for each task: a file a task."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

from pipeline.data.dataset import Data
from pipeline.data.tasks import captioning, classification, detection, forecasting, segmentation


class DataTask(Protocol):
    """The functions of a task's module."""

    def make(self, recipe: Any) -> tuple[Data, Any]:
        """Return the data of a `data:` block, and the samples of each split where it is images."""

    def describe(self, about: dict[str, Any]) -> str:
        """Return the samples of each split and their size; about: content of data.json."""

    def write_raw(self, folder: Path, data: Data, samples: Any) -> None:
        """Write raw test files with their truth to raw/ in the stage's folder, for stage infer."""


TASKS: dict[str, DataTask] = {
    "classification": classification,
    "forecasting": forecasting,
    "detection": detection,
    "segmentation": segmentation,
    "captioning": captioning,
}
