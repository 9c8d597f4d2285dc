"""How fast a model file serves here, part by part and end to end: what `infer bench` prints.

Reading and inference share the cores, so the ideal of the whole is 1 / (1 / reading + 1 / inference), each at its best.
"""

import csv
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
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

from convline.errors import DeviceMemoryError, InputError, ServeError
from convline.images.decode import read_image
from convline.images.sources import ImageSources, SeriesSources, Source
from convline.jobs.run import label_images
from convline.model_file import document as contract
from convline.report.text_table import render
from convline.runtime.host import processor, usable_cores
from convline.runtime.model import Classifier, Forecaster, wrap
from convline.runtime.session import open_session
from convline.timeseries import predict
from convline.timeseries.read_options import ReadOptions
from convline.timeseries.series import Step, future_times
from convline.timeseries.timestamps import format_times

Model = Classifier | Forecaster
Array = npt.NDArray[Any]
Say = Callable[[str], None]
BATCHES = (1, 8, 32)
FILES, MOST_FILES = (
    16,
    64,
)  # generated where no path is given; read again and again of those that are
PHOTO = (1500, 1000)  # pixels (W, H) of a small photo
ROWS = 10_000  # of a generated series at most, four contexts where they are fewer
PARTS = 12  # the time is shared out evenly to 2 readings, 6 inferences, and 4 shares for the whole
ALONE = """
import sys
from convline.cli.main import main
from convline.runtime import host
try:
    main(sys.argv[1:], prog_name="infer")
finally:
    print(host.peak_memory() or 0, file=sys.stderr)
"""


class Served(NamedTuple):
    """What went through the command: samples, rows, and the seconds of writing them."""

    samples: int
    rows: int
    writing: float


@dataclass(frozen=True)
class Work:
    """What a model is measured on: how a file is read and served; `unit` is what rates count."""

    unit: str  # "images" | "series", which is also the command of `infer`
    files: list[str]
    read: Callable[[str], list[Array]]  # the samples of a file
    serve: Callable[
        [Iterator[str], str], Served
    ]  # files to the rows of a table, as the command does
    options: list[str]  # with which the command reads the files


def measure(
    model: Model,
    paths: Sequence[str],
    *,
    device: str,
    seconds: float,
    say: Say,
    rule: ReadOptions | None = None,
) -> dict[str, Any]:
    """Return the samples/s of each part, of the ideal and of the measured whole; `say` is told what is being done.

    device: as asked, "auto" too. rule: how a forecaster's own files are read. Takes about `seconds`, and longer where
    one run takes longer than its share of them.
    """
    share, threads = seconds / PARTS, list(dict.fromkeys((1, usable_cores())))
    with tempfile.TemporaryDirectory(prefix="convline-") as folder:
        say("looking at the files")
        made = Path(folder)
        if isinstance(model, Classifier):
            work = _image_work(model, paths, made)
        else:
            work = _series_work(model, paths, made, rule if paths else None)
        say("starting the command")
        first_s, peak = _alone(work, model, device)
        reading, inference = [], []
        for count in threads:
            say(f"reading, {count} threads")
            reading.append({"threads": count, "per_second": _reading_rate(work, count, share)})
        for count in threads if model.device.startswith("cpu") else threads[-1:]:
            say(f"inference, {count} threads")
            inference += _sweep(model, work, device, count, share)
        say("the whole")
        whole, writing = _whole(work, made / "rows.csv", 4 * share)
    read, run = (max(row["per_second"] for row in part) for part in (reading, inference))
    ideal = 1 / (1 / read + 1 / run)
    return {
        "model": model.name, "device": model.device, "machine": processor(), "cores": threads[-1], "unit": work.unit,
        "files": len(work.files), "reading": reading, "inference": inference, "rows_written_per_second": writing,
        "whole": {"per_second": whole, "ideal": ideal, "reached": whole / ideal},
        "first_s": first_s, "peak_bytes": peak,
    }  # fmt: skip


def _image_work(model: Classifier, paths: Sequence[str], folder: Path) -> Work:
    def read(file: str) -> list[Array]:
        return [read_image(file, model.rule)]

    def serve(files: Iterator[str], target: str) -> Served:
        done = label_images(
            model.contract, model.kind, map(Source, files), target, sys.stdout.buffer
        )
        return Served(done.mark.rows, done.mark.rows, done.writing)

    given = (source.path for source in ImageSources(paths, sys.stdin.buffer))
    return Work(
        "images", _readable(given, read) if paths else photos(folder, FILES, PHOTO), read, serve, []
    )


