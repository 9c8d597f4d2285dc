"""How the shipped command's answers are compared with stage check's: a module for each task."""

from __future__ import annotations

from typing import Any, Protocol

from pipeline.infer.request import Request
from pipeline.infer.tasks import (
    captioning,
    classification,
    detection,
    forecasting,
    segmentation,
)


class InferTask(Protocol):
    """The functions of a task's module."""

    def serve(self, request: Request) -> dict[str, Any]:
        """Return the metric of the shipped command on the raw files, and that of the check on the
        same inputs: the content of infer.json.
        """


TASKS: dict[str, InferTask] = {
    "classification": classification,
    "forecasting": forecasting,
    "detection": detection,
    "segmentation": segmentation,
    "captioning": captioning,
}
