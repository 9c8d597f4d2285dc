"""A table of any number of images: workers, rows to the file as they come, a journal to go on from after a kill."""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import chain
from typing import IO

import numpy as np

from convline.errors import ServeError
from convline.images.classifier import Classifier
from convline.images.decode import ImageRule
from convline.images.predict import (
    Bound,
    Images,
    Run,
    answer,
    columns_of,
    decode_all,
    fingerprint,
    runner,
)
from convline.images.sources import with_bytes
from convline.jobs import checkpoint, pool
from convline.jobs.checkpoint import Mark
from convline.jobs.pool import AHEAD, BATCHES, Crew, in_order, processes, threads
from convline.jobs.run import Chunk, Summary, pass_over, write_chunks
from convline.jobs.writers import encoding, form_of
from convline.loading import open_model
from convline.model_file.document import Contract
from convline.runtime.batches import IN_FLIGHT, batched
from convline.runtime.host import usable_cores
from convline.runtime.rows import Row
from convline.runtime.session import resolve
from convline.runtime.sources import WAIT, Source

SMALL_MODEL = 16 * 2**20  # bytes; below it each process can have a session of its own
MANY = (
    512  # inputs from which processes pay for their start, and a measured batch for its measuring
)
FEW = 8  # images of a batch where there are fewer
PARCEL = 128  # inputs that travel to a process and back at once: a journey costs as much as a few small images
FATAL = "its decoder ended the whole process"
Parcel = list[list[Source]]  # batches


@dataclass
class Worker:
    """A model that answers batches; a process gets it without a session and opens its own."""

    contract: Contract
    device: str
    top_k: int
    target: str
    form: str = "csv"
    batch: int = FEW
    decoders: Crew | None = None  # processes beside threads

    @cached_property
    def model(self) -> Classifier:
        # One thread an operator: the workers fill the cores, and threads that wait for each other would spin.
        model = open_model(self.contract, self.device, threads=1, spinning=False)
        assert isinstance(model, Classifier)
        return model

    def start(
        self, batch: int | None, count: int, sizes: Sequence[int] = BATCHES, *, fewer: bool = False
    ) -> tuple[str, int, int]:
        """Open the session; return the device in words, the batch size and the workers.

        A batch of None is measured; so are the workers, at most those given, where `fewer` might be faster.
        """
        cpu, rule = self.model.kind == "cpu", self.model.rule
        image = np.random.default_rng(0).integers(
            0, 256, (1, *rule.size, rule.channels), dtype=np.uint8
        )

        def run(n: int) -> object:  # as batches of n will be run, padding and all
            how, images = runner(self.model, n), np.repeat(image, n, 0)
            return how.once(images, n) if isinstance(how, Bound) else how(images)

        if batch is None:
            given = (count, sizes) if cpu else (IN_FLIGHT, [8 * size for size in sizes])
            batch = pool.best_batch(run, *given)
        if fewer and cpu:
            count = pool.best_workers(run, count, batch)
        return self.model.device, batch, count

    def chunks(self, parcel: Parcel) -> list[Chunk]:
        return [self.chunk(group) for group in parcel]

    def chunk(self, group: list[Source]) -> Chunk:
        seen = b""
        if self.target != "-":
            held = [with_bytes(source) for source in group]
            seen = fingerprint([s._replace(error=None) if s.error == FATAL else s for s in held])
            if (
                self.decoders is None
            ):  # else another process reads faster than it is sent what was read
                group = held
        found = answer(self.model, self.run, group, self.top_k, self.decode)
        started = time.perf_counter()
        encoded = encoding(self.form, columns_of(self.top_k))[1](found.rows)
        failed = sum(row["status"] == "error" for row in found.rows)
        times = (found.decode, found.inference, time.perf_counter() - started)
        return Chunk(encoded, len(group), failed, seen, *times, found.flat)

    def decode(self, group: list[Source]) -> list[Images | str]:
        decode = partial(decode_all, self.model.rule)
        if self.decoders is None:
            return decode(group)
        try:
            return self.decoders.submit(decode, group).result()
        except BrokenProcessPool:
            with Crew(lambda: processes(1)) as crew:
                alone = pool.survivors(crew, decode, ([source] for source in group))
                return [found[0] if found else FATAL for found in alone]

    @cached_property
    def run(self) -> Run:
        return runner(self.model, self.batch)


_worker: Worker  # of a worker process


def _prepare(worker: Worker) -> None:
    global _worker
    _worker = worker


def _start(batch: int | None) -> tuple[str, int, int]:
    return _worker.start(
        batch, 1, BATCHES[3:]
    )  # a small model: rows cost as much as running it, and a call of each


def _chunks(parcel: Parcel) -> list[Chunk]:
    return _worker.chunks(parcel)


