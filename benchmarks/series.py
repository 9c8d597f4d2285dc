"""`infer series` on a table of many series against pyarrow and onnxruntime alone, and its streams against windows.

Reading: rows/s from a file to checked series against pyarrow's reader of the same file. Windows:
forecasts/s from a file to written rows, from every 24th row, against onnxruntime on prepared
arrays, same model and batch, at its best of threads. Streams: the cost of a sample by the step
graph and by running the window anew. Weights are random.

    python benchmarks/series.py               # about five minutes on two cores
    python benchmarks/series.py streams       # a part of it
"""

from __future__ import annotations

import io
import multiprocessing
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # runs from a bare checkout, uninstalled

import click
import numpy as np
import onnxruntime
import pyarrow
import pyarrow.csv
import pyarrow.parquet
import torch
from convline.jobs.formats import to_csv
from convline.jobs.series_job import SeriesJob, forecast_files
from convline.loading import open_model
from convline.model_file.golden import pack_array
from convline.model_file.onnx_file import ModelFile, read_model_file, seal
from convline.runtime import host
from convline.runtime.host import usable_cores
from convline.runtime.session import open_session
from convline.runtime.sources import Source
from convline.runtime.streaming import Stream
from convline.timeseries.forecaster import Forecaster
from convline.timeseries.model import WINDOWS_PER_RUN
from convline.timeseries.online import Follower
from convline.timeseries.predict import ForecastTask
from convline.timeseries.read_options import ReadOptions

import models
from pipeline.export import streaming_graph
from pipeline.network import modules as network

EVERY = 24
CONTEXTS = (128, 1024)  # hours
SEEN, TAKEN = (100, 1000, 10_000), 200
QUANTILES = [0.1, 0.5, 0.9]
NET = {
    "channels": 32,
    "kernel_size": 5,
    "dilations": [1, 2, 4, 8],
    "activation": "none",
}  # of dilated-waves


def table(folder: Path, count: int, rows: int) -> dict[str, Path]:
    """Write hourly series of a daily rhythm, one after the other, as CSV and as Parquet."""
    rng, hours = np.random.default_rng(0), np.arange(rows)
    times = np.datetime_as_string(np.datetime64("2020-01-01", "s") + 3600 * hours).tolist()
    files = {"CSV": folder / "table.csv", "Parquet": folder / "table.parquet"}
    with files["CSV"].open("w") as file:
        file.write("unique_id,ds,y\n")
        for k in range(count):
            values = 100 + 10 * np.sin(2 * np.pi * (hours + k) / 24) + rng.normal(size=rows)
            lines = zip(times, values.tolist(), strict=True)
            file.write("".join([f"series-{k:04},{time},{value:.3f}\n" for time, value in lines]))
    pyarrow.parquet.write_table(pyarrow.csv.read_csv(files["CSV"]), files["Parquet"])
    return files


def model(folder: Path, context: int) -> Forecaster:
    """Write the dilated network with random weights, and its step graph, as the line exports
    them; load it.
    """
    torch.manual_seed(0)
    net = models.build("causal", series=1, horizon=EVERY, **NET)
    offsets = torch.tensor([-1.0, 0.0, 1.0]).expand(EVERY, 1, 3).contiguous()
    whole = network.Forecaster(net, torch.full((1,), 100.0), torch.full((1,), 0.1), offsets).eval()
    x = np.random.default_rng(0).normal(100, 10, (2, context, 1)).astype(np.float32)
    graph, samples = streaming_graph.export_with_step(whole, x)
    with torch.no_grad():
        answers = dict(zip(("forecast", "quantiles"), whole(torch.from_numpy(x)), strict=True))
    document = {
        "format": 1, "name": "dilated", "task": "forecasting", "provenance": {"licence": "none: random weights"},
        "input": {
            "kind": "series", "context": context, "columns": ["y"], "id": "unique_id", "time": "ds", "gaps": "error",
            "step": {"unit": "seconds", "count": 3600},
        },
        "forecast": {"horizon": EVERY, "quantiles": QUANTILES}, "stream": {"samples": samples},
        "golden": {
            "input": pack_array(x), "outputs": {name: pack_array(found.numpy()) for name, found in answers.items()}, "atol": 1e-2,
        },
    }  # fmt: skip
    path = folder / f"dilated-{context}.onnx"
    path.write_bytes(seal(graph.SerializeToString(), document))
    contract = read_model_file(path)
    return open_model(contract, "cpu", threads=1, spinning=False)  # as the command does


