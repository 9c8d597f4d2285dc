"""A column of text as whole numbers and the different cells that they stand for: a thousand ids in millions of rows."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

Coded = tuple[npt.NDArray[np.int64], list[str]]  # codes (rows,), words in order of first appearance, all different


def encode(cells: Sequence[str]) -> Coded:
    """Return the codes of cells and the words in order of first appearance."""
    index: dict[str, int] = {}
    codes = np.fromiter((index.setdefault(cell, len(index)) for cell in cells), np.int64, len(cells))
    return codes, [*index]


def first_seen(codes: npt.NDArray[Any], words: Iterable[str]) -> Coded:
    """Return a column whose words come in any order, stand there twice or are unused, as `encode` gives it."""
    named = [*words]
    first = np.full(len(named), len(codes))
    first[codes[::-1]] = np.arange(len(codes))[::-1]  # of equal places the last that is written stays
    order = np.argsort(first, kind="stable")[: np.count_nonzero(first < len(codes))]
    ranks, there = encode([named[place] for place in order.tolist()])
    rank = np.zeros(len(named), np.int64)
    rank[order] = ranks
    return rank[codes], there
