"""`infer images --engine ray`: the workers of a table are actors of a Ray cluster, with the decode and session of here.

The first process still lists the inputs, writes rows in their order and keeps the journal, so that rows, --resume and
errors are those of the local engine. All machines have this package and see the inputs under the same names. An actor
that dies is started anew and its parcel of batches asked for again; a parcel that ends two actors is answered here, in
a process of its own.
"""

import itertools
import os
from collections.abc import Iterator
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from typing import Any

from convline.errors import ServeError
from convline.jobs.pool import Crew
from convline.runtime.host import usable_cores

RETRIES = 1  # of a parcel whose actor died: the machine may have gone, or the parcel may be what ends them


class _Actor:
    """What an actor is: one worker with a session of its own."""

    def __init__(self, worker: Any) -> None:
        self.worker = worker

    def chunks(self, parcel: list[Any]) -> Any:
        return self.worker.chunks(parcel)


def _measured(worker: Any, batch: int | None) -> tuple[str, int]:
    device, batch, _ = worker.start(batch, 1)
    return device, batch


class RayCrew(Crew):
    """A pool of actors that take parcels in turn; what it gives are futures, as a pool of processes does."""

    def __init__(self, worker: Any, count: int, needs: dict[str, int]) -> None:
        import ray

        self.count, self.held = (
            count,
            worker,
        )  # while it is held, an actor that is started anew finds it
        self.lost = ray.exceptions.RayActorError
        kind = ray.remote(max_restarts=-1, max_task_retries=RETRIES, **needs)(_Actor)
        self.actors = [kind.remote(worker) for _ in range(count)]
        self.turns = itertools.cycle(self.actors)

    def submit(self, work: Any, item: Any) -> "Future[Any]":
        """Ask the next actor for `item`; its death is a BrokenProcessPool, as a process's is."""
        answer: Future[Any] = Future()

        def pass_on(found: "Future[Any]") -> None:
            error = found.exception()
            if isinstance(error, self.lost):
                answer.set_exception(BrokenProcessPool(str(error)))
            elif error is not None:
                answer.set_exception(error)
            else:
                answer.set_result(found.result())

        next(self.turns).chunks.remote(item).future().add_done_callback(pass_on)
        return answer

    def __exit__(self, *_: object) -> None:
        import ray

        for actor in self.actors:
            ray.kill(actor)


@contextmanager
def actors(
    worker: Any, count: int | None, batch: int | None
) -> Iterator[tuple[RayCrew, str, int, int]]:
    """Give (crew, device in words, batch size, actors) on the cluster that RAY_ADDRESS names, or one of this machine.

    count: None: one on each GPU of the cluster where it has any and the device is not cpu, else one on each core.
    """
    try:
        import ray
    except ImportError as error:
        raise ServeError(f"--engine ray: {error}; pip install 'convline[ray]'") from error
    here: dict[str, Any] = {
        "address": "local",
        "num_cpus": count or usable_cores(),
        "include_dashboard": False,
    }
    ray.init(
        log_to_driver=False,
        logging_level="error",
        **({} if os.environ.get("RAY_ADDRESS") else here),
    )
    try:
        there = ray.cluster_resources()
        on_gpu = worker.device != "cpu" and there.get("GPU", 0) >= 1
        needs = {"num_gpus": 1, "num_cpus": 1} if on_gpu else {"num_cpus": 1}
        most = int(there.get("GPU" if on_gpu else "CPU", 0))
        if not 1 <= (count := count or most) <= most:
            raise ServeError(
                f"--engine ray: {count} workers asked for, the cluster bears {most}; lower --workers"
            )
        held = ray.put(worker)
        device, worker.batch = ray.get(ray.remote(**needs)(_measured).remote(held, batch))
        crew = RayCrew(ray.put(worker), count, needs)
        with crew:
            yield crew, device, worker.batch, count
    finally:
        ray.shutdown()
