"""What the report shows of an entry, by its task: a module and a template for each."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

from convline.model_file.onnx_file import ModelFile

from pipeline.report.live_demo import Demo
from pipeline.report.result_files import Entry
from pipeline.report.tasks import (
    captioning,
    classification,
    detection,
    forecasting,
    segmentation,
)


class ReportTask(Protocol):
    """The names of a task's module. `about` is the content of results/<entry>/data.json."""

    TITLE: str  # of its table of entries
    SAMPLES: str  # what a split holds: "images" or "windows"
    # of metrics.json: those beside an entry's name in the table, and those behind its costs
    METRICS: tuple[list[str], list[str]]
    TEMPLATE: str  # the task's sections of an entry's page

    def describe_targets(self, about: dict[str, Any]) -> str:
        """Return what is predicted: "10 classes"."""

    def describe_test(self, about: dict[str, Any]) -> str:
        """Return how much is predicted: "360 test images"."""

    def serve_command(self, entry: Entry) -> str:
        """Return the `infer` command for the raw test files that stage data wrote."""

    def verdicts(self, entry: Entry) -> dict[str, str]:
        """Return what stage check found beside the limits, in words, by title."""

    def analyse(self, entry: Entry, img: Path) -> dict[str, Any] | None:
        """Draw pictures into `img`; return the context of TEMPLATE.

        None before stage check has run on these data.
        """

    def test_samples(self, entry: Entry) -> tuple[Any, ...]:
        """Return what is equal for two entries of a data set only if they have the same test
        samples in one order. The entry has predictions.
        """

    def compare(self, entries: list[Entry], picture: Path) -> dict[str, Any]:
        """Return what compare.js needs of entries that have the same test samples.

        picture: where a picture of the samples is written; its suffix is added.
        """

    def demo(self, file: ModelFile) -> Demo | None:
        """Return what the Live page needs of a packaged file; None where it cannot run it."""


TASKS: dict[str, ReportTask] = {
    "classification": classification,
    "forecasting": forecasting,
    "detection": detection,
    "segmentation": segmentation,
    "captioning": captioning,
}
