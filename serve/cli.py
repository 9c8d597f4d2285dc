"""The `infer` command: predictions from a model file on images and CSV series.

Exit codes: 0 done (rows may hold errors, one each), 1 it could not be done and one sentence says why, 2 wrong usage,
3 with --strict where a row failed, 130 interrupted by Ctrl-C or SIGTERM. Results go to stdout or --output, everything
else to stderr.
Imports of numpy, Pillow and onnxruntime wait until a command runs, so that --help answers at once.
"""

import io
import json
import os
import signal
import sys
import time
import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from serve.errors import ServeError

if TYPE_CHECKING:
    from serve.bulk import Summary
    from serve.contract import Contract

MODEL = click.argument("model", metavar="MODEL")
DEVICE = click.option(
    "--device",
    type=click.Choice(["auto", "cpu", "cuda", "tensorrt"]),
    default="auto",
    show_default=True,
    help="auto takes CUDA where it is and says what it took; the others are an error where they are not.",
)
VARIANT = click.option(
    "--variant",
    type=click.Choice(["auto", "fp32", "int8", "fp16"]),
    default="auto",
    show_default=True,
    help="Precision, of a package that has several: auto takes what it recommends for the device, and says so.",
)
OUTPUT = click.option(
    "-o",
    "--output",
    default="-",
    metavar="FILE",
    help="A .csv, .jsonl or .parquet file, written as FILE.part and renamed at the end.  [default: CSV to stdout]",
)
STRICT = click.option("--strict", is_flag=True, help="Exit with code 3 where any row has status error.")


class Commands(click.Group):
    """The one place where our errors become one line on stderr and exit code 1."""

    def invoke(self, ctx: click.Context) -> Any:
        # Pillow warns about odd metadata and large images; what cannot be served becomes an error row anyway.
        warnings.filterwarnings("ignore", module=r"PIL\.")
        try:
            return super().invoke(ctx)
        except ServeError as error:
            raise click.ClickException(str(error)) from error


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="convline", prog_name="infer")
def main() -> None:
    """Predict with a Convline model: one .onnx file, no PyTorch.

    MODEL is an .onnx file, a package folder, or the name of an entry in out/dist/.

    \b
    infer images lenet5-digits photos/ -o labels.csv
    infer series dilated-waves history.csv
    infer info lenet5-digits
    """


@main.command()
@MODEL
@click.argument("paths", metavar="PATH...", nargs=-1, required=True)
@OUTPUT
@click.option("--top-k", type=click.IntRange(1), default=1, show_default=True, help="Labels per image.")
@click.option("--batch", type=click.IntRange(1, 4096), help="Images per run of a worker.  [default: measured]")
@click.option("--workers", type=click.IntRange(1, 256), help="Side by side.  [default: one per usable core]")
@click.option("--resume", is_flag=True, help="Go on after an interrupted run, if there was one.")
@click.option("-0", "--null", "nul", is_flag=True, help="Names on stdin end with NUL (find -print0).")
@STRICT
@DEVICE
@VARIANT
def images(
    model: str, paths: tuple[str, ...], output: str, top_k: int, batch: int | None, workers: int | None, resume: bool,
    nul: bool, strict: bool, device: str, variant: str,
) -> None:  # fmt: skip
    """Classify images: files, folders (recursively), quoted globs, or - for a list of names on stdin.

    Writes one row per input, in input order: path, label, score, label_2, ..., status, error. An input that cannot be
    classified has status error and the reason; the others do not notice. With --resume an interrupted run goes on from
    FILE.part, if model, options and the inputs that are done are as they were.

    \b
    infer images lenet5-digits digits/ 'more/*.png' --top-k 3 -o labels.csv
    find . -name '*.jpg' -print0 | infer images lenet5-digits -0 - -o labels.parquet --resume
    """
    _check_suffix(output)
    if resume and output == "-":
        raise click.BadParameter("needs a file to go on with; add --output FILE", param_hint="--resume")
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # numpy's own threads: unused, and in the way of a fork
    from serve.bulk import label_images
    from serve.journal import journal_of
    from serve.sources import ImageSources

    contract = _read(model, device, "classification", variant)
    if top_k > len(contract.labels):
        raise click.BadParameter(f"expected at most the model's {len(contract.labels)} labels", param_hint="--top-k")
    if not resume and output != "-" and journal_of(output).exists():
        _say(f"{output}.part: an interrupted run is written over; --resume would have gone on with it")
    sources = ImageSources(paths, sys.stdin.buffer, nul=nul)
    progress, started = Progress("images"), time.perf_counter()

    def watch(summary: "Summary") -> None:
        if summary.mark.rows == summary.resumed and device == "auto":
            _say(f"device: {summary.device}")
        progress.show(summary.mark.rows, summary.mark.failed)

    with _interruptible("" if output == "-" else f"{output}.part holds what is done, --resume goes on"):
        done = label_images(
            contract, device, sources, output, sys.stdout.buffer,
            top_k=top_k, batch=batch, workers=workers, resume=resume, watch=watch,
        )  # fmt: skip
    progress.clear()
    if sources.skipped:
        _say(f"skipped {sources.skipped} hidden names, links and files of other suffixes inside folders")
    if done.resumed:
        _say(f"{done.resumed} rows are of the interrupted run")
    _say(
        f"batches of {done.batch}, {done.workers}; decoding {done.decode:.2f} s, inference {done.inference:.2f} s, "
        f"writing {done.writing:.2f} s, summed over the workers"
    )
    _finish(
        done.mark.rows, done.mark.failed, "images", done.resumed, time.perf_counter() - started, done.device, strict
    )