def _series_work(
    model: Forecaster, paths: Sequence[str], folder: Path, rule: ReadOptions | None = None
) -> Work:
    how = rule or ReadOptions(model.name, model.contract.document["input"])
    given = (source.path for source in SeriesSources(paths, sys.stdin.buffer))

    def read(file: str) -> list[Array]:
        return [
            one.values[-model.context :]
            for one in how.read(file).series
            if len(one.values) >= model.context
        ]

    def serve(files: Iterator[str], target: str) -> Served:
        task = predict.ForecastTask(model, how, model.horizon, target=target, say=lambda _: None)
        done = predict.forecast_files(task, map(Source, files), sys.stdout.buffer)
        failed = done.mark.failed  # one row each
        return Served(
            (done.mark.rows - failed) // model.horizon + failed, done.mark.rows, done.writing
        )

    files = _readable(given, read) if paths else _histories(model, folder)
    return Work("series", files, read, serve, how.options())


def _readable(files: Iterator[str], read: Callable[[str], list[Array]]) -> list[str]:
    """Return the first files that can be read, MOST_FILES at most: a rate over broken ones would say nothing."""
    good, trouble = [], "there is no file"
    for file in itertools.islice(files, MOST_FILES):
        try:
            if read(file):
                good.append(file)
        except InputError as error:
            trouble = str(error)
    if not good:
        raise ServeError(
            f"expected files to measure on, none can be used: {trouble}; leave them out for generated ones"
        )
    return good


def photos(folder: Path, count: int, size: tuple[int, int]) -> list[str]:
    """Write JPEG files (W, H) that cost what photos cost to decode: smooth shapes under a sensor's noise."""
    rng, (width, height) = np.random.default_rng(0), size
    names = [str(folder / f"{k:05}.jpg") for k in range(count)]
    for name in names:
        smooth = Image.fromarray(rng.integers(0, 256, (12, 18, 3), np.uint8)).resize(size)
        noisy = np.asarray(smooth, np.int16) + rng.integers(-12, 13, (height, width, 1), np.int16)
        Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(name, quality=90)
    return names


def _histories(model: Forecaster, folder: Path) -> list[str]:
    """Write CSV files of one series each, the golden samples said again and again, in the model's step and columns."""
    golden = contract.unpack(model.contract.document["golden"]["input"])  # (n, T, D)
    rule, rows = model.contract.document["input"], max(model.context, min(4 * model.context, ROWS))
    step = Step.from_dict(rule["step"])
    times = format_times(
        future_times(np.datetime64("2000-01-01", "s") if step.unit != "index" else 0, step, rows)
    )
    named = {rule["time"]: times} if rule["time"] else {}
    names = [str(folder / f"{k}.csv") for k in range(FILES)]
    for k, name in enumerate(names):
        values = np.resize(golden[k % len(golden)], (rows, len(model.columns))).T.tolist()
        ids = {rule["id"]: [str(k)] * rows} if rule["id"] else {}
        columns = named | ids | dict(zip(model.columns, values, strict=True))
        with open(name, "w", encoding="utf-8", newline="") as file:
            csv.writer(file).writerows([[*columns], *zip(*columns.values(), strict=True)])
    return names


def _alone(work: Work, model: Model, device: str) -> tuple[float, int | None]:
    """Return the seconds until a new `infer` process on a full batch writes its first row, and its peak memory."""
    words = [
        work.unit,
        str(model.contract.path),
        *work.files[: BATCHES[-1]],
        "--device",
        device,
        *work.options,
    ]
    path = os.pathsep.join(
        [str(Path(__file__).parents[2]), *filter(None, [os.environ.get("PYTHONPATH")])]
    )
    start = time.perf_counter()
    with subprocess.Popen(
        [sys.executable, "-P", "-c", ALONE, *words], text=True, env=os.environ | {"PYTHONPATH": path},
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    ) as process:  # fmt: skip
        assert process.stdout and process.stderr
        try:
            process.stdout.readline()  # the heading
            row, seconds = process.stdout.readline(), time.perf_counter() - start
            errors = process.communicate()[1].split("\n")
        finally:
            process.kill()  # where Ctrl-C or SIGTERM ends the wait
    if not row or process.returncode:
        raise ServeError(
            f"{model.contract.path}: `infer {work.unit}` failed in a process of its own: {errors[0]}"
        )
    return seconds, int(errors[-2]) or None


