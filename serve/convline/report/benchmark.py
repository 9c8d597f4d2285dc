"""How fast a model file serves on this machine, by part and end to end (`infer bench`).

Reading and inference share the cores. The best rate of the whole is therefore
1 / (1 / reading + 1 / inference), each at its best.
"""

import csv
import functools
import itertools
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from convline.errors import DeviceMemoryError, InputError, ServeError
from convline.images.classifier import Classifier
from convline.images.decode import read_image
from convline.images.sources import ImageSources
from convline.jobs.image_job import label_images
from convline.jobs.run import Summary
from convline.jobs.series_job import SeriesJob, forecast_files
from convline.loading import open_model
from convline.report.text_table import format_table
from convline.runtime.host import processor, usable_cores
from convline.runtime.sources import FileSources, Source
from convline.timeseries.forecaster import Forecaster
from convline.timeseries.predict import ForecastTask
from convline.timeseries.read_options import ReadOptions
from convline.timeseries.sources import SeriesSources
from convline.timeseries.timestamps import format_times, future_times

Model = Classifier | Forecaster
Array = npt.NDArray[Any]
Show = Callable[[str], None]
BATCHES = (1, 8, 32)
FILES = 16  # generated where no path is given
MOST_FILES = 64  # of the paths; they are read again and again
PHOTO = (1500, 1000)  # pixels (W, H) of a small photo
ROWS = 10_000  # of a generated series at most, four contexts if they are fewer
SHARES = 12  # of the time: 1 for each of 2 readings and 6 inferences, 4 for the whole
FIRST_RESULT = """
import sys
from convline.cli.main import main
from convline.runtime import host
try:
    main(sys.argv[1:], prog_name="infer")
finally:
    print(host.peak_memory() or 0, file=sys.stderr)
"""


@dataclass(frozen=True)
class Workload:
    """The files that a model is measured on, and how they are read and served."""

    unit: str  # "images" | "series": what rates count, and the command of `infer`
    files: list[str]
    read: Callable[[str], list[Array]]  # a file to its samples
    serve: Callable[[Iterator[str], str], Summary]  # files to a table, as the command does
    rows_per_sample: int  # in that table; 1 for a sample that failed
    options: list[str]  # of the command, for these files


def measure(
    model: Model,
    paths: Sequence[str],
    *,
    device: str,
    seconds: float,
    show: Show,
    rule: ReadOptions | None = None,
) -> dict[str, Any]:
    """Return the samples/s of each part, of the whole, and of the ideal whole.

    device: as in --device, "auto" too. show: is called with what is measured. rule: how a
    forecaster's files are read. Takes about `seconds`, and longer where one run takes longer than
    its share of them.
    """
    share, threads = seconds / SHARES, list(dict.fromkeys((1, usable_cores())))
    with tempfile.TemporaryDirectory(prefix="convline-") as name:
        folder = Path(name)
        show("preparing the files")
        if isinstance(model, Classifier):
            workload = image_workload(model, paths, folder)
        else:
            workload = series_workload(model, paths, folder, rule)
        show("starting the command")
        first_s, peak = _measure_first_result(workload, model, device)
        reading, inference = [], []
        for count in threads:
            show(f"reading, {count} threads")
            rate = _reading_rate(workload, count, share)
            reading.append({"threads": count, "per_second": rate})
        for count in threads if model.device.startswith("cpu") else threads[-1:]:
            show(f"inference, {count} threads")
            inference += _inference_rates(model, workload, device, count, share)
        show("the whole")
        whole, writing = whole_rates(workload, folder / "rows.csv", 4 * share)
    best_reading, best_inference = (
        max(row["per_second"] for row in part) for part in (reading, inference)
    )
    ideal = 1 / (1 / best_reading + 1 / best_inference)
    return {
        "model": model.name,
        "device": model.device,
        "machine": processor(),
        "cores": threads[-1],
        "unit": workload.unit,
        "files": len(workload.files),
        "reading": reading,
        "inference": inference,
        "rows_written_per_second": writing,
        "whole": {"per_second": whole, "ideal": ideal, "reached": whole / ideal},
        "first_s": first_s,
        "peak_bytes": peak,
    }


