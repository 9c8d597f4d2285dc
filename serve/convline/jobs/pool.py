"""Pools of workers: threads, or processes where Python's global lock is the limit.

Each worker decodes a batch and runs it, so there is no queue between decoding and inference to
tune. Pillow and onnxruntime release the lock while they work on pixels, but Pillow holds it while
it opens a file, which takes most of the time for small images and networks. The session of a small
network is small, so each process has one. Threads share the session of a large network, and decode
in processes of their own: a decoder that crashes costs one image.
"""

import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context, parent_process
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any, Self, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")
# Tasks per worker that are queued or running: enough to balance slow ones, and memory is bounded.
TASKS_PER_WORKER = 2


class WorkerPool:
    """A pool of workers that is created again after one of its processes died."""

    def __init__(self, size: int, create: Callable[[], Executor]) -> None:
        self.size, self.create, self.executor = size, create, create()
        self.lock = threading.Lock()

    def submit(self, work: Callable[[Item], Result], item: Item) -> Future[Result]:
        with self.lock:
            try:
                return self.executor.submit(work, item)
            except BrokenProcessPool:
                self.executor.shutdown(wait=False)
                self.executor = self.create()
                return self.executor.submit(work, item)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.executor.shutdown(cancel_futures=True)

    def map_in_order(
        self,
        work: Callable[[Item], Result],
        items: Iterable[Item],
        rescue: Callable[[Item], Result] | None = None,
    ) -> Iterator[Result]:
        """Yield work(item) in the order of the items, with a bounded queue.

        An empty list among the items is not worked on: it means that the next item is late, so all
        results of the queue are yielded at once.
        rescue: it computes the result of an item whose process died. Other items that were lost
        with the process are submitted again.
        """
        queue: deque[tuple[Item, Future[Result]]] = deque()

        def next_result() -> Result:
            item, future = queue.popleft()
            try:
                return future.result()
            except BrokenProcessPool:
                if rescue is None:
                    raise
                for place, (other, lost) in enumerate(queue):
                    if lost.done() and isinstance(lost.exception(), BrokenProcessPool):
                        queue[place] = other, self.submit(work, other)
                return rescue(item)

        for item in items:
            is_late = isinstance(item, list) and not item
            if not is_late:
                queue.append((item, self.submit(work, item)))
            while queue and (is_late or len(queue) >= TASKS_PER_WORKER * self.size):
                yield next_result()
        while queue:
            yield next_result()

    def map_one_by_one(
        self, work: Callable[[Item], Result], items: Iterable[Item]
    ) -> Iterator[Result | None]:
        """Yield work(item) for one item after the other; None if the process died of the item."""
        for item in items:
            try:
                yield self.submit(work, item).result()
            except BrokenProcessPool:
                yield None


def thread_pool(count: int) -> WorkerPool:
    return WorkerPool(count, lambda: ThreadPoolExecutor(count))


def process_pool(count: int, *initializer: Any) -> WorkerPool:
    """Return a pool whose processes have called initializer[0](*initializer[1:]), if given."""
    # A fork takes milliseconds, a new interpreter takes its imports. But a fork copies no threads,
    # so it is safe only in a process that has none.
    context = get_context("fork" if can_fork() else "spawn")

    def create() -> Executor:
        return ProcessPoolExecutor(
            count, context, initializer=_initialize_process, initargs=initializer
        )

    return WorkerPool(count, create)


def can_fork() -> bool:
    """Return whether this process has a single thread, as far as Linux tells."""
    tasks = Path("/proc/self/task")
    return tasks.is_dir() and len(list(tasks.iterdir())) == 1


def _initialize_process(initializer: Callable[..., object] = lambda: None, *arguments: Any) -> None:
    # Ctrl-C reaches the whole process group; the first process ends the others.
    start_worker(signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    initializer(*arguments)


def start_worker(at_interrupt: signal.Handlers = signal.SIG_DFL) -> None:
    """Let this process, of any pool, end with its parent, and at Ctrl-C without a word.

    at_interrupt: SIG_IGN where the parent ends it at Ctrl-C; programs that it starts ignore it too.
    """
    signal.signal(signal.SIGINT, at_interrupt)
    threading.Thread(target=_exit_with_parent, daemon=True).start()


def _exit_with_parent() -> None:
    """End this process after its parent was killed: else it waits at its open queue for ever."""
    parent = parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)
