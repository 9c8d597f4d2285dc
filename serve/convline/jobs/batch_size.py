"""Choose the batch size: on a CPU by a rule from the time of one image, on a GPU by measurement."""

import contextlib
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor

from convline.errors import DeviceMemoryError

BATCH_SIZES = (4, 8, 16, 32, 64)
# What a batch costs beside its images, on one core of an AMD EPYC: rows, hash and calls (LeNet-5 by
# batches of 4 to 64), and reading the weights (AlexNet by batches of 1 to 64).
BATCH_S, WEIGHT_BYTES_PER_S = 2e-4, 25e9
MAX_OVERHEAD = 0.03  # of a batch's time
LONG_BATCH_S = 0.25  # the last batches of a job leave workers idle for as long
TASK_S, MAX_TASK = 0.1, 128  # seconds and images of a task, because sending one costs 0.1 ms
TRIALS = 3
MIN_GAIN = 1.05  # a larger batch must be faster by this factor on a GPU
LONG_RUN_S = 0.05  # larger batches than one of this duration are not tried on a GPU

RunBatch = Callable[[int], object]  # runs a batch of that many samples


def time_image(
    run: RunBatch, size: int = 1, clock: Callable[[], float] = time.perf_counter
) -> float:
    """Return the seconds of one image: the least of some trials, because noise only adds to it.

    size: images of a trial.
    """
    seconds = []
    for _ in range(TRIALS):
        started = clock()
        run(size)
        seconds.append(clock() - started)
    return min(seconds) / size


def choose_batch_size(image_s: float, weight_bytes: int) -> int:
    """Return the least batch size whose overhead is small.

    A larger batch would save little, and its activations would no longer fit in the cache:
    mobilenet_v2 is 6 % slower by 32 images than by 4, and needs three times the memory.
    image_s: seconds of one image. weight_bytes: of the model file.
    """
    overhead_s = BATCH_S + weight_bytes / WEIGHT_BYTES_PER_S
    for size in BATCH_SIZES:
        if overhead_s <= MAX_OVERHEAD * size * image_s or 2 * size * image_s > LONG_BATCH_S:
            return size
    return BATCH_SIZES[-1]


def choose_task_size(image_s: float, batch: int) -> int:
    """Return how many images are sent to a process at once: whole batches, one at least."""
    images = min(MAX_TASK, int(TASK_S / image_s))
    return max(1, images // batch) * batch


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


def _throughput(run: RunBatch, size: int, workers: int) -> float:
    """Return the samples per second of all workers together, the better of two trials."""
    seconds = []
    with ThreadPoolExecutor(workers) as executor:
        for _ in range(2):
            started = time.perf_counter()
            list(executor.map(run, [size] * workers))
            seconds.append(time.perf_counter() - started)
    return workers * size / min(seconds)