def image_workload(model: Classifier, paths: Sequence[str], folder: Path) -> Workload:
    """Return the workload of a classifier; without paths, photos are written to `folder`."""

    def read(file: str) -> list[Array]:
        return [read_image(file, model.rule)]

    def serve(files: Iterator[str], target: str) -> Summary:
        sources = map(Source, files)
        return label_images(model.file, model.kind, sources, target, sys.stdout.buffer)

    sources = ImageSources(paths, sys.stdin.buffer)
    files = _readable_files(sources, read) if paths else photos(folder, FILES, PHOTO)
    return Workload("images", files, read, serve, 1, [])


def series_workload(
    model: Forecaster, paths: Sequence[str], folder: Path, rule: ReadOptions | None = None
) -> Workload:
    """Return the workload of a forecaster; without paths, series are written to `folder`."""
    own_rule = ReadOptions(model.name, model.document.input)
    reading = rule if rule and paths else own_rule

    def read(file: str) -> list[Array]:
        series = [one.values for one in reading.read(file).series]
        return [values[-model.context :] for values in series if len(values) >= model.context]

    def serve(files: Iterator[str], target: str) -> Summary:
        task = ForecastTask(model, reading, model.horizon, notify=lambda _: None)
        return forecast_files(SeriesJob(task, target), map(Source, files), sys.stdout.buffer)

    sources = SeriesSources(paths, sys.stdin.buffer)
    files = _readable_files(sources, read) if paths else _generated_series(model, folder)
    return Workload("series", files, read, serve, model.horizon, reading.to_arguments())


def _readable_files(sources: FileSources, read: Callable[[str], list[Array]]) -> list[str]:
    """Return the readable ones of the first MOST_FILES files: a rate over broken ones would mean
    nothing."""
    readable, reason = [], "there is no file"
    for source in itertools.islice(sources, MOST_FILES):
        try:
            if read(source.path):
                readable.append(source.path)
        except InputError as error:
            reason = str(error)
    if not readable:
        cure = "leave them out for generated ones"
        raise ServeError(f"expected files to measure on, none can be used: {reason}; {cure}")
    return readable


def photos(folder: Path, count: int, size: tuple[int, int]) -> list[str]:
    """Write JPEG files (W, H) that cost what photos cost to decode: smooth shapes with a sensor's
    noise."""
    rng, (width, height) = np.random.default_rng(0), size
    names = [str(folder / f"{k:05}.jpg") for k in range(count)]
    for name in names:
        smooth = Image.fromarray(rng.integers(0, 256, (12, 18, 3), np.uint8)).resize(size)
        noisy = np.asarray(smooth, np.int16) + rng.integers(-12, 13, (height, width, 1), np.int16)
        Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(name, quality=90)
    return names


def _generated_series(model: Forecaster, folder: Path) -> list[str]:
    """Write CSV files of one series each: a golden sample repeated, in the model's step and
    columns."""
    golden = model.document.golden.input  # (n, T, D)
    rule, rows = model.document.input, max(model.context, min(4 * model.context, ROWS))
    step = rule.step
    start = 0 if step.unit == "index" else np.datetime64("2000-01-01", "s")
    times = format_times(future_times(start, step, rows))
    names = [str(folder / f"{k}.csv") for k in range(FILES)]
    for k, name in enumerate(names):
        values = np.resize(golden[k % len(golden)], (rows, len(model.columns))).T.tolist()
        columns: dict[str, Sequence[object]] = {}
        if rule.time:
            columns[rule.time] = times
        if rule.id:
            columns[rule.id] = [k] * rows
        columns |= zip(model.columns, values, strict=True)
        with open(name, "w", encoding="utf-8", newline="") as file:
            csv.writer(file).writerows([[*columns], *zip(*columns.values(), strict=True)])
    return names


