"""Whether a training split is an array in memory or shards on disk."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import psutil

from pipeline.core.stage import note
from pipeline.data.splits import Sample
from pipeline.params.schema import ImageData

# Of this machine's memory, for the arrays of all splits: training copies them twice, to make them
# channels first and to bring them to the device, and needs room for the network.
MEMORY_SHARE = 0.25
CGROUP_LIMIT = Path("/sys/fs/cgroup/memory.max")  # of a container, in bytes, or "max"


def in_shards(recipe: ImageData, splits: Mapping[str, Sequence[Sample]]) -> bool:
    """Return whether the training split is written as shards, and say so where `auto` chose it."""
    if recipe.layout != "auto":
        return recipe.layout == "shards"
    rule, count = recipe.image_rule, sum(map(len, splits.values()))
    shape = (*rule.size, rule.channels)
    needed, memory = count * math.prod(shape), memory_limit()
    if needed <= MEMORY_SHARE * memory:
        return False
    images = f"{count:,} images of {' x '.join(map(str, shape))} are {needed / 2**30:.1f} GiB"
    limit = f"{MEMORY_SHARE:.0%} of {memory / 2**30:.1f} GiB of memory"
    note(f"layout: shards, since {images}, more than {limit}")
    return True


def memory_limit() -> int:
    """Return the bytes of memory that this machine, or its container, has."""
    total = int(psutil.virtual_memory().total)
    try:
        return min(total, int(CGROUP_LIMIT.read_text()))
    except (OSError, ValueError):
        return total
