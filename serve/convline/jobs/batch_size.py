"""Measure which batch size, and how many workers, run fastest on this machine."""

import contextlib
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor

from convline.errors import DeviceMemoryError

BATCH_SIZES = (4, 8, 16, 32, 64)
MIN_GAIN = 1.05  # a larger batch must be faster by this factor
LONG_RUN_S = 0.05  # larger batches than one of this duration are not tried

RunBatch = Callable[[int], object]  # runs a batch of that many samples


def measure_batch_size(run: RunBatch, workers: int, sizes: Iterable[int] = BATCH_SIZES) -> int:
    """Return the batch size beyond which the throughput of all workers gains less than 5 %.

    Larger sizes are not tried after a long run, because a larger batch saves only the cost of a
    call, or after one that does not fit in the device's memory. If the first size does not fit, it
    is halved until it does.
    """
    best, best_throughput = 0, 0.0
    for size in sizes:
        try:
            throughput = _throughput(run, size, workers)
        except DeviceMemoryError:
            return best or _largest_that_fits(run, size, workers)
        if throughput < MIN_GAIN * best_throughput:
            break
        best, best_throughput = size, throughput
        if workers * size / throughput > LONG_RUN_S:
            break
    return best


def _largest_that_fits(run: RunBatch, size: int, workers: int) -> int:
    while size > 1:
        size //= 2
        with contextlib.suppress(DeviceMemoryError):
            _throughput(run, size, workers)
            return size
    run(1)  # raises the error that a single sample does not fit
    return 1


def measure_workers(run: RunBatch, most: int, size: int) -> int:
    """Return how many workers run batches of `size` fastest: `most`, halved while that is faster.

    Two threads of one core share its units, and all cores share the memory.
    """
    best, throughput = most, _throughput(run, size, most)
    while best > 1 and (halved := _throughput(run, size, best // 2)) > MIN_GAIN * throughput:
        best, throughput = best // 2, halved
    return best


def _throughput(run: RunBatch, size: int, workers: int) -> float:
    """Return the samples per second of all workers together, the better of two trials."""
    seconds = []
    with ThreadPoolExecutor(workers) as executor:
        for _ in range(2):
            started = time.perf_counter()
            list(executor.map(run, [size] * workers))
            seconds.append(time.perf_counter() - started)
    return workers * size / min(seconds)
