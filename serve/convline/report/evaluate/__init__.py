"""How good a model is on a user's own images or series of known truth (`infer evaluate`).

Each task has a module. Images that cannot be read and series that are too short are listed and
counted; the metrics cover the others.
"""

from typing import Any, Protocol

from convline.report.evaluate import (
    captioning,
    classification,
    detection,
    forecasting,
    segmentation,
)
from convline.report.evaluate.answers import Report, Truth
from convline.report.text_table import format_table
from convline.runtime.model import Model
from convline.timeseries.read_options import ReadOptions

MOST_LISTED = 10  # names of what could not be read


class EvaluatedTask(Protocol):
    """What a task's module has."""

    def evaluate(self, model: Any, truth: Truth) -> Report:
        """Return the metrics, and under "unread" what they leave out."""

    def tables(self, report: Report) -> list[str]:
        """Return the metrics as text."""


TASKS: dict[str, EvaluatedTask] = {
    "classification": classification,
    "detection": detection,
    "segmentation": segmentation,
    "captioning": captioning,
    "forecasting": forecasting,
}


def evaluate(
    model: Model, path: str | None, labels: str | None, reading: ReadOptions | None = None
) -> Report:
    """Return the metrics of a model on `path`.

    path: a file of series, or images: a folder of class folders, a COCO file, or a folder of images
    and masks. labels: for images whose truth is somewhere else: a CSV of labels, a COCO file, or a
    folder of masks. reading: how a file of series is read.
    """
    task = model.file.task
    report = TASKS[task].evaluate(model, Truth(path, labels, reading))
    return {"task": task, "model": model.name, **report}


def format_text(report: Report) -> str:
    """Return a report as tables."""
    tables = TASKS[report["task"]].tables(report)
    if unread := report["unread"]:
        rows = [["", one["path"], one["error"]] for one in unread[:MOST_LISTED]]
        if len(unread) > MOST_LISTED:
            rows.append(["", f"and {len(unread) - MOST_LISTED} more (--json lists all)"])
        tables.append(
            f"not evaluated: {len(unread)}, not in the metrics above\n{format_table(rows)}"
        )
    return "\n\n".join(tables)
