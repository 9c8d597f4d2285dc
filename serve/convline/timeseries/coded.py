"""A column of text as whole numbers and the different cells that they stand for: a thousand ids in millions of rows."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

Coded = tuple[
    npt.NDArray[Any], list[str]
]  # whole numbers (rows,), words in order of first appearance, all different


def encode_words(cells: Sequence[str]) -> Coded:
    """Return the codes of cells and the words in order of first appearance."""
    index: dict[str, int] = {}
    codes = np.fromiter(
        (index.setdefault(cell, len(index)) for cell in cells), np.int64, len(cells)
    )
    return codes, [*index]


def order_by_appearance(codes: npt.NDArray[Any], words: Iterable[str]) -> Coded:
    """Return a column whose words come in any order, stand there twice or are unused, as `encode` gives it."""
    named = [*words]
    starts = np.concatenate([[0], np.flatnonzero(codes[1:] != codes[:-1]) + 1])[
        : len(codes)
    ]  # of equal neighbours
    first = np.full(len(named), len(codes))
    first[codes[starts[::-1]]] = starts[::-1]  # of equal places the last that is written stays
    order = np.argsort(first, kind="stable")[: np.count_nonzero(first < len(codes))]
    ranks, there = encode_words([named[place] for place in order.tolist()])
    rank = np.zeros(len(named), np.int64)
    rank[order] = ranks
    return codes if np.array_equal(rank, np.arange(len(there))) else rank[codes], there


def text_of(cell: Any) -> str:
    """Return a cell of any type as text; bytes, as which some write text to Parquet, are UTF-8."""
    return cell.decode("utf-8", "surrogateescape") if isinstance(cell, bytes) else str(cell)
