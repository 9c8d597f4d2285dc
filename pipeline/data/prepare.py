"""Build the dataset of an entry, as its task says."""

from __future__ import annotations

from typing import Any

from pipeline.data.dataset import Data
from pipeline.data.tasks import TASKS
from pipeline.params.schema import AnyData


def make(recipe: AnyData) -> tuple[Data, Any]:
    """Return the dataset of a `data:` block and, for images, the samples of each split."""
    return TASKS[recipe.task].make(recipe)