def spent(call: Callable[[], object]) -> np.ndarray:
    """Return [seconds, seconds of all threads on a core]: where others use the machine only the
    second repeats.
    """
    start = np.array([time.perf_counter(), time.process_time()])
    call()
    return np.array([time.perf_counter(), time.process_time()]) - start


def apart(how: ReadOptions, file: Path, blocked: str = "") -> tuple[float, float]:
    """Return the rows' seconds and the peak MB of a process of its own that reads a file,
    without a module.
    """
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(read_apart, (how, file, blocked))


def read_apart(how: ReadOptions, file: Path, blocked: str) -> tuple[float, float]:
    if blocked:
        sys.modules[blocked] = None
    took = spent(lambda: how.read(file))[0]
    # getrusage would tell the parent's peak: Linux keeps it over fork and exec
    peak = next(
        line
        for line in Path("/proc/self/status").read_text().splitlines()
        if line.startswith("VmHWM")
    )
    return took, int(peak.split()[1]) / 1024


def reading(how: ReadOptions, files: dict[str, Path], rows: int) -> list[str]:
    alone = {"CSV": pyarrow.csv.read_csv, "Parquet": pyarrow.parquet.read_table}
    lines = [
        "| reading and checking | pyarrow alone, rows/s | ours, rows/s | ratio | of CPU time | peak memory |"
    ]
    lines.append("| --- | ---: | ---: | ---: | ---: | ---: |")
    for form, file in files.items():
        turns = [
            (spent(lambda f=form, p=file: alone[f](p)), spent(lambda p=file: how.read(p)))
            for _ in range(5)
        ]
        bare, ours = (rows / np.median(part, axis=0) for part in zip(*turns, strict=True))
        ratio, cpu = ours / bare
        memory = f"{apart(how, file)[1]:,.0f} MB"
        lines.append(
            f"| {form} | {bare[0]:,.0f} | {ours[0]:,.0f} | {ratio:.2f} | {cpu:.2f} | {memory} |"
        )
    took, peak = apart(how, files["CSV"], "pyarrow")
    lines.append(
        f"| CSV where pyarrow is not installed | | {rows / took:,.0f} | | | {peak:,.0f} MB |"
    )
    return lines


def windows(net: Forecaster, how: ReadOptions, files: dict[str, Path], count: int) -> list[str]:
    """Return the table of forecasts/s: from a file to written rows, between two measurements of
    onnxruntime.
    """
    before, done = onnxruntime_alone(net.file, count), {}
    for form, file in files.items():
        for suffix in (".csv", ".jsonl"):
            task, found = (
                SeriesJob(ForecastTask(net, how, EVERY, EVERY, lambda _: None), f"{file}{suffix}"),
                [],
            )
            source = Source(str(file))
            took = spent(
                lambda t=task, s=source, found=found: found.append(
                    forecast_files(t, [s], io.BytesIO())
                )
            )
            done[f"{form} to {suffix[1:]}"] = found[0].checkpoint.rows / EVERY / took, found[0]
    bare = np.maximum(before, onnxruntime_alone(net.file, count))
    lines = [
        f"| {net.context} hours, then {EVERY} | windows/s | of onnxruntime alone | of CPU time | read, run, write |",
        "| --- | ---: | ---: | ---: | ---: |",
        f"| onnxruntime alone | {bare[0]:,.0f} | 1.00 | 1.00 | |",
    ]
    for name, (rate, summary) in done.items():
        parts = f"{summary.decode_s:.1f} s, {summary.inference_s:.1f} s, {summary.write_s:.1f} s"
        ratio, cpu = rate / bare
        lines.append(
            f"| `infer series`, {name} | {rate[0]:,.0f} | {ratio:.2f} | {cpu:.2f} | {parts} |"
        )
    return lines


