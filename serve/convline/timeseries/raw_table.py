"""Columns of text as codes and words, and the number that a cell of text holds."""

import math
import re
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

# Codes (rows,) and the different words that they stand for, in order of first appearance.
Encoded = tuple[npt.NDArray[Any], list[str]]

MISSING = frozenset({"", "na", "n/a", "nan", "null", "none"})  # compared in lower case
GROUPED = re.compile(r"[+-]?[1-9]\d{0,2}(\.\d{3})+(,\d*)?")  # 1.234.567,8: points between thousands


def encode_words(cells: Sequence[str]) -> Encoded:
    """Return the codes of cells, and the different cells in order of first appearance."""
    index: dict[str, int] = {}
    codes = np.fromiter(
        (index.setdefault(cell, len(index)) for cell in cells), np.int64, len(cells)
    )
    return codes, [*index]


def order_by_appearance(codes: npt.NDArray[Any], words: Iterable[str]) -> Encoded:
    """Return what `encode_words` returns for a column whose words have any order, repeat or are unused."""
    named = [*words]
    first = np.full(len(named), len(codes))
    first[codes[::-1]] = np.arange(len(codes))[::-1]  # the last assignment, of the first row, stays
    order = np.argsort(first, kind="stable")[: np.count_nonzero(first < len(codes))]
    ranks, ordered = encode_words([named[place] for place in order.tolist()])
    rank = np.zeros(len(named), np.int64)
    rank[order] = ranks
    return codes if np.array_equal(rank, np.arange(len(ordered))) else rank[codes], ordered


def text_of(cell: Any) -> str:
    """Return a cell of any type as text; some libraries write text to Parquet as bytes of UTF-8."""
    return cell.decode("utf-8", "surrogateescape") if isinstance(cell, bytes) else str(cell)


def parse_number(cell: str, decimal: str) -> float | None:
    """Return the number of a cell, nan for a missing one, None for text.

    Python's own float() would also accept 1_000 and inf, which are text here.

    decimal: the sign "." or ","; with a comma, points between thousands are left out.
    """
    if cell.lower() in MISSING:
        return math.nan
    if decimal == "," and "." in cell:
        if not GROUPED.fullmatch(cell):
            return None
        cell = cell.replace(".", "")
    if "_" in cell:
        return None
    try:
        value = float(cell.replace(decimal, "."))
    except ValueError:
        return None
    return value if math.isfinite(value) else None