def _reading_rate(work: Work, threads: int, seconds: float) -> float:
    files, done, start = itertools.cycle(work.files), 0, time.perf_counter()
    with ThreadPoolExecutor(threads) as pool:
        while not done or time.perf_counter() - start < seconds:
            done += sum(map(len, pool.map(work.read, itertools.islice(files, 8 * threads))))
    return done / (time.perf_counter() - start)


def _sweep(
    model: Model, work: Work, device: str, threads: int, seconds: float
) -> list[dict[str, Any]]:
    """Return a row for each batch size, `seconds` each; one that takes longer, or does not fit, ends the sweep."""
    opened = wrap(
        model.contract, open_session(model.contract.served, device, threads=threads), device
    )
    golden = model.contract.document["golden"]
    known = (
        contract.unpack(golden["calendar"]) if "calendar" in golden else None
    )  # a network runs alike on any day

    def run(given: Array) -> object:
        if isinstance(opened, Classifier):
            return opened.predict_proba(given)
        return opened.answers(
            given, None if known is None else known[np.arange(len(given)) % len(known)]
        )

    samples = [sample for file in work.files[: BATCHES[-1]] for sample in work.read(file)]
    rows: list[dict[str, Any]] = []
    for batch in BATCHES:
        if rows and batch / rows[-1]["per_second"] > seconds:
            break
        given = np.stack([samples[k % len(samples)] for k in range(batch)])
        try:
            run(given)  # memory is laid out on the first run
        except DeviceMemoryError:
            if not rows:
                raise
            break
        runs, start = 0, time.perf_counter()
        while not runs or time.perf_counter() - start < seconds:
            run(given)
            runs += 1
        rows.append(
            {
                "threads": threads,
                "batch": batch,
                "per_second": batch * runs / (time.perf_counter() - start),
            }
        )
    return rows


def _whole(work: Work, file: Path, seconds: float) -> tuple[float, float]:
    """Return the samples/s from files to written rows, and the rows/s of writing alone."""
    start = time.perf_counter()
    files = itertools.cycle(work.files)
    more = itertools.takewhile(lambda _: time.perf_counter() - start < seconds, files)
    served = work.serve(
        itertools.chain([next(files)], more), str(file)
    )  # one at least, however short the time
    return served.samples / (time.perf_counter() - start), served.rows / served.writing


def text(found: dict[str, Any]) -> str:
    """Return the measurements as a table and a few sentences."""
    unit, whole = f"{found['unit']}/s", found["whole"]
    rows = [["part", "threads", "batch", unit]]
    rows += [["reading", str(row["threads"]), "", _rate(row)] for row in found["reading"]]
    rows += [
        ["inference", str(row["threads"]), str(row["batch"]), _rate(row)]
        for row in found["inference"]
    ]
    rows += [["the whole", str(found["cores"]), "", _rate(whole)]]
    peak = (
        f"{found['peak_bytes'] / 1e6:.0f} MB" if found["peak_bytes"] else "not known on this system"
    )
    facts = [
        ["model", f"{found['model']} on {found['device']}"],
        ["machine", f"{found['machine']}, {found['cores']} cores"],
        ["measured on", f"{found['files']} files"],
        ["rows written", f"{found['rows_written_per_second']:.0f}/s"],
        [
            "reached",
            f"{100 * whole['reached']:.0f} % of {whole['ideal']:.3g} {unit}, 1 / (1 / reading + 1 / inference)",
        ],
        ["first result", f"{found['first_s']:.2f} s after the command starts"],
        ["peak memory", peak],
    ]
    return f"{render(rows, numbers=(1, 2, 3))}\n\n{render(facts)}"


def progress(what: str) -> None:
    """Show in place what is being done, on a terminal only."""
    if sys.stderr.isatty():
        print(f"\r\x1b[K{what}", end="", file=sys.stderr, flush=True)


def _rate(row: dict[str, float]) -> str:
    return f"{row['per_second']:.3g}" if row["per_second"] < 100 else f"{row['per_second']:.0f}"
