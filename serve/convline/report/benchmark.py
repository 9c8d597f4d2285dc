"""How fast a model file serves on this machine, by part and end to end (`infer bench`).

Reading and inference share the cores. The best rate of the whole is therefore
1 / (1 / reading + 1 / inference), each at its best.
"""

import functools
import itertools
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from convline.errors import DeviceMemoryError, ServeError
from convline.images.image_model import ImageModel, Options
from convline.loading import open_model
from convline.report.text_table import format_table
from convline.report.workload import Array, Workload, image_workload, series_workload
from convline.runtime.engine import BF16
from convline.runtime.host import processor, usable_cores
from convline.timeseries.forecaster import Forecaster
from convline.timeseries.read_options import ReadOptions

Model = ImageModel[Any] | Forecaster
Show = Callable[[str], None]
BATCHES = (1, 8, 32)
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


def measure(
    model: Model,
    paths: Sequence[str],
    *,
    device: str,
    seconds: float,
    show: Show,
    note: Show,
    rule: ReadOptions | None = None,
) -> dict[str, Any]:
    """Return the samples/s of each part, of the whole, and of the ideal whole.

    device: as in --device, "auto" too. show: is called with what is measured now; note: with what
    the user should know about the files. rule: how a forecaster's files are read. Takes about
    `seconds`, and longer where one run takes longer than its share of them.
    """
    share, threads = seconds / SHARES, list(dict.fromkeys((1, usable_cores())))
    with tempfile.TemporaryDirectory(prefix="convline-") as name:
        folder = Path(name)
        show("preparing the files")
        if isinstance(model, ImageModel):
            workload = image_workload(model, paths, folder)
        else:
            workload = series_workload(model, paths, folder, rule)
        measured_on = workload.describe()
        if not paths:
            what = f"{measured_on['samples']} generated {workload.unit} of {measured_on['sizes']}"
            note(f"no PATH is given: measuring on {what}; a PATH measures on your own files")
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
        "measured_on": measured_on,
        "reading": reading,
        "inference": inference,
        "rows_written_per_second": writing,
        "whole": {"per_second": whole, "ideal": ideal, "reached": whole / ideal},
        "first_s": first_s,
        "peak_bytes": peak,
    }


def _measure_first_result(
    workload: Workload, model: Model, device: str
) -> tuple[float, int | None]:
    """Return the seconds until a new `infer` process writes its first row of a batch, and its peak
    memory in bytes."""
    command = [sys.executable, "-P", "-c", FIRST_RESULT, workload.unit, str(model.file.path)]
    command += [*workload.files[: BATCHES[-1]], "--device", device, *workload.options]
    command += ["--engine", model.engine.name, *(["--variant", BF16] if model.engine.bf16 else [])]
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
    opened = open_model(model.file, device, threads=threads, engine=model.engine)
    # A network takes the same time on any day, so the calendar of the golden samples will do.
    calendar = model.document.golden.calendar

    def run(batch: Array) -> int:
        if isinstance(opened, ImageModel):  # of a captioner, the search is a part of it
            opened.answers(opened.run(batch), [(1, 1)] * len(batch), Options())
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
    ideal = _format_rate({"per_second": whole["ideal"]})
    share = f"{100 * whole['reached']:.0f} % of {ideal} {unit}"
    facts = [
        ["model", f"{report['model']} on {report['device']}"],
        ["machine", f"{report['machine']}, {report['cores']} cores"],
        *_describe_files(report["measured_on"], report["unit"]),
        ["rows written", f"{report['rows_written_per_second']:.0f}/s"],
        ["reached", f"{share}, 1 / (1 / reading + 1 / inference)"],
        ["first result", f"{report['first_s']:.2f} s after the command starts"],
        ["peak memory", f"{peak / 1e6:.0f} MB" if peak else "not known on this system"],
    ]
    return f"{format_table(rows, right_aligned=(1, 2, 3))}\n\n{format_table(facts)}"


def _describe_files(about: dict[str, Any], unit: str) -> list[list[str]]:
    """Return lines: how many files of what size, where they are from, and which were left out."""
    first = "the first " if about["more_files"] else ""
    files = f"{first}{about['files']} file{'s' if about['files'] > 1 else ''}"
    samples = f"{about['samples']} {unit} of {about['sizes']}, {about['bytes'] / 1e6:.3g} MB"
    lines = [["measured on", f"{files}: {samples}"], ["source", about["source"]]]
    return lines if about["left_out"] == "none" else [*lines, ["left out", about["left_out"]]]


def _format_rate(row: dict[str, float]) -> str:
    rate = row["per_second"]
    return f"{rate:.3g}" if rate < 100 else f"{rate:.0f}"
