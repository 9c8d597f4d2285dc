"""Answer any number of images in a table: choose workers and batch size, run, and resume."""

import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures.process import BrokenProcessPool
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import chain
from typing import IO, Any, NamedTuple

import numpy as np

from convline.errors import ServeError
from convline.images import predict
from convline.images.image_model import Answer, ImageModel, Options, Run, table_rows
from convline.images.kinds import KINDS
from convline.images.sources import with_bytes
from convline.jobs import checkpoint
from convline.jobs.batch_size import (
    BATCH_SIZES,
    MAX_TASK,
    choose_batch_size,
    choose_task_size,
    measure_batch_size,
    time_image,
)
from convline.jobs.formats import encode_rows, format_of
from convline.jobs.pictures import write_pictures
from convline.jobs.pool import WorkerPool, can_fork, process_pool, thread_pool
from convline.jobs.run import EncodedBatch, Summary, Watch, skip_finished, write_batches
from convline.loading import open_model
from convline.model_file.document import ImageDocument
from convline.model_file.onnx_file import ModelFile
from convline.runtime.batches import IN_FLIGHT, batched
from convline.runtime.engine import ONNXRUNTIME, Engine
from convline.runtime.host import usable_cores
from convline.runtime.session import choose_device
from convline.runtime.sources import WAIT, Source

SMALL_MODEL = 16 * 2**20  # bytes; a smaller model has a session in each process
MANY = 512  # inputs from which it pays to start processes and to choose the batch size
SMALL_BATCH = 8  # images of a batch for fewer inputs
DEFAULTS = Options()
DECODER_CRASHED = "its decoder ended the whole process"

Task = list[list[Source]]  # batches


class Sizes(NamedTuple):
    """How a job's images are cut: how many run at once, and how many are sent to a process."""

    device: str  # in words
    batch: int
    task: int


@dataclass
class ImageWorker:
    """Answers batches. A process receives a worker without a session and opens its own."""

    file: ModelFile
    device: str
    options: Options
    target: str
    table_format: str = "csv"
    batch: int = SMALL_BATCH
    engine: Engine = ONNXRUNTIME
    streams: int = 1  # threads that run this worker at the same time
    decoders: WorkerPool | None = None  # processes that decode for a worker that is a thread

    @cached_property
    def model(self) -> ImageModel[Any]:
        # One thread per operator, without spinning: the workers themselves fill the cores.
        model = open_model(
            self.file, self.device, engine=self.engine,
            threads=1, spinning=False, streams=self.streams,
        )  # fmt: skip
        assert isinstance(model, ImageModel)
        return model

    @cached_property
    def run(self) -> Run:
        return predict.batch_runner(self.model, self.batch)

    def choose_sizes(self, batch: int | None) -> Sizes:
        """Open the session; return the batch size, chosen if None, and the images of a task."""
        on_cpu, rule = self.model.kind == "cpu", self.model.rule
        shape = 1, *rule.size, rule.channels
        image = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)

        def run_random(size: int) -> object:  # with the padding of real batches
            run, images = predict.batch_runner(self.model, size), np.repeat(image, size, 0)
            if isinstance(run, predict.PaddedRunner):
                return run.run_padded(images, size)
            return run(images)

        if on_cpu and batch and 2 * batch > MAX_TASK:  # a task is one of them, whatever it takes
            return Sizes(self.model.device, batch, batch)
        if on_cpu:
            # What is compiled for the measurement is used afterwards.
            size = (batch or BATCH_SIZES[0]) if self.engine.compiles_sizes else 1
            image_s = time_image(run_random, size)
            batch = batch or choose_batch_size(image_s, len(self.file.content))
            return Sizes(self.model.device, batch, choose_task_size(image_s, batch))
        sizes = [8 * size for size in BATCH_SIZES]
        batch = batch or measure_batch_size(run_random, IN_FLIGHT, sizes)
        return Sizes(self.model.device, batch, MAX_TASK)

    def process(self, task: Task) -> list[EncodedBatch]:
        return [self.process_batch(batch) for batch in task]

    def process_batch(self, sources: list[Source]) -> EncodedBatch:
        input_hash = b""
        if self.target != "-":
            loaded = [with_bytes(source) for source in sources]
            input_hash = predict.hash_inputs(
                [s._replace(error=None) if s.error == DECODER_CRASHED else s for s in loaded]
            )
            if self.decoders is None:  # a process reads a file faster than it receives the bytes
                sources = loaded
        batch = predict.answer_batch(self.model, self.run, sources, self.options, self.decode)
        started = time.perf_counter()
        answers = [
            answer if isinstance(answer, str) else self.write_pictures(source, answer)
            for source, answer in zip(sources, batch.answers, strict=True)
        ]
        names = [source.path for source in sources]
        rows = table_rows(self.model, names, answers, self.options)
        encoded = encode_rows(self.table_format, rows)
        failed = sum(isinstance(answer, str) for answer in answers)
        encode_s = time.perf_counter() - started
        return EncodedBatch(
            encoded, len(sources), failed, input_hash,
            batch.decode_s, batch.inference_s, encode_s, batch.low_contrast,
        )  # fmt: skip

    def write_pictures(self, source: Source, answer: Answer) -> Answer | str:
        if self.options.masks is None and self.options.draw is None:
            return answer
        return write_pictures(self.model, source, answer, self.options)

    def decode(self, sources: list[Source]) -> predict.Decoded:
        decode = partial(predict.decode_sources, self.model.rule)
        if self.decoders is None:
            return decode(sources)
        try:
            return self.decoders.submit(decode, sources).result()
        except BrokenProcessPool:
            with process_pool(1) as pool:
                alone = pool.map_one_by_one(decode, ([source] for source in sources))
                return [decoded[0] if decoded else DECODER_CRASHED for decoded in alone]