@main.command()
@MODEL
@click.argument("files", metavar="FILE...", nargs=-1, required=True)
@OUTPUT
@click.option("--horizon", type=click.IntRange(1, 1_000_000), help="Steps ahead.  [default: as trained]")
@click.option("--columns", metavar="NAME,...", help="Columns to read, in the model's order.  [default: the model's]")
@click.option("--time", "time_", metavar="NAME", help="Time column, '' for none.  [default: the model's]")
@click.option(
    "--id", "id_", metavar="NAME", help="Column that tells series apart, '' for none.  [default: the model's]"
)
@click.option("--gaps", type=click.Choice(["error", "interpolate"]), help="Missing rows.  [default: the model's]")
@STRICT
@DEVICE
def series(
    model: str, files: tuple[str, ...], output: str, horizon: int | None, columns: str | None, time_: str | None,
    id_: str | None, gaps: str | None, strict: bool, device: str,
) -> None:  # fmt: skip
    """Forecast each series of CSV files (- for stdin) from its last rows.

    Writes a long table: unique_id, ds, yhat, yhat-lo-80, yhat-hi-80, status, error; yhat-NAME where the model has
    several columns. Beyond the trained horizon the forecast is fed back: status is recursive, intervals are empty. A
    file or series that cannot be forecast is one row with status error.

    \b
    infer series dilated-waves history.csv
    infer series dilated-waves shop.csv --id shop --time day --columns sales -o forecast.parquet
    """
    _check_suffix(output)
    from serve.forecast import Reading, columns_of, forecast_file
    from serve.output import open_table

    forecaster = _load(model, device, "forecasting")
    reading = Reading.of(forecaster, columns, time_, id_, gaps)
    if len(reading.columns) != len(forecaster.columns):
        raise click.BadParameter(f"expected {len(forecaster.columns)} names", param_hint="--columns")
    started, counts = time.perf_counter(), Counter[str]()
    with open_table(output, columns_of(forecaster), sys.stdout.buffer) as write:
        for file in files:
            source = io.TextIOWrapper(io.BytesIO(sys.stdin.buffer.read()), "utf-8-sig") if file == "-" else file
            for rows, filled in forecast_file(forecaster, source, reading, horizon or forecaster.horizon):
                write(rows)
                counts.update(str(row["status"]) for row in rows)
                if filled:
                    _say(f"{file}: {filled} values made by interpolation")
    _finish(counts.total(), counts["error"], "rows", 0, time.perf_counter() - started, forecaster.device, strict)


@main.command()
@MODEL
@click.option("--json", "as_json", is_flag=True, help="Print the model document as it is, golden samples included.")
def info(model: str, as_json: bool) -> None:
    """Show what a model is, what it expects and where it comes from.

    \b
    infer info lenet5-digits
    """
    from serve.contract import read
    from serve.info import describe
    from serve.locate import locate

    path, sha256, _ = locate(model)
    contract = read(path, sha256)
    click.echo(json.dumps(contract.document, indent=2) if as_json else describe(contract))


class Progress:
    """How far a command is, on a terminal alone: one line, written over."""

    def __init__(self, what: str) -> None:
        self.what = what
        self.shown = sys.stderr.isatty()
        self.started = self.last = time.monotonic()

    def show(self, n: int, failed: int) -> None:
        """Write the line anew, five times a second at most."""
        now = time.monotonic()
        if self.shown and now - self.last > 0.2:
            rate = n / (now - self.started)
            click.echo(f"\r{n:,} {self.what}, {failed:,} failed, {rate:,.0f}/s\033[K", err=True, nl=False)
            self.last = now

    def clear(self) -> None:
        if self.shown and self.last > self.started:
            click.echo("\r\033[K", err=True, nl=False)


@contextmanager
def _interruptible(advice: str) -> Iterator[None]:
    """Turn Ctrl-C and SIGTERM into one line and exit code 130, once what is open is closed."""

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    except KeyboardInterrupt:
        _say(f"interrupted; {advice}" if advice else "interrupted")
        raise SystemExit(130) from None
    finally:
        signal.signal(signal.SIGTERM, before)


def _read(model: str, device: str, task: str, variant: str = "auto") -> "Contract":
    """Return the contract of a name or path for a task; say which variant was chosen."""
    from serve.contract import read
    from serve.locate import locate
    from serve.session import providers_for, resolve

    providers_for(device)  # an error before the file is read, where the device is not there
    path, sha256, why = locate(model, resolve(device), variant)
    contract = read(path, sha256)
    if contract.task != task:
        command = "images" if contract.task == "classification" else "series"
        raise ServeError(f"{path}: expected a model for {task}, got {contract.task}; use `infer {command}`")
    if why:
        _say(f"variant: {why}")
    return contract


def _load(model: str, device: str, task: str, variant: str = "auto") -> Any:
    """Return the Classifier or Forecaster of a name or path, and say which device and which variant was chosen."""
    from serve.model import wrap
    from serve.session import open_session

    contract = _read(model, device, task, variant)
    loaded = wrap(contract, open_session(contract.bytes, device), device)
    if device == "auto":
        _say(f"device: {loaded.device}")
    return loaded


def _check_suffix(output: str) -> None:
    from serve.output import SUFFIXES

    if output != "-" and Path(output).suffix.lower() not in SUFFIXES:
        raise click.BadParameter(f"expected a name ending in {', '.join(SUFFIXES)}", param_hint="--output")


def _finish(n: int, failed: int, what: str, before: int, seconds: float, device: str, strict: bool) -> None:
    """Print the summary; exit code 3 where --strict was asked and a row failed. `before` rows were done earlier."""
    rate = (n - before) / max(seconds, 1e-9)
    _say(f"{n - failed} ok, {failed} error, {seconds:.2f} s, {rate:.0f} {what}/s on {device}")
    if strict and failed:
        raise SystemExit(3)


def _say(text: str) -> None:
    click.echo(text, err=True)