def onnxruntime_alone(contract: ModelFile, count: int) -> np.ndarray:
    """Return windows a second and a CPU second, prepared arrays, at the best of a batch on all
    cores or on each.
    """
    net = contract.json["input"]
    x = (
        np.random.default_rng(0)
        .normal(100, 10, (WINDOWS_PER_RUN, net["context"], 1))
        .astype(np.float32)
    )
    cores, runs, found = usable_cores(), count // WINDOWS_PER_RUN, []
    for threads, workers in ((cores, 1), (1, cores)):
        run = open_session(
            contract.prediction_graph, "cpu", threads=threads, spinning=workers == 1
        ).run
        with ThreadPoolExecutor(workers) as pool:
            took = spent(
                lambda pool=pool, run=run: list(
                    pool.map(lambda _: run(None, {"series": x})[:0], range(runs))
                )
            )
        found.append(runs * WINDOWS_PER_RUN / took)
    return np.max(found, axis=0)


def streams(net: Forecaster, how: ReadOptions) -> list[str]:
    """Return the table of the cost of a sample: from its cells to the rows that answer it, and
    in the network alone.
    """
    times = np.datetime_as_string(
        np.datetime64("2020-01-01", "s") + 3600 * np.arange(max(SEEN) + TAKEN)
    ).tolist()
    window, alone = np.full((1, net.context, 1), 100.5), Stream(net.file, "cpu")
    cost = {"step alone": each(lambda _: alone.push([100.5]), times)}
    cost["window alone"] = each(lambda _: net.run(window), times)
    for name, stream in (("step", alone.fork()), ("window", None)):
        follower = Follower(
            ForecastTask(net, how, EVERY, 1, notify=lambda _: None),
            ["unique_id", "ds", "y"],
            stream,
        )
        cost[name] = each(lambda time, f=follower: to_csv(f.rows(["a", time, "100.5"])), times)
    lines = [
        f"| seen, window of {net.context} | step graph, µs | window anew, µs | ratio | networks alone, µs | ratio |",
        "| ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for seen in SEEN:
        step, window, *nets = (
            cost[name][seen] for name in ("step", "window", "step alone", "window alone")
        )
        own = f"{nets[0]:,.0f}, {nets[1]:,.0f} | {nets[1] / nets[0]:.1f}"
        lines.append(f"| {seen:,} | {step:,.0f} | {window:,.0f} | {window / step:.1f} | {own} |")
    return lines


def each(call: Callable[[str], object], samples: list[str]) -> dict[int, float]:
    """Return the median microseconds of a call for the TAKEN samples behind each of SEEN."""
    taken = [spent(lambda sample=sample: call(sample))[0] for sample in samples]
    return {seen: 1e6 * statistics.median(taken[seen : seen + TAKEN]) for seen in SEEN}


@click.command()
@click.argument("parts", nargs=-1, type=click.Choice(["reading", "windows", "streams"]))
@click.option("--series", "count", default=1000, show_default=True)
@click.option("--rows", default=5000, show_default=True, help="Of each series.")
def main(parts: tuple[str, ...], count: int, rows: int) -> None:
    """Print a table for each of PARTS, all of them by default."""
    print(f"{host.processor()}, {usable_cores()} cores; onnxruntime {onnxruntime.__version__}, pyarrow "
          f"{pyarrow.__version__}; {count:,} series of {rows:,} rows\n")  # fmt: skip
    parts = parts or ("reading", "windows", "streams")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        nets = [model(folder, context) for context in CONTEXTS]
        how = ReadOptions(nets[0].name, nets[0].document.input)
        files = table(folder, count, rows) if {*parts} - {"streams"} else {}
        found = [reading(how, files, count * rows)] if "reading" in parts else []
        found += (
            [windows(nets[0], how, files, count * (rows - CONTEXTS[0]) // EVERY)]
            if "windows" in parts
            else []
        )
        found += [streams(net, how) for net in nets] if "streams" in parts else []
    print("\n\n".join("\n".join(lines) for lines in found))


if __name__ == "__main__":
    main()
