"""Rows of an output table, one by one as dictionaries or many at once as columns."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

Row = dict[str, str | float | None]
Columns = dict[str, type]  # name -> str or float, in order
Words = tuple[list[str | None], npt.NDArray[np.int64]]  # words, and which of them each row holds
# A column: text, numbers (float64, nan is none) or plain ASCII.
Cells = list[str | None] | Words | npt.NDArray[Any]
Block = dict[str, Cells]  # rows as columns


def block_of(rows: Sequence[Row]) -> Block:
    """Return rows, of the same columns each, as columns."""
    block: Block = {}
    for name in rows[0] if rows else ():
        cells: list[Any] = [row[name] for row in rows]
        words = all(cell is None or isinstance(cell, str) for cell in cells)
        block[name] = cells if words else np.array(cells, np.float64)  # None becomes nan
    return block


def python_values(cells: Cells) -> Sequence[str | float | None]:
    """Return a column as text or numbers of Python, None where a cell is missing."""
    if isinstance(cells, tuple):
        return [cells[0][code] for code in cells[1].tolist()]
    if not isinstance(cells, np.ndarray):
        return cells
    if cells.dtype.kind == "f":
        return [None if math.isnan(value) else value for value in cells.tolist()]
    return [cell.decode() or None for cell in cells.tolist()]
