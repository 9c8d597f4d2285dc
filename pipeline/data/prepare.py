"""Build the dataset of an entry, as its task says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pipeline.data.dataset import Data
from pipeline.data.tasks import TASKS, classification
from pipeline.params.schema import AnyData, ImageData


def make(recipe: AnyData, work: Path | None = None) -> tuple[Data, Any]:
    """Return the dataset of a `data:` block and, for images, the samples of each split.

    work: the folder where a training split may be written as shards; None: it is an array.
    """
    if isinstance(recipe, ImageData) and recipe.layout != "array":  # of classification alone
        return classification.make(recipe, work)
    return TASKS[recipe.task].make(recipe)