def _measure_first_result(
    workload: Workload, model: Model, device: str
) -> tuple[float, int | None]:
    """Return the seconds until a new `infer` process writes its first row of a batch, and its peak
    memory in bytes."""
    command = [sys.executable, "-P", "-c", FIRST_RESULT, workload.unit, str(model.file.path)]
    command += [*workload.files[: BATCHES[-1]], "--device", device, *workload.options]
    path = [str(Path(__file__).parents[2]), *filter(None, [os.environ.get("PYTHONPATH")])]
    start = time.perf_counter()
    with subprocess.Popen(
        command,
        text=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(path)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stdout and process.stderr
        try:
            process.stdout.readline()  # the heading
            row, seconds = process.stdout.readline(), time.perf_counter() - start
            messages = process.communicate()[1].split("\n")
        finally:
            process.kill()  # if Ctrl-C or SIGTERM ends the wait
    if not row or process.returncode:
        what = f"`infer {workload.unit}` failed in a process of its own: {messages[0]}"
        raise ServeError(f"{model.file.path}: {what}")
    return seconds, int(messages[-2]) or None


def _repeat(seconds: float, run: Callable[[], int]) -> float:
    """Repeat a function that returns how many samples it processed; return the samples/s."""
    samples, start = 0, time.perf_counter()
    while not samples or time.perf_counter() - start < seconds:
        samples += run()
    return samples / (time.perf_counter() - start)


def _reading_rate(workload: Workload, threads: int, seconds: float) -> float:
    """Return the samples/s of reading files with some threads."""
    files = itertools.cycle(workload.files)
    with ThreadPoolExecutor(threads) as pool:

        def read_some() -> int:
            samples = pool.map(workload.read, itertools.islice(files, 8 * threads))
            return sum(map(len, samples))

        return _repeat(seconds, read_some)


def _inference_rates(
    model: Model, workload: Workload, device: str, threads: int, seconds: float
) -> list[dict[str, Any]]:
    """Return a row for each batch size, each measured for `seconds`.

    Sizes are left out from the first that takes longer or does not fit in the device's memory.
    """
    opened = open_model(model.file, device, threads=threads)
    # A network takes the same time on any day, so the calendar of the golden samples will do.
    calendar = model.document.golden.calendar

    def run(batch: Array) -> int:
        if isinstance(opened, Classifier):
            opened.predict_proba(batch)
        else:
            indices = np.arange(len(batch))
            known = None if calendar is None else calendar[indices % len(calendar)]
            opened.run_encoded(batch, known)
        return len(batch)

    samples = [sample for file in workload.files[: BATCHES[-1]] for sample in workload.read(file)]
    rows: list[dict[str, Any]] = []
    for size in BATCHES:
        if rows and size / rows[-1]["per_second"] > seconds:
            break
        batch = np.stack([samples[k % len(samples)] for k in range(size)])
        try:
            run(batch)  # the first run allocates memory
        except DeviceMemoryError:
            if not rows:
                raise
            break
        rate = _repeat(seconds, functools.partial(run, batch))
        rows.append({"threads": threads, "batch": size, "per_second": rate})
    return rows


def whole_rates(workload: Workload, table: Path, seconds: float) -> tuple[float, float]:
    """Return the samples/s from files to the written table, and the rows/s of writing alone."""
    start = time.perf_counter()
    files = itertools.cycle(workload.files)
    more = itertools.takewhile(lambda _: time.perf_counter() - start < seconds, files)
    done = workload.serve(itertools.chain([next(files)], more), str(table))  # at least one file
    seconds = time.perf_counter() - start
    rows, failed = done.checkpoint.rows, done.checkpoint.failed
    samples = (rows - failed) // workload.rows_per_sample + failed
    return samples / seconds, rows / done.write_s


def format_text(report: dict[str, Any]) -> str:
    """Return the measurements as two tables."""
    unit, whole = f"{report['unit']}/s", report["whole"]
    rows = [["part", "threads", "batch", unit]]
    rows += [["reading", row["threads"], "", _format_rate(row)] for row in report["reading"]]
    rows += [
        ["inference", row["threads"], row["batch"], _format_rate(row)]
        for row in report["inference"]
    ]
    rows += [["the whole", report["cores"], "", _format_rate(whole)]]
    peak = report["peak_bytes"]
    share = f"{100 * whole['reached']:.0f} % of {whole['ideal']:.3g} {unit}"
    facts = [
        ["model", f"{report['model']} on {report['device']}"],
        ["machine", f"{report['machine']}, {report['cores']} cores"],
        ["measured on", f"{report['files']} files"],
        ["rows written", f"{report['rows_written_per_second']:.0f}/s"],
        ["reached", f"{share}, 1 / (1 / reading + 1 / inference)"],
        ["first result", f"{report['first_s']:.2f} s after the command starts"],
        ["peak memory", f"{peak / 1e6:.0f} MB" if peak else "not known on this system"],
    ]
    return f"{format_table(rows, right_aligned=(1, 2, 3))}\n\n{format_table(facts)}"


def _format_rate(row: dict[str, float]) -> str:
    rate = row["per_second"]
    return f"{rate:.3g}" if rate < 100 else f"{rate:.0f}"