_worker: ImageWorker  # of a worker process


def _set_worker(worker: ImageWorker) -> None:
    global _worker
    _worker = worker


def _choose_in_process(batch: int | None) -> Sizes:
    return _worker.choose_sizes(batch)


def _process_in_process(task: Task) -> list[EncodedBatch]:
    return _worker.process(task)


class Workers(NamedTuple):
    """Workers that are ready to process tasks."""

    pool: WorkerPool
    process: Callable[[Task], list[EncodedBatch]]
    task_size: int
    summary: Summary


def answer_images(
    file: ModelFile, device: str, sources: Iterable[Source], output: str, stdout: IO[bytes], *,
    options: Options = DEFAULTS, engine: Engine = ONNXRUNTIME, batch: int | None = None,
    workers: int | None = None, resume: bool = False, table_format: str | None = None,
    cluster: bool = False, watch: Watch = lambda summary: None,
) -> Summary:  # fmt: skip
    """Write the rows of each source, in order, to the file `output`, or to stdout for "-".

    The counts of the summary and of checkpoints are of images, whatever the number of their rows.
    batch: images per run; None chooses it. workers: None is one per usable core. table_format: None
    is that of the output's suffix. cluster: run the workers on a Ray cluster. watch: it is also
    called before the first batch.
    Raises ServeError if the job as a whole cannot be done.
    """
    interrupted, start = checkpoint.read(output) if resume else ({}, checkpoint.Checkpoint())
    batch = batch or interrupted.get("batch")
    remaining = iter(sources)
    first, is_late = _read_first(remaining)
    count = min(workers or usable_cores(), SMALL_BATCH if is_late else max(1, len(first)))
    if batch is None and len(first) < MANY:
        batch = SMALL_BATCH if is_late else max(1, min(SMALL_BATCH, -(-len(first) // count)))
    worker = ImageWorker(
        file, device, options, output, format_of(output, table_format), engine=engine
    )
    started, is_many = time.perf_counter(), len(first) == MANY
    opened: AbstractContextManager[Workers]
    if cluster:
        opened = _on_a_cluster(worker, workers, batch)
    elif is_many and count > 1 and _has_small_session(worker):
        opened = _in_processes(worker, count, batch)
    else:
        opened = _in_threads(worker, count, batch, is_many)
    with opened as ready:
        summary = ready.summary
        summary.checkpoint, summary.resumed = start, start.rows
        summary.start_s = time.perf_counter() - started
        watch(summary)
        kind = KINDS[file.task]
        columns = kind.columns(options)  # they tell top_k
        model = file.digest if engine == ONNXRUNTIME else f"{file.digest} by {engine}"
        run = {"model": model, "columns": list(columns), "batch": summary.batch}
        run |= {name: getattr(options, name) for name in (*kind.OPTIONS, "draw") if name != "top_k"}
        run |= {"format": table_format} if table_format else {}
        checkpoint.require_same_run(output, run, interrupted)
        sources = chain(first, [WAIT] * is_late, remaining)
        batches_per_task = max(1, ready.task_size // summary.batch)
        if output == "-":
            tasks = live_tasks(sources, summary.batch, batches_per_task)
        else:
            batches = batched(sources, summary.batch)
            skip_finished(map(predict.hash_inputs, batches), start, output)
            tasks = batched(batches, batches_per_task)
        rescue = partial(_process_alone, worker)
        results = ready.pool.map_in_order(ready.process, tasks, rescue)
        encoded = chain.from_iterable(results)
        write_batches(output, columns, stdout, run, encoded, summary, watch, table_format)
    runner = vars(worker).get("run")  # None if other processes have the session
    if isinstance(runner, predict.PaddedRunner) and runner.size < summary.batch:
        summary.reduced_batch = runner.size
    return summary


def _read_first(sources: Iterator[Source]) -> tuple[list[Source], bool]:
    """Return up to MANY sources, at least one if any, and whether the next one is late."""
    first: list[Source] = []
    for source in sources:
        if source is not WAIT:
            first.append(source)
        if len(first) == MANY or (first and source is WAIT):
            return first, source is WAIT
    return first, False


def live_tasks(sources: Iterable[Source], batch: int, batches_per_task: int) -> Iterator[Task]:
    """Yield tasks of at most `batches_per_task` batches.

    Before a source that is late, the sources so far are yielded, and then an empty task.
    """
    task: Task = []
    for source in sources:
        if source is WAIT:
            yield from filter(None, [task])
            yield []
            task = []
            continue
        if not task or len(task[-1]) == batch:
            if len(task) == batches_per_task:
                yield task
                task = []
            task.append([])
        task[-1].append(source)
    yield from filter(None, [task])


def _has_small_session(worker: ImageWorker) -> bool:
    return choose_device(worker.device) == "cpu" and len(worker.file.content) <= SMALL_MODEL


@contextmanager
def _in_processes(worker: ImageWorker, count: int, batch: int | None) -> Iterator[Workers]:
    """Open a session in each of `count` processes."""
    with process_pool(count, _set_worker, worker) as pool:
        # All choose at once, because they will also run at once; the quickest was disturbed least.
        futures = [pool.submit(_choose_in_process, batch) for _ in range(count)]
        sizes = max((future.result() for future in futures), key=lambda sizes: sizes[1:])
        summary = Summary(sizes.device, sizes.batch, f"{count} processes")
        yield Workers(pool, _process_in_process, sizes.task, summary)


@contextmanager
def _in_threads(
    worker: ImageWorker, count: int, batch: int | None, is_many: bool
) -> Iterator[Workers]:
    """Open one session for `count` threads, which decode in processes if these start cheaply."""
    with ExitStack() as stack:
        if choose_device(worker.device) == "cpu" and (is_many or can_fork()):
            worker.decoders = stack.enter_context(process_pool(count))
            worker.decoders.submit(abs, 0)  # fork now: onnxruntime will start threads
        worker.streams = count
        worker.batch = batch or worker.choose_sizes(batch).batch
        worker.run  # noqa: B018  (create it before several threads would)
        pool = stack.enter_context(thread_pool(count))
        text = f"{count} thread{'s' if count > 1 else ''}"
        summary = Summary(worker.model.device, worker.batch, text)
        yield Workers(pool, worker.process, 1, summary)


@contextmanager
def _on_a_cluster(worker: ImageWorker, count: int | None, batch: int | None) -> Iterator[Workers]:
    from convline.jobs.ray_cluster import actors

    with actors(worker, count, batch) as (pool, sizes, count):
        summary = Summary(sizes.device, sizes.batch, f"{count} Ray actors")
        yield Workers(pool, worker.process, sizes.task, summary)


def _process_alone(worker: ImageWorker, task: Task) -> list[EncodedBatch]:
    """Process a task whose process died in a new process; images that crash it are error rows."""
    document = worker.file.document
    assert isinstance(document, ImageDocument)
    decode = partial(predict.decode_sources, document.input)
    with process_pool(1, _set_worker, worker) as pool:
        sources = ([source] for batch in task for source in batch)
        decoded = pool.map_one_by_one(decode, sources)
        task = [
            [
                source if next(decoded) else source._replace(error=DECODER_CRASHED)
                for source in batch
            ]
            for batch in task
        ]
        try:
            return pool.submit(_process_in_process, task).result()
        except BrokenProcessPool as error:
            cure = "is there memory? try fewer --workers"
            raise ServeError(f"a worker process dies without any image; {cure}") from error


def answer_sources(
    model: ImageModel[Answer], sources: Iterable[Source], *, batch: int, workers: int,
    options: Options = DEFAULTS,
) -> Iterator[Answer | str]:  # fmt: skip
    """Yield the answer for each source in order, or the reason why there is none."""
    run = predict.batch_runner(model, batch)
    with thread_pool(workers) as pool:
        results = pool.map_in_order(
            lambda some: predict.answer_batch(model, run, some, options), batched(sources, batch)
        )
        for result in results:
            yield from result.answers