def label_images(
    contract: Contract,
    device: str,
    sources: Iterable[Source],
    output: str,
    stdout: IO[bytes],
    *,
    top_k: int = 1,
    batch: int | None = None,  # None: measured
    workers: int
    | None = None,  # None: one per usable core, or fewer where that was measured to be faster
    resume: bool = False,
    form: str | None = None,  # None: by the suffix of output
    engine: str = "local",  # or ray: on a cluster
    watch: Callable[[Summary], None] = lambda summary: (
        None
    ),  # called before the first batch and after each
) -> Summary:
    """Write one row per source to `output` ("-" is stdout), in order; ServeError says what cannot be done at all."""
    begun = checkpoint.read(output) if resume else None
    mark = begun[1] if begun else Mark()
    batch = begun[0]["batch"] if begun and batch is None else batch
    remaining = iter(sources)
    first, late = _first(remaining)
    count = min(workers or usable_cores(), FEW if late else max(1, len(first)))
    if batch is None and len(first) < MANY:
        batch = FEW if late else max(1, min(FEW, -(-len(first) // count)))
    worker, starting = (
        Worker(contract, device, top_k, output, form_of(output, form)),
        time.perf_counter(),
    )
    many = len(first) == MANY
    if engine == "ray":
        crews = on_a_cluster(worker, workers, batch)
    else:
        crews = side_by_side(worker, count, batch, many=many, fewer=many and workers is None)
    with crews as (crew, work, size, summary):
        summary.mark, summary.resumed, summary.start = (
            mark,
            mark.rows,
            time.perf_counter() - starting,
        )
        watch(summary)
        run = {"model": contract.digest, "columns": list(columns_of(top_k)), "batch": summary.batch}
        run |= {"format": form} if form else {}
        if begun:
            checkpoint.check_same(output, run, begun[0])
        named, several = chain(first, [WAIT] * late, remaining), max(1, size // summary.batch)
        groups = batched(named, summary.batch)
        pass_over(map(fingerprint, groups), mark, output)
        parcels = (
            batched(groups, several)
            if output != "-"
            else live_parcels(named, summary.batch, several)
        )
        found = in_order(
            crew, work, parcels, AHEAD * (crew.count or count), partial(isolated, worker)
        )
        write_chunks(
            output, columns_of(top_k), stdout, run, chain.from_iterable(found), summary, watch, form
        )
    how = vars(worker).get("run")  # of workers in this process
    if isinstance(how, Bound) and how.size < summary.batch:
        summary.parts = how.size
    return summary


def _first(sources: Iterator[Source]) -> tuple[list[Source], bool]:
    """Return up to MANY sources that are there, at least one if any, and whether the next one is late."""
    first: list[Source] = []
    for source in sources:
        if source is not WAIT:
            first.append(source)
        if len(first) == MANY or (first and source is WAIT):
            return first, source is WAIT
    return first, False


def live_parcels(sources: Iterable[Source], batch: int, several: int) -> Iterator[Parcel]:
    """Yield parcels of `several` batches; where the next name is late, what there is, then an empty parcel."""
    parcel: Parcel = []
    for source in sources:
        if source is WAIT:
            yield from filter(None, [parcel])
            yield []
            parcel = []
            continue
        if not parcel or len(parcel[-1]) == batch:
            if len(parcel) == several:
                yield parcel
                parcel = []
            parcel.append([])
        parcel[-1].append(source)
    yield from filter(None, [parcel])


@contextmanager
def side_by_side(
    worker: Worker, count: int, batch: int | None, *, many: bool, fewer: bool
) -> Iterator[tuple[Crew, Callable[[Parcel], list[Chunk]], int, Summary]]:
    """Give a pool of threads, or of processes, the function that it runs, on about how many inputs, and a summary.

    Processes have a session each, so the model is small, and their start has to pay. Threads have a decoder each in a
    process, where that starts quickly or pays.
    """
    cpu = resolve(worker.device) == "cpu"
    if many and cpu and count > 1 and len(worker.contract.bytes) <= SMALL_MODEL:
        with Crew(lambda: processes(count, _prepare, worker)) as crew:
            starting = [
                crew.submit(_start, batch) for _ in range(count)
            ]  # all at once, as they will run
            (device, batch, _), *_ = [start.result() for start in starting]
            yield crew, _chunks, PARCEL, Summary(device, Mark(), 0, batch, f"{count} processes")
        return
    with ExitStack() as stack:
        if cpu and (many or pool.can_fork()):
            worker.decoders = stack.enter_context(Crew(lambda: processes(count)))
            worker.decoders.submit(abs, 0)  # forked now: onnxruntime will start threads
        device, worker.batch, count = worker.start(batch, count, fewer=fewer)
        worker.run  # noqa: B018  (made before threads would make it twice)
        crew = stack.enter_context(Crew(lambda: threads(count)))
        kind = f"{count} thread{'s' if count > 1 else ''}"
        yield crew, worker.chunks, 1, Summary(device, Mark(), 0, worker.batch, kind)


@contextmanager
def on_a_cluster(
    worker: Worker, count: int | None, batch: int | None
) -> Iterator[tuple[Crew, Callable[[Parcel], list[Chunk]], int, Summary]]:
    """Give what `side_by_side` gives, with Ray's actors as workers."""
    from convline.jobs.ray_cluster import actors

    with actors(worker, count, batch) as (crew, device, batch, count):
        yield crew, worker.chunks, PARCEL, Summary(device, Mark(), 0, batch, f"{count} Ray actors")


def isolated(worker: Worker, parcel: Parcel) -> list[Chunk]:
    """Answer a parcel whose process died, in one of its own; what its decoder dies of is a row."""
    decode = partial(decode_all, ImageRule.from_dict(worker.contract.document["input"]))
    with Crew(lambda: processes(1, _prepare, worker)) as crew:
        lives = pool.survivors(crew, decode, ([source] for group in parcel for source in group))
        parcel = [
            [s if next(lives) else s._replace(error=FATAL) for s in group] for group in parcel
        ]
        try:
            return crew.submit(_chunks, parcel).result()
        except BrokenProcessPool as error:
            cure = "is there memory? try fewer --workers"
            raise ServeError(f"a worker process dies without any image; {cure}") from error


def classify(
    model: Classifier, sources: Iterable[Source], *, batch: int, workers: int, top_k: int
) -> Iterator[list[Row]]:
    """Yield the rows of `batch` inputs at a time; batches start at fixed row numbers, errors included."""
    run = runner(model, batch)
    with Crew(lambda: threads(workers)) as crew:
        groups = batched(sources, batch)
        answers = in_order(
            crew, lambda group: answer(model, run, group, top_k), groups, AHEAD * workers
        )
        yield from (found.rows for found in answers)
