"""`infer images --cluster`: the workers of a table are actors of a Ray cluster.

The first process lists the inputs, writes the rows in order and keeps the checkpoints, so rows,
--resume and errors are those of one machine. All machines need this package and see the inputs
under the same names. An actor that dies is started again and receives its task again. A task that
ends two actors is processed on this machine, in a process of its own.
"""

import itertools
import os
from collections.abc import Iterator
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from typing import Any

from convline.errors import ServeError
from convline.jobs.pool import WorkerPool
from convline.runtime.host import usable_cores

RETRIES = 1  # of a task whose actor died: the machine may have failed, or the task may kill actors


class _Actor:
    """One worker with a session of its own."""

    def __init__(self, worker: Any) -> None:
        self.worker = worker

    def process(self, task: list[Any]) -> Any:
        return self.worker.process(task)


def _choose_sizes(worker: Any, batch: int | None) -> Any:
    return worker.choose_sizes(batch)


class RayPool(WorkerPool):
    """Actors that receive tasks in turn; the results are futures, as those of processes."""

    def __init__(self, worker: Any, count: int, needs: dict[str, int]) -> None:
        import ray

        self.size = count
        self.worker = worker  # the reference keeps it alive for actors that are started again
        self.actor_died = ray.exceptions.RayActorError
        kind = ray.remote(max_restarts=-1, max_task_retries=RETRIES, **needs)(_Actor)
        self.actors = [kind.remote(worker) for _ in range(count)]
        self.next_actor = itertools.cycle(self.actors)

    def submit(self, work: Any, item: Any) -> "Future[Any]":
        """Send `item` to the next actor; its death is a BrokenProcessPool, as a process's is."""
        result: Future[Any] = Future()

        def copy_result(done: "Future[Any]") -> None:
            error = done.exception()
            if isinstance(error, self.actor_died):
                error = BrokenProcessPool(str(error))
            if error is not None:
                result.set_exception(error)
            else:
                result.set_result(done.result())

        next(self.next_actor).process.remote(item).future().add_done_callback(copy_result)
        return result

    def __exit__(self, *_: object) -> None:
        import ray

        for actor in self.actors:
            ray.kill(actor)


@contextmanager
def actors(worker: Any, count: int | None, batch: int | None) -> Iterator[tuple[RayPool, Any, int]]:
    """Yield (pool, the worker's `Sizes`, number of actors).

    The cluster is that of RAY_ADDRESS, or one of this machine. A count of None is one actor on each
    GPU if the cluster has any and the device is not cpu, else one on each core.
    """
    try:
        import ray
    except ImportError as error:
        raise ServeError(f"--cluster: {error}; pip install 'convline[ray]'") from error
    cluster: dict[str, Any] = {}
    if not os.environ.get("RAY_ADDRESS"):
        cores = count or usable_cores()
        cluster = {"address": "local", "num_cpus": cores, "include_dashboard": False}
    ray.init(log_to_driver=False, logging_level="error", **cluster)
    try:
        resources = ray.cluster_resources()
        on_gpu = worker.device != "cpu" and resources.get("GPU", 0) >= 1
        needs = {"num_gpus": 1, "num_cpus": 1} if on_gpu else {"num_cpus": 1}
        most = int(resources.get("GPU" if on_gpu else "CPU", 0))
        count = count or most
        if not 1 <= count <= most:
            expected = f"{count} workers asked for, the cluster bears {most}"
            raise ServeError(f"--cluster: {expected}; lower --workers")
        choose = ray.remote(**needs)(_choose_sizes).remote
        sizes = ray.get(choose(ray.put(worker), batch))
        worker.batch = sizes.batch
        with RayPool(ray.put(worker), count, needs) as pool:
            yield pool, sizes, count
    finally:
        ray.shutdown()
