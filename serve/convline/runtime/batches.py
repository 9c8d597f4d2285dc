"""Batches of anything."""

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import TypeVar

Item = TypeVar("Item")
IN_FLIGHT = 2  # batches on a GPU at once: one is copied while the other is computed


def batched(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    """Yield the items in lists of `size`; the last may be shorter."""
    remaining = iter(items)
    while group := list(islice(remaining, size)):
        yield group
