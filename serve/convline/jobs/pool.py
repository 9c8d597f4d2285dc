"""Workers side by side on the same cores: threads, or processes where the interpreter's lock is what limits.

Each worker takes the next batch, decodes it and runs it by itself, so no queue between decoding and inference needs
tuning. Pillow and onnxruntime release the lock while they work on pixels; while Pillow opens a file it is held, which
is most of the time where images and networks are small. A session of a small network is small, so each process has one.
Threads share the session of a large one, and have a process beside each that decodes: what ends it costs one image.
"""

import contextlib
import os
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context, parent_process
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any, TypeVar

from convline.errors import DeviceMemoryError

Item = TypeVar("Item")
Result = TypeVar("Result")
AHEAD = 2  # batches per worker that wait or are in work: enough to hide an uneven one, and memory stays flat
BATCHES = (4, 8, 16, 32, 64)
GAIN, LONG_RUN = (
    1.05,
    0.05,
)  # a larger batch must be faster by this much; seconds of a run that is long enough


class Crew:
    """A pool of workers, made anew where one of its processes has died."""

    count = 0  # of workers, where the crew decides that itself

    def __init__(self, make: Callable[[], Executor]) -> None:
        self.make, self.pool, self.lock = make, make(), threading.Lock()

    def submit(self, work: Callable[[Item], Result], item: Item) -> Future[Result]:
        with self.lock:
            try:
                return self.pool.submit(work, item)
            except BrokenProcessPool:
                self.pool.shutdown(wait=False)
                self.pool = self.make()
                return self.pool.submit(work, item)

    def __enter__(self) -> "Crew":
        return self

    def __exit__(self, *_: object) -> None:
        self.pool.shutdown(cancel_futures=True)


def in_order(
    crew: Crew,
    work: Callable[[Item], Result],
    items: Iterable[Item],
    ahead: int,
    rescue: Callable[[Item], Result] | None = None,
) -> Iterator[Result]:
    """Yield work(item) for each item in order, with at most `ahead` of them under way; memory is flat.

    An empty list is no work: it says that the next item is late, and what is under way is yielded at once.
    Where a process dies, what it had in hand is asked of `rescue` when its turn comes, and the others work on.
    """
    waiting: deque[tuple[Item, Future[Result]]] = deque()

    def next_result() -> Result:
        item, future = waiting.popleft()
        try:
            return future.result()
        except BrokenProcessPool:
            if rescue is None:
                raise
            for place, (other, lost) in enumerate(waiting):
                if lost.done() and isinstance(lost.exception(), BrokenProcessPool):
                    waiting[place] = other, crew.submit(work, other)
            return rescue(item)

    for item in items:
        late = isinstance(item, list) and not item
        if not late:
            waiting.append((item, crew.submit(work, item)))
        while waiting and (late or len(waiting) >= ahead):
            yield next_result()
    while waiting:
        yield next_result()


def survivors(
    crew: Crew, work: Callable[[Item], Result], items: Iterable[Item]
) -> Iterator[Result | None]:
    """Yield work(item) for each item, one after the other in a crew of one process: None where that dies."""
    for item in items:
        try:
            yield crew.submit(work, item).result()
        except BrokenProcessPool:
            yield None


def threads(count: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(count)


def processes(count: int, *prepare: Any) -> ProcessPoolExecutor:
    """Return a pool whose processes have each called prepare[0] on the rest, where it is given."""
    # A fork costs milliseconds where a new interpreter costs its imports, but copies no threads: with a single thread
    # there is nothing that it could miss.
    method = "fork" if can_fork() else "spawn"
    return ProcessPoolExecutor(count, get_context(method), initializer=_begin, initargs=prepare)


def _begin(prepare: Callable[..., object] = lambda: None, *arguments: Any) -> None:
    signal.signal(
        signal.SIGINT, signal.SIG_IGN
    )  # Ctrl-C reaches the whole group; the first process ends the others
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    prepare(*arguments)


def _end_with_parent() -> None:
    """End this process where its parent was killed: the queue that it waits at would stay open for ever."""
    parent = parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)


def can_fork() -> bool:
    """True where this process has a single thread, as far as Linux tells."""
    tasks = Path("/proc/self/task")
    return tasks.is_dir() and len(list(tasks.iterdir())) == 1


def best_batch(run: Callable[[int], object], workers: int, sizes: Iterable[int] = BATCHES) -> int:
    """Return the batch size after which throughput gains under 5 %, each run by all workers at once as it will be.

    A run that takes long is not tried in larger batches: what those save is the cost of a call. Nor is one for which
    the device's memory is too small; where that is the first, halves of it are tried.
    """
    best, rate = 0, 0.0
    for size in sizes:
        try:
            found = _rate(run, size, workers)
        except DeviceMemoryError:
            if best:
                break
            return largest_that_fits(run, size, workers)
        if found < GAIN * rate:
            break
        best, rate = size, found
        if workers * size / found > LONG_RUN:
            break
    return best


def largest_that_fits(run: Callable[[int], object], size: int, workers: int) -> int:
    """Return the largest half, quarter, ... of a batch size that the device's memory holds, run by all workers."""
    while size > 1:
        size //= 2
        with contextlib.suppress(DeviceMemoryError):
            _rate(run, size, workers)
            return size
    run(1)  # its error says that a single one does not fit
    return 1


def best_workers(run: Callable[[int], object], most: int, size: int) -> int:
    """Return how many workers run batches of `size` fastest: all, or half as long as that is 5 % faster.

    Two threads of one core share its units, and all cores share memory: more is not always faster.
    """
    best, rate = most, _rate(run, size, most)
    while best > 1 and (halved := _rate(run, size, best // 2)) > GAIN * rate:
        best, rate = best // 2, halved
    return best


def _rate(run: Callable[[int], object], size: int, workers: int) -> float:
    """Return how many a second all workers do at once, the better of two trials."""
    taken = []
    with ThreadPoolExecutor(workers) as pool:
        for _ in range(2):
            started = time.perf_counter()
            list(pool.map(run, [size] * workers))
            taken.append(time.perf_counter() - started)
    return workers * size / min(taken)
