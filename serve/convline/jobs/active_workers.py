"""How many of a job's workers are active at once: all or half of them, as its own work shows.

Two threads of one core share its units and its cache, so half of the workers may be faster. That is
tried on the job itself, in turns, because a measurement before it can meet another load.
"""

import threading
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager

MIN_GAIN = 1.05  # half of the workers must be faster by this factor,
TURNS = 3  # in each of so many turns
BATCHES = 2  # of each worker in a phase
REST = 64  # phases until the next trial; each rest is twice as long as the one before


class ActiveWorkers:
    """Limits how many workers are active, and counts what they finish."""

    def __init__(self, most: int, clock: Callable[[], float] = time.perf_counter) -> None:
        self.most, self.clock = most, clock
        self.limits = plan_limits(most)
        self.limit = next(self.limits)
        self.active = self.finished = self.images = 0
        self.started = clock()
        self.changed = threading.Condition()

    @contextmanager
    def one(self, images: int) -> Iterator[None]:
        """Wait until fewer workers than the limit are active, and be active for so many images."""
        with self.changed:
            self.changed.wait_for(lambda: self.active < self.limit)
            self.active += 1
        try:
            yield
        finally:
            with self.changed:
                self.active -= 1
                self._count(images)
                self.changed.notify_all()

    def _count(self, images: int) -> None:
        self.finished += 1
        if self.finished <= self.most:  # begun before this phase
            self.started, self.images = self.clock(), 0
            return
        self.images += images
        if self.finished == (1 + BATCHES) * self.most:
            rate = self.images / max(self.clock() - self.started, 1e-9)
            self.limit, self.finished = self.limits.send(rate), 0


def plan_limits(most: int) -> Generator[int, float, None]:
    """Yield how many workers are active in each phase, and receive its images per second.

    One slow phase decides nothing: half of them are chosen only if they are faster in every turn,
    and each choice is tried again later.
    """
    half, rest = max(1, most // 2), REST
    while True:
        limit = half
        for _ in range(TURNS):
            rate_of_all = yield most
            if (yield half) < MIN_GAIN * rate_of_all:
                limit = most
                break
        for _ in range(rest):
            yield limit
        rest *= 2
